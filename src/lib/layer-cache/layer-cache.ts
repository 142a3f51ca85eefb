// Layers on disk: a directory each, shared by all images and kept across restarts.
//
//   <root>/<key>/record.json    what the layer is; its time of change is when the layer was last used
//                tail           the end of its blob, from the TOC on
//                external-toc   its TOC, where another image holds it
//                data           its files' data as one sparse file
//                journal        which chunks are in `data`
//                …, ….sum      what a mount needs beside that, and their checksums
//
// A directory gets its name when it is whole, and loses it before it is removed, so what a crash of the process leaves is
// never taken for a layer. Nothing is synced while somebody waits for a mount: what a crash of the machine has damaged is
// noticed by checksums. `sync` of a layer's data syncs the rest with them.

import {mkdir, mkdtemp, readdir, readFile, rename, rm, utimes, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {crc32} from 'node:zlib'
import {CodedError, codeOf, describeError, hasCode} from '../errors/coded-error.ts'
import type {LayerCache, LayerData, LayerRecord, PrunedLayers} from '../layer/ports.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {diskSpaceOf, type ReadDiskSpace, reserveOf} from './disk-space.ts'
import {openLayerData} from './layer-data.ts'
import {LayerDirectories, STAGED} from './layer-directories.ts'
import {isSoundFile, writeSoundFile} from './sound-file.ts'

export interface LayerCacheOptions {
  readonly root: string
  /** Bytes on disk above which layers that are not in use are removed, those first that were used longest ago; 0: none. */
  readonly maxSize: number
  /** The kernel's boot id: what was written since is still there, synced or not. */
  readonly bootId: string
  /** A clock, milliseconds; `performance.now` unless given. */
  readonly now?: () => number
  /** That of the kernel unless given. */
  readonly diskSpace?: ReadDiskSpace
}

/** `record.json`. */
interface StoredRecord {
  readonly blobDigest: Digest
  readonly blobSize: number
  /** CRC-32 of the files of these names; without the second there is no such file. */
  readonly tail: number
  readonly externalToc?: number
}

const RECORD = 'record.json'
const TAIL = 'tail'
const EXTERNAL_TOC = 'external-toc'
/** How often a name may be taken by something that is no layer, while one is added. */
const MAX_ATTEMPTS = 3

/** Opens the cache in `root`, made where it is missing, and removes what a crash has left half-made. */
export async function openLayerCache(options: LayerCacheOptions): Promise<DiskLayerCache> {
  const {root} = options
  await mkdir(root, {recursive: true, mode: 0o700})
  const keys = await sweep(root)
  const blobs = new Map<string, Digest>()
  for (const key of keys) {
    const record = await readStored(join(root, key)).catch(() => undefined)
    if (record) blobs.set(key, record.blobDigest)
  }
  return new DiskLayerCache(options, keys, blobs)
}

/** A cache on a disk that others need too. */
export class DiskLayerCache implements LayerCache {
  readonly #root: string
  readonly #maxSize: number
  readonly #bootId: string
  readonly #diskSpace: ReadDiskSpace
  readonly #directories: LayerDirectories
  /** By key. */
  readonly #blobs: Map<string, Digest>
  /** Files that are being made, by path. */
  readonly #making = new Map<string, Promise<string>>()

  /** `keys` are those that are there; `blobs` are of those whose record can be read. */
  constructor(options: LayerCacheOptions, keys: readonly string[], blobs: Map<string, Digest>) {
    const {root, maxSize, bootId, now = () => performance.now(), diskSpace = diskSpaceOf} = options
    this.#root = root
    this.#maxSize = maxSize
    this.#bootId = bootId
    this.#diskSpace = diskSpace
    this.#blobs = blobs
    const onGone = (key: string) => blobs.delete(key)
    this.#directories = new LayerDirectories({root, keys, now, onGone, diskSpace})
  }

  async find(key: string): Promise<LayerRecord | undefined> {
    await this.#directories.pin(key)
    try {
      return await readRecord(this.#directories.pathOf(key))
    } catch (error) {
      if (hasCode(error, 'not-found')) return undefined
      if (!hasCode(error, 'corrupt')) {
        const message = `Cannot read layer ${JSON.stringify(key)} in the cache: ${describeError(error)}`
        throw new CodedError(codeOf(error), message, {cause: error})
      }
      await this.#directories.discard(key)
      return undefined
    }
  }

  hasBlob(digest: Digest): boolean {
    return [...this.#blobs.values()].includes(digest)
  }

  async remove(key: string): Promise<void> {
    await this.#directories.discard(key)
  }

  async add(
    key: string,
    record: LayerRecord,
    files: ReadonlyMap<string, Uint8Array> = new Map(),
  ): Promise<void> {
    await this.#directories.pin(key)
    await this.tidy()
    await this.#makingRoom(() => this.#add(key, record, files))
  }

  async open(
    key: string,
    {deviceSize, chunkCount}: {readonly deviceSize: number; readonly chunkCount: number},
  ): Promise<LayerData> {
    const directory = this.#directories.pathOf(key)
    const bootId = this.#bootId
    const release = await this.#directories.use(key)
    const onFull = () => this.tidy()
    try {
      const time = new Date()
      await utimes(join(directory, RECORD), time, time)
      return await this.#makingRoom(() =>
        openLayerData({directory, deviceSize, chunkCount, bootId, release, onFull}),
      )
    } catch (error) {
      release()
      throw error
    }
  }

  hasFile(key: string, name: string): Promise<boolean> {
    return isSoundFile(this.#pathOf(key, name), this.#bootId)
  }

  async file(key: string, name: string, make: () => Promise<Uint8Array>): Promise<string> {
    const path = this.#pathOf(key, name)
    const known = this.#making.get(path)
    if (known) return known
    const made = (async () => {
      await this.#directories.pin(key)
      if (await isSoundFile(path, this.#bootId)) return path
      const bytes = await make()
      await this.#makingRoom(() => writeSoundFile(path, bytes, this.#bootId))
      return path
    })().finally(() => this.#making.delete(path))
    this.#making.set(path, made)
    return made
  }

  async fileContents(key: string, name: string): Promise<Uint8Array | undefined> {
    const path = this.#pathOf(key, name)
    return (await isSoundFile(path, this.#bootId)) ? readFile(path) : undefined
  }

  /** Removes all layers that nobody uses, and has not asked for lately. */
  prune(): Promise<PrunedLayers> {
    return this.#directories.prune()
  }

  /** Removes layers that nobody uses, as the limits say; never fails: what cannot be removed stays. */
  tidy(): Promise<void> {
    return this.#directories.evict(this.#maxSize).catch(() => {})
  }

  /** Throws `unavailable` when nothing more may be fetched ahead: the disk's reserve begins, or the limit is reached. */
  async requireRoom(): Promise<void> {
    const problem = (await this.#whyNoRoom()) && (await this.tidy().then(() => this.#whyNoRoom()))
    if (problem) throw new CodedError('unavailable', `Cannot fetch ahead: ${problem}`)
  }

  /** Bytes between what is on the disk now and its reserve. */
  spareRoom(): number {
    const space = this.#diskSpace(this.#root)
    return space.free - reserveOf(space)
  }

  #pathOf(key: string, name: string): string {
    return join(this.#directories.pathOf(key), name)
  }

  async #whyNoRoom(): Promise<string | undefined> {
    if (this.spareRoom() <= 0) return `the disk of ${JSON.stringify(this.#root)} is nearly full`
    if (this.#maxSize === 0 || (await this.#directories.size()) < this.#maxSize) return undefined
    return 'the layers in use take all that "directory_cache.max_size_mb" allows'
  }

  /** Runs `work`, and once more with fewer layers when the disk is full. */
  async #makingRoom<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (error) {
      if (!hasCode(error, 'unavailable')) throw error
      await this.tidy()
      return await work()
    }
  }

  async #add(key: string, record: LayerRecord, files: ReadonlyMap<string, Uint8Array>): Promise<void> {
    const staged = await mkdtemp(join(this.#root, STAGED))
    try {
      // Somebody waits for the mount, and each step queues behind what is being unpacked: all at once.
      await allOf([
        ...writeRecord(staged, record),
        ...[...files].map(([name, bytes]) => writeSoundFile(join(staged, name), bytes, this.#bootId)),
      ])
      await this.#publish(staged, key)
      if (!this.#blobs.has(key)) this.#blobs.set(key, record.blobDigest)
    } finally {
      await rm(staged, {recursive: true, force: true})
    }
  }

  /** Gives a staged directory its name, unless somebody was faster, with the same record. */
  async #publish(staged: string, key: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await rename(staged, this.#directories.pathOf(key))
        return
      } catch (error) {
        if (!isNameTaken(error) || attempt === MAX_ATTEMPTS) throw error
        if (await this.find(key)) return
        if (await this.#directories.discard(key)) continue
        const message = `Cannot keep layer ${JSON.stringify(key)}: it is in use, and its record is damaged`
        throw new CodedError('failed-precondition', message, {cause: error})
      }
    }
  }
}

/** Removes what is staged. Resolves to the names of the rest. */
async function sweep(root: string): Promise<readonly string[]> {
  const names = await readdir(root)
  const staged = names.filter(name => name.startsWith(STAGED))
  // What cannot be removed takes room, and does no harm beside that.
  for (const name of staged) await rm(join(root, name), {recursive: true, force: true}).catch(() => {})
  return names.filter(name => !name.startsWith(STAGED))
}

function isNameTaken(error: unknown): boolean {
  return ['EEXIST', 'ENOTEMPTY', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')
}

/** Throws what the first failed with, after all have ended. */
async function allOf(work: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(work)
  await Promise.all(work)
}

function writeRecord(directory: string, record: LayerRecord): Promise<void>[] {
  const {blobDigest, blobSize, tail, externalToc} = record
  const stored: StoredRecord = {
    blobDigest,
    blobSize,
    tail: crc32(tail),
    ...(externalToc && {externalToc: crc32(externalToc)}),
  }
  return [
    writeFile(join(directory, RECORD), JSON.stringify(stored)),
    writeFile(join(directory, TAIL), tail),
    ...(externalToc ? [writeFile(join(directory, EXTERNAL_TOC), externalToc)] : []),
  ]
}

/** Throws `not-found` when some of it is missing, `corrupt` when it is damaged. */
async function readRecord(directory: string): Promise<LayerRecord> {
  const {blobDigest, blobSize, tail, externalToc} = await readStored(directory)
  return {
    blobDigest,
    blobSize,
    tail: await readChecked(join(directory, TAIL), tail),
    externalToc:
      externalToc === undefined ? undefined : await readChecked(join(directory, EXTERNAL_TOC), externalToc),
  }
}

async function readChecked(path: string, sum: number): Promise<Uint8Array> {
  const bytes = await readFile(path)
  if (crc32(bytes) !== sum) throw damaged(path)
  return bytes
}

async function readStored(directory: string): Promise<StoredRecord> {
  const path = join(directory, RECORD)
  const text = await readFile(path, 'utf8')
  try {
    const record: Partial<StoredRecord> | null = JSON.parse(text)
    if (isStoredRecord(record)) return record
  } catch (cause) {
    throw damaged(path, cause)
  }
  throw damaged(path)
}

function isStoredRecord(record: Partial<StoredRecord> | null): record is StoredRecord {
  return (
    isDigest(record?.blobDigest) &&
    [record.blobSize, record.tail, record.externalToc ?? 0].every(
      value => Number.isSafeInteger(value) && value! >= 0,
    )
  )
}

function damaged(path: string, cause?: unknown): CodedError {
  return new CodedError('corrupt', `Cannot read ${JSON.stringify(path)}: it is damaged`, {cause})
}
