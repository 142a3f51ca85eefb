// The directories of layers: who needs which, and making room by removing those that nobody does.

import {randomUUID} from 'node:crypto'
import {readdir, rename, rm, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {hasCode} from '../errors/coded-error.ts'
import type {PrunedLayers} from '../layer/ports.ts'
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

export class LayerDirectories {
  readonly #root: string
  readonly #now: () => number
  readonly #onGone: (key: string) => void
  readonly #diskSpace: ReadDiskSpace
  readonly #users = new Map<string, number>()
  /** Until when, by the clock. */
  readonly #pins: Map<string, number>
  /** Directories that are getting another name. Between waiting for one and taking a layer there is no `await`. */
  readonly #leaving = new Map<string, Promise<unknown>>()
  #evicting: Promise<void> | undefined

  constructor({root, keys, now, onGone, diskSpace}: LayerDirectoriesOptions) {
    this.#root = root
    this.#now = now
    this.#onGone = onGone
    this.#diskSpace = diskSpace
    this.#pins = new Map(keys.map(key => [key, now() + RESTORE_MS]))
  }

  pathOf(key: string): string {
    return join(this.#root, key)
  }

  /** Keeps a layer from being evicted until it is used, or a while. */
  async pin(key: string): Promise<void> {
    await this.#hasLeft(key)
    if (!this.#users.has(key)) this.#pins.set(key, this.#now() + PIN_MS)
  }

  /** Keeps a layer from being evicted or discarded until the result is called. */
  async use(key: string): Promise<() => void> {
    await this.#hasLeft(key)
    this.#users.set(key, (this.#users.get(key) ?? 0) + 1)
    this.#pins.delete(key)
    return () => {
      const left = this.#users.get(key)! - 1
      if (left > 0) this.#users.set(key, left)
      else this.#users.delete(key)
    }
  }

  /** Removes a layer; false when it is in use. A crash leaves all of it or nothing. */
  discard(key: string): Promise<boolean> {
    return this.#discardUnless(key, () => this.#users.has(key))
  }

  /**
   * Removes layers that nobody needs, those first that were used longest ago, until all take `maxSize` bytes (0: any), and
   * there is room on the disk for more.
   */
  evict(maxSize: number): Promise<void> {
    this.#evicting ??= this.#evictNow(maxSize).finally(() => {
      this.#evicting = undefined
    })
    return this.#evicting
  }

  /** Removes all layers that nobody needs. What cannot be removed stays. */
  async prune(): Promise<PrunedLayers> {
    const pruned = {layers: 0, bytes: 0}
    for (const {name, size} of await this.#measure()) {
      if (!(await this.#discardUnneeded(name))) continue
      pruned.layers += 1
      pruned.bytes += size
    }
    return pruned
  }

  /** Bytes that all layers take. */
  async size(): Promise<number> {
    return sizeOf(await this.#measure())
  }

  async #hasLeft(key: string): Promise<void> {
    while (this.#leaving.has(key)) await this.#leaving.get(key)
  }

  #isPinned(key: string): boolean {
    return (this.#pins.get(key) ?? Number.NEGATIVE_INFINITY) > this.#now()
  }

  async #discardUnless(key: string, isNeeded: () => boolean): Promise<boolean> {
    await this.#hasLeft(key)
    if (isNeeded()) return false
    const aside = this.pathOf(`${STAGED}${randomUUID()}`)
    const moved = rename(this.pathOf(key), aside).finally(() => this.#leaving.delete(key))
    this.#leaving.set(
      key,
      moved.catch(() => {}),
    )
    try {
      await moved
    } catch (error) {
      if (!hasCode(error, 'not-found')) throw error
    }
    this.#pins.delete(key)
    this.#onGone(key)
    // What is left of it is swept at the next start.
    await rm(aside, {recursive: true, force: true}).catch(() => {})
    return true
  }

  #discardUnneeded(key: string): Promise<boolean> {
    const isNeeded = () => this.#users.has(key) || this.#isPinned(key)
    return this.#discardUnless(key, isNeeded).catch(() => false)
  }

  async #evictNow(maxSize: number): Promise<void> {
    const space = this.#diskSpace(this.#root)
    let missing = roomForUnused(space) - space.free
    // Most of the time there is nothing to do, which needs no look at every file.
    if (maxSize === 0 && missing <= 0) return
    const layers = (await this.#measure()).sort((left, right) => left.lastUsed - right.lastUsed)
    let total = sizeOf(layers)
    for (const {name, size} of layers) {
      if ((maxSize === 0 || total <= maxSize) && missing <= 0) return
      if (!(await this.#discardUnneeded(name))) continue
      total -= size
      missing -= size
    }
  }

  async #measure(): Promise<(LayerUsage & {readonly name: string})[]> {
    const layers = []
    for (const name of await readdir(this.#root)) {
      if (!name.startsWith(STAGED)) layers.push({name, ...(await usageOf(this.pathOf(name)))})
    }
    return layers
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
