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
import type {LayerCache, LayerData, LayerRecord} from '../layer/ports.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {openLayerData} from './layer-data.ts'
import {createLayerDirectories, STAGED} from './layer-directories.ts'
import {isSoundFile, writeSoundFile} from './sound-file.ts'

export interface LayerCacheOptions {
  readonly root: string
  /** Bytes on disk above which layers that are not in use are removed, those first that were used longest ago; 0: none. */
  readonly maxSize: number
  /** The kernel's boot id: what was written since is still there, synced or not. */
  readonly bootId: string
  /** A clock, milliseconds; `performance.now` unless given. */
  readonly now?: () => number
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
export async function openLayerCache(options: LayerCacheOptions): Promise<LayerCache> {
  const {root, maxSize, bootId, now = () => performance.now()} = options
  await mkdir(root, {recursive: true, mode: 0o700})
  const keys = await sweep(root)
  /** By key. */
  const blobs = new Map<string, Digest>()
  for (const key of keys) {
    const record = await readStored(join(root, key)).catch(() => undefined)
    if (record) blobs.set(key, record.blobDigest)
  }
  const directories = createLayerDirectories({root, keys, now, onGone: key => blobs.delete(key)})

  async function find(key: string): Promise<LayerRecord | undefined> {
    await directories.pin(key)
    try {
      return await readRecord(directories.pathOf(key))
    } catch (error) {
      if (hasCode(error, 'not-found')) return undefined
      if (!hasCode(error, 'corrupt')) {
        const message = `Cannot read layer ${JSON.stringify(key)} in the cache: ${describeError(error)}`
        throw new CodedError(codeOf(error), message, {cause: error})
      }
      await directories.discard(key)
      return undefined
    }
  }

  async function add(key: string, record: LayerRecord): Promise<void> {
    await directories.pin(key)
    if (maxSize > 0) await directories.evict(maxSize)
    const staged = await mkdtemp(join(root, STAGED))
    try {
      await writeRecord(staged, record)
      await publish(staged, key)
      if (!blobs.has(key)) blobs.set(key, record.blobDigest)
    } finally {
      await rm(staged, {recursive: true, force: true})
    }
  }

  /** Gives a staged directory its name, unless somebody was faster, with the same record. */
  async function publish(staged: string, key: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        await rename(staged, directories.pathOf(key))
        return
      } catch (error) {
        if (!isNameTaken(error) || attempt === MAX_ATTEMPTS) throw error
        if (await find(key)) return
        if (await directories.discard(key)) continue
        const message = `Cannot keep layer ${JSON.stringify(key)}: it is in use, and its record is damaged`
        throw new CodedError('failed-precondition', message, {cause: error})
      }
    }
  }

  async function openData(
    key: string,
    {deviceSize, chunkCount}: {readonly deviceSize: number; readonly chunkCount: number},
  ): Promise<LayerData> {
    const directory = directories.pathOf(key)
    const release = await directories.use(key)
    try {
      const time = new Date()
      await utimes(join(directory, RECORD), time, time)
      return await openLayerData({directory, deviceSize, chunkCount, bootId, release})
    } catch (error) {
      release()
      throw error
    }
  }

  const making = new Map<string, Promise<string>>()

  async function file(key: string, name: string, make: () => Promise<Uint8Array>): Promise<string> {
    const path = join(directories.pathOf(key), name)
    const known = making.get(path)
    if (known) return known
    const made = (async () => {
      await directories.pin(key)
      if (!(await isSoundFile(path, bootId))) await writeSoundFile(path, await make(), bootId)
      return path
    })().finally(() => making.delete(path))
    making.set(path, made)
    return made
  }

  return {
    find,
    hasBlob: digest => [...blobs.values()].includes(digest),
    remove: async key => {
      await directories.discard(key)
    },
    add,
    open: openData,
    hasFile: (key, name) => isSoundFile(join(directories.pathOf(key), name), bootId),
    file,
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

async function writeRecord(directory: string, record: LayerRecord): Promise<void> {
  const {blobDigest, blobSize, tail, externalToc} = record
  const stored: StoredRecord = {
    blobDigest,
    blobSize,
    tail: crc32(tail),
    ...(externalToc && {externalToc: crc32(externalToc)}),
  }
  await writeFile(join(directory, RECORD), JSON.stringify(stored))
  await writeFile(join(directory, TAIL), tail)
  if (externalToc) await writeFile(join(directory, EXTERNAL_TOC), externalToc)
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
