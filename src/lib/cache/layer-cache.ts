// Layers on disk: a directory each, shared by all images and kept across restarts.
//
//   <root>/<key>/record.json    what the layer is; its time of change is when the layer was last used
//                tail           the end of its blob, from the TOC on
//                external-toc   its TOC, where another image holds it
//                data           its files' data as one sparse file
//                journal        which chunks are in `data`
//                …              what a mount needs beside that
//
// A directory gets its name when it is whole, so what a crash leaves is never taken for a layer.

import {constants} from 'node:fs'
import {
  type FileHandle,
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  utimes,
  writeFile,
} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, codeOf, describeError, hasCode} from '../errors/coded-error.ts'
import {createChunkBitmap} from '../io/chunk-bitmap.ts'
import {createInOrder} from '../io/in-order.ts'
import type {LayerCache, LayerData, LayerRecord} from '../layer/ports.ts'
import {parseDigest} from '../oci/digest.ts'
import {openChunkJournal} from './chunk-journal.ts'

export interface LayerCacheOptions {
  readonly root: string
  /** Bytes on disk above which layers that are not in use are removed, those first that were used longest ago; 0: none. */
  readonly maxSize: number
  /** The kernel's boot id: what was written since is still there, synced or not. */
  readonly bootId: string
}

/** Names of directories that are not whole yet. */
const STAGED = 'new-'
/** Bytes per block of `stat`. */
const STAT_BLOCK_SIZE = 512

/** Opens the cache in `root`, made where it is missing, and removes what a crash has left half-made. */
export async function openLayerCache(options: LayerCacheOptions): Promise<LayerCache> {
  const {root} = options
  await mkdir(root, {recursive: true, mode: 0o700})
  for (const name of await readdir(root)) {
    if (name.startsWith(STAGED)) await rm(join(root, name), {recursive: true, force: true})
  }
  const blobs = new Set<string>()
  for (const name of await readdir(root)) {
    const blob = await blobDigestOf(join(root, name))
    if (blob !== undefined) blobs.add(blob)
  }
  const users = new Map<string, number>()
  const directoryOf = (key: string) => join(root, key)

  async function find(key: string): Promise<LayerRecord | undefined> {
    const directory = directoryOf(key)
    try {
      const {blobDigest, blobSize} = JSON.parse(await readFile(join(directory, 'record.json'), 'utf8'))
      if (!Number.isSafeInteger(blobSize)) throw new CodedError('corrupt', 'It has no size')
      return {
        blobDigest: parseDigest(blobDigest),
        blobSize,
        tail: await readFile(join(directory, 'tail')),
        externalToc: await readIfThere(join(directory, 'external-toc')),
      }
    } catch (error) {
      if (!hasCode(error, 'not-found')) await remove(key)
      return undefined
    }
  }

  async function remove(key: string): Promise<void> {
    if (!users.has(key)) await rm(directoryOf(key), {recursive: true, force: true})
  }

  async function add(key: string, record: LayerRecord): Promise<void> {
    await evict()
    const staged = await mkdtemp(join(root, STAGED))
    try {
      const {blobDigest, blobSize} = record
      await writeFile(join(staged, 'record.json'), JSON.stringify({blobDigest, blobSize}))
      await writeFile(join(staged, 'tail'), record.tail)
      if (record.externalToc) await writeFile(join(staged, 'external-toc'), record.externalToc)
      await rename(staged, directoryOf(key))
      blobs.add(blobDigest)
    } catch (error) {
      await rm(staged, {recursive: true, force: true})
      // Somebody was faster, with the same record.
      if (!hasCode(error, 'already-exists') && (error as NodeJS.ErrnoException).code !== 'ENOTEMPTY')
        throw error
    }
  }

  async function openData(
    key: string,
    {deviceSize, chunkCount}: {readonly deviceSize: number; readonly chunkCount: number},
  ): Promise<LayerData> {
    const directory = directoryOf(key)
    users.set(key, (users.get(key) ?? 0) + 1)
    const release = () => {
      const left = users.get(key)! - 1
      if (left > 0) users.set(key, left)
      else users.delete(key)
    }
    try {
      const now = new Date()
      await utimes(join(directory, 'record.json'), now, now)
      return await openLayerData({directory, deviceSize, chunkCount, bootId: options.bootId, release})
    } catch (error) {
      release()
      throw error
    }
  }

  async function hasFile(key: string, name: string): Promise<boolean> {
    return (await stat(join(directoryOf(key), name)).catch(() => undefined)) !== undefined
  }

  const making = new Map<string, Promise<string>>()

  async function file(key: string, name: string, make: () => Promise<Uint8Array>): Promise<string> {
    const path = join(directoryOf(key), name)
    const known = making.get(path)
    if (known) return known
    const made = makeFile(path, make).finally(() => making.delete(path))
    making.set(path, made)
    return made
  }

  /** Makes room by removing layers nobody uses. */
  async function evict(): Promise<void> {
    if (options.maxSize === 0) return
    const layers = []
    for (const name of await readdir(root)) {
      if (!name.startsWith(STAGED)) layers.push({name, ...(await usageOf(join(root, name)))})
    }
    layers.sort((left, right) => left.lastUsed - right.lastUsed)
    const inUse = new Set([...users.keys()].map(directoryOf))
    let total = layers.reduce((sum, {size}) => sum + size, 0)
    for (const {name, size} of layers) {
      if (total <= options.maxSize) return
      if (inUse.has(join(root, name))) continue
      await rm(join(root, name), {recursive: true, force: true})
      total -= size
    }
  }

  return {find, hasBlob: digest => blobs.has(digest), remove, add, open: openData, hasFile, file}
}

