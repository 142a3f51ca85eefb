// A source layer on its way into a spool: decompressed, hashed and indexed while it is written.

import {type FileHandle, mkdtemp, open, rm} from 'node:fs/promises'
import {join} from 'node:path'
import type {BulkCodec, Spool} from '../compression/codec.ts'
import {CodedError} from '../errors/coded-error.ts'
import {decompressStream} from '../io/decompress.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, digestFromHash} from '../oci/digest.ts'
import {layerCompressionOf} from '../oci/media-type.ts'
import {createTarScanner} from '../tar/scanner.ts'
import type {TarEntry} from '../tar/tar-entry.ts'
import type {SourceMembers} from './reuse-source.ts'

/** A layer in a store. */
export interface LayerSource {
  readonly content: ContentStore
  readonly descriptor: Descriptor
  /** What the image config says the decompressed layer's digest is; verified when given. */
  readonly diffId?: Digest | undefined
}

export interface SpoolOptions extends CallOptions {
  readonly codec: BulkCodec
  /** Where a layer that is too large for memory is kept, under no name, while it is converted. */
  readonly temporaryDirectory: string
  /** Bytes to which a layer may decompress at most. */
  readonly maxUncompressedSize: number
  /** Compressed bytes read so far. */
  readonly onBytes?: ((doneBytes: number) => void) | undefined
}

/** A decompressed layer and what is in it; disposing it frees the disk space or memory. */
export interface SpooledLayer extends AsyncDisposable {
  readonly spool: Spool
  readonly entries: readonly TarEntry[]
  /** The compressed members that it came in, where they are known. */
  readonly members?: SourceMembers
}

/** A decompressed layer up to this size stays in memory; several layers are converted at once. */
const MEMORY_SIZE = 16 << 20
/** Deflate cannot make more of a byte than this (RFC 1951: 258 bytes from 2 bits). */
const MAX_GZIP_RATIO = 1032
/**
 * The default limit on what a layer decompresses to: 64 times its size, and at least 1 GiB. Root file systems compress
 * 2 to 4 times; layers of zeros, which a bomb is made of, up to 1032 times with gzip and without limit with zstd.
 */
const DEFAULT_MAX_RATIO = 64
const DEFAULT_MIN_LIMIT = 2 ** 30

/** The limit that holds when a caller has none of its own. */
export function defaultMaxUncompressedSize(compressedSize: number): number {
  return Math.max(DEFAULT_MIN_LIMIT, Math.min(MAX_GZIP_RATIO, DEFAULT_MAX_RATIO) * compressedSize)
}

/**
 * Spools a layer. Throws `corrupt` unless the blob has its digest, the tar is whole, and the DiffID is right;
 * `unsupported` for a media type that is no layer; `unavailable` when the disk is full.
 */
export async function spoolLayer(source: LayerSource, options: SpoolOptions): Promise<SpooledLayer> {
  const {content, descriptor} = source
  const compression = layerCompressionOf(descriptor.mediaType)
  if (compression === undefined) {
    throw new CodedError(
      'unsupported',
      `Cannot convert a layer of type ${JSON.stringify(descriptor.mediaType)}`,
    )
  }
  await using blob = await content.open(descriptor, options)
  const compressed = countBytes(blob.stream(options), options.onBytes)
  const tar = decompressStream(compressed, compression, `layer ${descriptor.digest}`, options)
  return await spoolTar(tar, source, options)
}

/** Spools what a layer was decompressed to; throws as `spoolLayer`. */
export async function spoolTar(
  tar: AsyncIterable<Uint8Array>,
  source: LayerSource,
  options: SpoolOptions,
): Promise<SpooledLayer> {
  const entries: TarEntry[] = []
  const scanner = createTarScanner(entry => entries.push(entry))
  const digester = source.diffId ? options.codec.createDigester() : undefined
  const store = createSpoolStore(options.temporaryDirectory)
  try {
    let size = 0
    for await (const bytes of tar) {
      options.signal?.throwIfAborted()
      size += bytes.length
      if (size > options.maxUncompressedSize) throw tooLarge(options.maxUncompressedSize)
      // All three use the same bytes, and none changes them.
      const pending = Promise.all([digester?.update(bytes), store.write(bytes)])
      try {
        scanner.push(bytes)
      } finally {
        await pending
      }
    }
    scanner.end()
    if (source.diffId && digester) checkDiffId(source.diffId, digestFromHash(await digester.digest()))
    return {spool: store.finish(), entries, [Symbol.asyncDispose]: store.close}
  } catch (error) {
    await store.close()
    throw error
  }
}

function checkDiffId(expected: Digest, actual: Digest): void {
  if (actual === expected) return
  throw new CodedError(
    'corrupt',
    `Cannot use the layer: it decompresses to ${actual}, but the image config says ${expected}`,
  )
}

function tooLarge(limit: number): CodedError {
  return new CodedError(
    'unsupported',
    `Cannot convert the layer: it decompresses to more than ${limit} bytes, the limit for a layer of its size`,
  )
}

/** Passes chunks on, and says how many bytes have come by. */
export async function* countBytes(
  chunks: AsyncIterable<Uint8Array>,
  onBytes: ((doneBytes: number) => void) | undefined,
): AsyncGenerator<Uint8Array> {
  let doneBytes = 0
  for await (const chunk of chunks) {
    doneBytes += chunk.length
    onBytes?.(doneBytes)
    yield chunk
  }
}

/** Bytes that are written from start to end, and then read anywhere. */
export interface SpoolStore {
  write(bytes: Uint8Array): Promise<void>
  finish(): Spool
  close(): Promise<void>
}

/** Memory for a small layer; a file for a larger one. */
export function createSpoolStore(directory: string): SpoolStore {
  let held: Uint8Array[] = []
  let size = 0
  let file: FileHandle | undefined

  async function write(bytes: Uint8Array): Promise<void> {
    const offset = size
    size += bytes.length
    held.push(bytes)
    if (!file && size <= MEMORY_SIZE) return
    const start = file ? offset : 0
    file ??= await openUnnamed(directory)
    const pending = held
    held = []
    await writeAll(file, pending, start).catch(cause => {
      throw new CodedError(
        'unavailable',
        `Cannot keep the decompressed layer in ${JSON.stringify(directory)} (${size} bytes so far)`,
        {cause},
      )
    })
  }

  return {
    write,
    finish: () => ({size, storage: file ? file.fd : Buffer.concat(held)}),
    close: async () => {
      held = []
      await file?.close()
      file = undefined
    },
  }
}

async function writeAll(file: FileHandle, chunks: readonly Uint8Array[], start: number): Promise<void> {
  let position = start
  for (const chunk of chunks) {
    for (let written = 0; written < chunk.length; ) {
      const {bytesWritten} = await file.write(chunk, written, chunk.length - written, position)
      written += bytesWritten
      position += bytesWritten
    }
  }
}

/** A file that vanishes with its descriptor, so that not even a killed process leaves it behind. */
async function openUnnamed(directory: string): Promise<FileHandle> {
  const holder = await mkdtemp(join(directory, 'ctr-remote-layer-'))
  try {
    return await open(join(holder, 'tar'), 'wx+', 0o600)
  } finally {
    await rm(holder, {recursive: true, force: true})
  }
}
