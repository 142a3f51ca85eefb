// Finds and loads the N-API addon, once. Without it (no compiler was there) callers fall back or say what is missing.

import {createRequire} from 'node:module'
import {join} from 'node:path'
import {CodedError} from '../errors/coded-error.ts'
import {findAbove} from '../io/find-above.ts'

/** The addon's functions, as native/addon.c documents them. */
export interface Addon {
  compressMembers(
    kind: 0 | 1,
    level: number,
    storage: number | Uint8Array,
    literals: Uint8Array,
    offsets: Float64Array,
    sizes: Float64Array,
    counts: Uint32Array,
  ): Promise<{bytes: Uint8Array; sizes: Uint32Array}>
  hashPieces(
    storage: number | Uint8Array,
    literals: Uint8Array,
    offsets: Float64Array,
    sizes: Float64Array,
    counts: Uint32Array,
  ): Promise<Uint8Array>
  checksumPieces(
    storage: number | Uint8Array,
    literals: Uint8Array,
    offsets: Float64Array,
    sizes: Float64Array,
    counts: Uint32Array,
  ): Promise<Uint8Array>
  readPieces(
    storage: number | Uint8Array,
    literals: Uint8Array,
    offsets: Float64Array,
    sizes: Float64Array,
    counts: Uint32Array,
  ): Promise<Uint8Array>
  inflateMember(kind: 0 | 1, bytes: Uint8Array, size: number): Promise<Uint8Array>
  unpackStreams(
    kind: 0 | 1,
    bytes: Uint8Array,
    streams: Float64Array,
    chunks: Float64Array,
    hashes: Uint8Array | undefined,
    fd: number,
  ): Promise<Uint8Array>
  /** Where `status` is not that of success there are only `status` and perhaps `message`; see native/layer/open-layer.h. */
  openLayer(
    where: Uint8Array,
    wrapping: 0 | 1 | 2,
    toc: Uint8Array,
    hash: Uint8Array | undefined,
    dataEnd: number,
    wantsImage: boolean,
    aborted: Uint8Array,
  ): Promise<NativeLayer>
  createDigester(): NativeDigester
  digesterUpdate(digester: NativeDigester, bytes: Uint8Array): Promise<void>
  digesterUpdatePieces(
    digester: NativeDigester,
    storage: number | Uint8Array,
    literals: Uint8Array,
    offsets: Float64Array,
    sizes: Float64Array,
    counts: Uint32Array,
  ): Promise<void>
  digesterFinal(digester: NativeDigester): Promise<Uint8Array>
  /** Text arguments are bytes that end with a NUL; the results are 0 or an errno. */
  mount(source: Uint8Array, target: Uint8Array, type: Uint8Array, flags: number, data: Uint8Array): number
  umount(target: Uint8Array, flags: number): number
  mknod(path: Uint8Array, mode: number, major: number, minor: number): number
  lsetxattr(path: Uint8Array, name: Uint8Array, value: Uint8Array): number
  lutimes(path: Uint8Array, seconds: number, nanoseconds: number): number
  dropCache(fd: number): number
  mapLargeBlocks(): void
  trimMemory(): void
  sendDatagram(path: Uint8Array, bytes: Uint8Array): number
  /** These return a positive result, or an errno below 0. */
  makeInterruptible(): number
  openBacking(session: number, fd: number): number
  interruptThread(thread: number): number
  closeBacking(session: number, id: number): number
  peerProcess(fd: number): number
  exchange(path: Uint8Array, message: Uint8Array, fd: number): Promise<{bytes: Buffer; fd: number} | number>
}

/** What native/layer makes of a layer: the fields of a chunk map, and some more. */
export interface NativeLayer {
  readonly status: number
  readonly message?: string
  readonly count: number
  readonly deviceSize: number
  readonly deviceOffsets: Float64Array
  readonly sizes: Float64Array
  readonly streams: Uint32Array
  readonly innerOffsets: Float64Array
  readonly hashes?: Uint8Array
  readonly streamCount: number
  readonly streamOffsets: Float64Array
  readonly streamEnds: Float64Array
  readonly streamSizes: Float64Array
  readonly firstChunks: Uint32Array
  readonly streamChunks: Uint32Array
  /** Negative for a layer that does not say. */
  readonly prefetchSize: number
  readonly image?: Uint8Array
}

declare const digesterBrand: unique symbol
/** An opaque handle. */
export interface NativeDigester {
  readonly [digesterBrand]: true
}

let loaded: Addon | false | undefined

/** The addon, or undefined where it has not been built or cannot be loaded. */
export function findAddon(): Addon | undefined {
  loaded ??= load() ?? false
  return loaded || undefined
}

/** The addon; throws `unsupported` with what to do about it. */
export function requireAddon(): Addon {
  const addon = findAddon()
  if (!addon) {
    throw new CodedError(
      'unsupported',
      'Cannot use system calls: the native addon is not built; run "make -C native"',
    )
  }
  return addon
}

/** The path of something that native/Makefile builds, or undefined when it is not there. */
export function findNativeFile(name: string): string | undefined {
  return findAbove(import.meta.dirname, join('native', 'build', name))
}

function load(): Addon | undefined {
  const path = findNativeFile('addon.node')
  if (path === undefined) return undefined
  try {
    return createRequire(import.meta.url)(path)
  } catch {
    // Built for another machine, or a shared library is missing: the same as not built.
    return undefined
  }
}
