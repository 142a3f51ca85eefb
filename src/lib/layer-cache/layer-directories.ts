// The directories of layers: who needs which, and making room by removing those that nobody does.

import {randomUUID} from 'node:crypto'
import {readdir, rename, rm, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {hasCode} from '../errors/coded-error.ts'
import {type ReadDiskSpace, roomForUnused} from './disk-space.ts'

/** What starts the names of directories that are not whole yet, or no longer. */
export const STAGED = 'new-'
/** How long a layer is kept for somebody who has asked for it and not opened it yet, milliseconds. */
const PIN_MS = 300_000
/** After a start, how long layers are kept for mounts that have outlived the last daemon, milliseconds. */
const RESTORE_MS = 60_000
/** Bytes per block of `stat`. */
const STAT_BLOCK_SIZE = 512

export interface LayerDirectoriesOptions {
  readonly root: string
  /** Keys that are there at first. */
  readonly keys: readonly string[]
  /** A clock, milliseconds. */
  readonly now: () => number
  /** Told when a directory is no longer there. */
  readonly onGone: (key: string) => void
  readonly diskSpace: ReadDiskSpace
}

export interface LayerDirectories {
  pathOf(key: string): string
  /** Keeps a layer from being evicted until it is used, or a while. */
  pin(key: string): Promise<void>
  /** Keeps a layer from being evicted or discarded until the result is called. */
  use(key: string): Promise<() => void>
  /** Removes a layer; false when it is in use. A crash leaves all of it or nothing. */
  discard(key: string): Promise<boolean>
  /**
   * Removes layers that nobody needs, those first that were used longest ago, until all take `maxSize` bytes (0: any), and
   * there is room on the disk for more.
   */
  evict(maxSize: number): Promise<void>
  /** Bytes that all layers take. */
  size(): Promise<number>
}

export function createLayerDirectories(options: LayerDirectoriesOptions): LayerDirectories {
  const {root, keys, now, onGone, diskSpace} = options
  const pathOf = (key: string) => join(root, key)
  const users = new Map<string, number>()
  /** Until when, by `now`. */
  const pins = new Map(keys.map(key => [key, now() + RESTORE_MS]))
  /** Directories that are getting another name. Between waiting for one and taking a layer there is no `await`. */
  const leaving = new Map<string, Promise<unknown>>()
  let evicting: Promise<void> | undefined

  async function hasLeft(key: string): Promise<void> {
    while (leaving.has(key)) await leaving.get(key)
  }

  function isPinned(key: string): boolean {
    return (pins.get(key) ?? Number.NEGATIVE_INFINITY) > now()
  }

  async function pin(key: string): Promise<void> {
    await hasLeft(key)
    if (!users.has(key)) pins.set(key, now() + PIN_MS)
  }

  async function use(key: string): Promise<() => void> {
    await hasLeft(key)
    users.set(key, (users.get(key) ?? 0) + 1)
    pins.delete(key)
    return () => {
      const left = users.get(key)! - 1
      if (left > 0) users.set(key, left)
      else users.delete(key)
    }
  }

  async function discard(key: string, isNeeded = () => users.has(key)): Promise<boolean> {
    await hasLeft(key)
    if (isNeeded()) return false
    const aside = pathOf(`${STAGED}${randomUUID()}`)
    const moved = rename(pathOf(key), aside).finally(() => leaving.delete(key))
    leaving.set(
      key,
      moved.catch(() => {}),
    )
    try {
      await moved
    } catch (error) {
      if (!hasCode(error, 'not-found')) throw error
    }
    pins.delete(key)
    onGone(key)
    // What is left of it is swept at the next start.
    await rm(aside, {recursive: true, force: true}).catch(() => {})
    return true
  }

  async function measure(): Promise<(LayerUsage & {readonly name: string})[]> {
    const layers = []
    for (const name of await readdir(root)) {
      if (!name.startsWith(STAGED)) layers.push({name, ...(await usageOf(pathOf(name)))})
    }
    return layers
  }

  async function evictNow(maxSize: number): Promise<void> {
    const space = diskSpace(root)
    let missing = roomForUnused(space) - space.free
    // Most of the time there is nothing to do, which needs no look at every file.
    if (maxSize === 0 && missing <= 0) return
    const layers = (await measure()).sort((left, right) => left.lastUsed - right.lastUsed)
    let total = sizeOf(layers)
    for (const {name, size} of layers) {
      if ((maxSize === 0 || total <= maxSize) && missing <= 0) return
      const isGone = await discard(name, () => users.has(name) || isPinned(name)).catch(() => false)
      if (!isGone) continue
      total -= size
      missing -= size
    }
  }

  return {
    pathOf,
    pin,
    use,
    discard: key => discard(key),
    evict: maxSize => {
      evicting ??= evictNow(maxSize).finally(() => {
        evicting = undefined
      })
      return evicting
    },
    size: async () => sizeOf(await measure()),
  }
}

interface LayerUsage {
  readonly size: number
  readonly lastUsed: number
}

function sizeOf(layers: readonly LayerUsage[]): number {
  return layers.reduce((sum, {size}) => sum + size, 0)
}

/** What a layer takes; what cannot be read, or has just gone, takes nothing. */
async function usageOf(directory: string): Promise<LayerUsage> {
  let size = 0
  let lastUsed = 0
  for (const name of await readdir(directory).catch(() => [])) {
    const found = await stat(join(directory, name)).catch(() => undefined)
    size += (found?.blocks ?? 0) * STAT_BLOCK_SIZE
    if (name === 'record.json') lastUsed = found?.mtimeMs ?? 0
  }
  return {size, lastUsed}
}
