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

import {mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {LayerCache, LayerData, LayerRecord} from '../layer/ports.ts'
import {parseDigest} from '../oci/digest.ts'
import {openLayerData} from './layer-data.ts'

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