/** Makes the file at `path` unless it is there. */
async function makeFile(path: string, make: () => Promise<Uint8Array>): Promise<string> {
  if ((await stat(path).catch(() => undefined)) === undefined) {
    await writeFile(`${path}.new`, await make())
    await rename(`${path}.new`, path)
  }
  return path
}

async function blobDigestOf(directory: string): Promise<string | undefined> {
  try {
    return JSON.parse(await readFile(join(directory, 'record.json'), 'utf8')).blobDigest
  } catch {
    return undefined
  }
}

async function usageOf(directory: string): Promise<{readonly size: number; readonly lastUsed: number}> {
  let size = 0
  let lastUsed = 0
  for (const name of await readdir(directory)) {
    const {blocks, mtimeMs} = await stat(join(directory, name))
    size += blocks * STAT_BLOCK_SIZE
    if (name === 'record.json') lastUsed = mtimeMs
  }
  return {size, lastUsed}
}

async function readIfThere(path: string): Promise<Uint8Array | undefined> {
  try {
    return await readFile(path)
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  }
}

interface OpenLayerData {
  readonly directory: string
  readonly deviceSize: number
  readonly chunkCount: number
  readonly bootId: string
  readonly release: () => void
}

async function openLayerData(options: OpenLayerData): Promise<LayerData> {
  const {directory, deviceSize, chunkCount} = options
  const path = join(directory, 'data')
  const journalPath = join(directory, 'journal')
  const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600)
  try {
    // A file of another size holds something else, so its journal says nothing.
    if ((await file.stat()).size !== deviceSize) {
      await rm(journalPath, {force: true})
      await file.truncate(0)
      await file.truncate(deviceSize)
    }
    const chunks = createChunkBitmap(chunkCount)
    const journal = await openChunkJournal(journalPath, chunkCount, options.bootId, chunk =>
      chunks.add(chunk),
    )
    const syncing = createInOrder()
    return {
      path,
      fd: file.fd,
      chunks,
      read: (offset, length) => readFully(file, offset, length, path),
      write: (offset, pieces) => writeFully(file, offset, pieces, path),
      note: indexes => {
        for (const index of indexes) {
          chunks.add(index)
          // What cannot be noted is fetched again after a restart.
          journal.append(index).catch(() => {})
        }
      },
      sync: () => syncing(() => journal.sync(() => file.datasync())),
      [Symbol.asyncDispose]: async () => {
        try {
          await journal.close()
        } finally {
          await file.close()
          options.release()
        }
      },
    }
  } catch (error) {
    await file.close()
    throw error
  }
}

async function readFully(
  file: FileHandle,
  offset: number,
  length: number,
  path: string,
): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(length)
  for (let done = 0; done < length; ) {
    const {bytesRead} = await file.read(bytes, done, length - done, offset + done)
    if (bytesRead === 0) {
      throw new CodedError('corrupt', `Cannot read ${JSON.stringify(path)}: it is cut short`)
    }
    done += bytesRead
  }
  return bytes
}

async function writeFully(
  file: FileHandle,
  offset: number,
  pieces: readonly Uint8Array[],
  path: string,
): Promise<void> {
  const total = pieces.reduce((sum, {length}) => sum + length, 0)
  let written = 0
  try {
    written = (await file.writev(pieces, offset)).bytesWritten
  } catch (cause) {
    throw new CodedError(codeOf(cause), `Cannot write ${JSON.stringify(path)}: ${describeError(cause)}`, {
      cause,
    })
  }
  if (written === total) return
  // A write that is cut short says why when the rest is tried.
  const rest = Buffer.concat(pieces).subarray(written)
  await writeFully(file, offset + written, [rest], path)
}
