// A layer store: layers of images, mounted lazily when somebody looks at them for the first time, and kept for as long as
// somebody uses them.

import {join} from 'node:path'
import pLimit from 'p-limit'
import {describeError} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import {type LayerRequest, parseLabels} from '../layer/layer-request.ts'
import type {LazyLayerMounter, LazyLayerStatus} from '../layer/lazy-layer-status.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import {hexOf} from '../oci/digest.ts'
import type {SnapshotLog} from '../snapshot/ports.ts'
import type {ImageLayers} from './image-layers.ts'
import {createRefusals} from './refusals.ts'
import type {CountedLayer, StoredLayer, StoredLayerName, StoredLayerTable} from './stored-layer.ts'

export interface LayerStoreOptions {
  /** The directory of the mountpoints. */
  readonly directory: string
  readonly table: StoredLayerTable
  readonly mounter: LazyLayerMounter
  readonly images: ImageLayers
  /** A layer's blob as it is; nothing is asked until the first read. */
  readonly blobOf: (request: LayerRequest, size: number) => BlobSource
  readonly makeDirectory: (path: string) => Promise<unknown>
  readonly removeDirectory: (path: string) => Promise<unknown>
  /** Whether a layer is needed by others than those who count themselves. */
  readonly isKept: (layer: StoredLayer) => boolean
  readonly log: SnapshotLog
}

/** A layer that is mounted. */
export interface ServedLayer {
  readonly layer: StoredLayer
  /** Where its files are. */
  readonly directory: string
  readonly blob: BlobSource
}

/** For how long a layer that nobody uses is kept for whoever has looked at it, milliseconds. */
const UNUSED_MS = 600_000
/** Layers that are mounted at a time after a start. */
const RESTORES = 8

/** A mount takes no longer: whoever waits for it pulls the layer as a whole then. */
const MOUNT_TIMEOUT_MS = 60_000

export class LayerStore {
  readonly #options: LayerStoreOptions
  readonly #refusals = createRefusals()
  /** Mounts by directory. Whoever changes one waits for whoever is at it. */
  readonly #mounts = new Map<string, Promise<void>>()

  constructor(options: LayerStoreOptions) {
    this.#options = options
  }

  /** Mounts a layer, unless it is. Throws why it cannot be served; the reason is in `status` too. */
  async serve(name: StoredLayerName, call: CallOptions): Promise<ServedLayer> {
    const {table, images} = this.#options
    try {
      const found = table.get(name) ?? (await images.find(name, call))
      await raceAbort(this.#mountSoundly(found), call.signal)
      const layer = {...found, uncompressedSize: found.uncompressedSize ?? this.#sizeOf(found)}
      table.add(layer)
      this.#forgetLater(name)
      this.#refusals.delete(name)
      return this.#served(layer)
    } catch (error) {
      if (!call.signal?.aborted) this.#refuse(name, error)
      throw error
    }
  }

  /** Where a layer's files are while it is mounted. */
  directoryOf({tocDigest}: StoredLayer): string {
    return join(this.#options.directory, hexOf(tocDigest))
  }

  /** Names of layers that are stored, sorted as they came. */
  list(): readonly StoredLayerName[] {
    return this.#options.table.list()
  }

  /** One user more. A layer that is not served has none. */
  async use(name: StoredLayerName, call: CallOptions): Promise<void> {
    await this.serve(name, call)
    this.#options.table.count(name, 1)
  }

  /** One user less; a layer without any is unmounted. */
  async release(name: StoredLayerName): Promise<void> {
    const {table} = this.#options
    const layer = table.get(name)
    if (layer && table.count(name, -1) === 0) await this.forgetUnused(layer)
  }

  /** Unmounts a layer that nobody needs. Who has looked at it and is about to use it finds it again: it is mounted anew then. */
  async forgetUnused(layer: StoredLayer): Promise<void> {
    const {table, mounter, isKept, log} = this.#options
    const directory = this.directoryOf(layer)
    const mounting = this.#mounts.get(directory)
    await mounting?.catch(() => {})
    const users = table.list().filter(other => this.directoryOf(other) === directory)
    const isNeeded = isKept(layer) || users.some(other => other.users > 0)
    if (isNeeded || this.#mounts.get(directory) !== mounting) {
      if (!isKept(layer) && table.get(layer)?.users === 0) table.delete(layer)
      return
    }
    for (const other of users) table.delete(other)
    log.debug({reference: layer.reference, layer: layer.name}, 'nobody uses a layer any more')
    const unmounting = mounter.unmount(directory)
    this.#mounts.set(directory, unmounting)
    try {
      await unmounting
      // A link to it leads nowhere now, not to an empty directory.
      await this.#options.removeDirectory(directory).catch(error => {
        log.warn({directory, error: describeError(error)}, 'cannot remove a mountpoint')
      })
    } finally {
      this.#mounts.delete(directory)
    }
  }

  /** After a start: mounts what has users. What cannot be is tried again when it is looked at. */
  async restore({signal}: CallOptions): Promise<void> {
    const {table, isKept} = this.#options
    const limit = pLimit(RESTORES)
    await Promise.all(
      table.list().map(async layer => {
        // Whoever looked at it has not stored it.
        if (layer.users === 0 && !isKept(layer)) return void table.delete(layer)
        await limit(async () => {
          if (!signal?.aborted) await this.#restoreLayer(layer)
        })
      }),
    )
  }

  /** Before an end that leaves nothing mounted. */
  async unmountAll(): Promise<void> {
    await Promise.all([...this.#mounts.keys()].map(directory => this.#options.mounter.unmount(directory)))
    this.#mounts.clear()
  }

  /** Each layer once for each image that it is stored for: they share a mount, which knows only who came first. */
  status(): readonly LazyLayerStatus[] {
    const {mounter, table} = this.#options
    const references = new Map<string, Set<string>>()
    for (const layer of table.list()) {
      const directory = this.directoryOf(layer)
      references.set(directory, (references.get(directory) ?? new Set()).add(layer.reference))
    }
    const mounted = mounter.status().flatMap(status => {
      const names = references.get(status.mountpoint) ?? [status.reference]
      return Array.from(names, reference => ({...status, reference}))
    })
    return [...mounted, ...this.#refusals.list()]
  }

  #mount(layer: StoredLayer): Promise<void> {
    const {mounter, makeDirectory} = this.#options
    const directory = this.directoryOf(layer)
    const known = this.#mounts.get(directory)
    if (known) return known
    const mounting = (async () => {
      await makeDirectory(directory)
      // Not the signal of whoever asks: others may wait for the same layer.
      await mounter.mount(directory, layer.labels, AbortSignal.timeout(MOUNT_TIMEOUT_MS))
    })()
    this.#mounts.set(directory, mounting)
    mounting.catch(() => this.#mounts.get(directory) === mounting && this.#mounts.delete(directory))
    return mounting
  }

  /** Whoever unmounts what is not his is found out when somebody looks. */
  async #mountSoundly(layer: StoredLayer): Promise<void> {
    const {mounter} = this.#options
    const directory = this.directoryOf(layer)
    const known = this.#mounts.get(directory)
    try {
      await known
      if (known) return await mounter.check(directory, layer.labels, AbortSignal.timeout(MOUNT_TIMEOUT_MS))
    } catch {
      if (this.#mounts.get(directory) === known) this.#mounts.delete(directory)
    }
    await this.#mount(layer)
  }

  /** All its files together: near enough where the image does not say, and Podman refuses what has no size. */
  #sizeOf(layer: StoredLayer): number | undefined {
    const directory = this.directoryOf(layer)
    return this.#options.mounter.status().find(({mountpoint}) => mountpoint === directory)?.deviceSize
  }

  /** Whoever looked at it may have gone without using it. */
  #forgetLater(name: StoredLayerName): void {
    const {table} = this.#options
    if (table.get(name)?.users !== 0) return
    const forgetNow = () => {
      const layer = table.get(name)
      if (layer?.users === 0) this.forgetUnused(layer).catch(error => this.#refuse(name, error))
    }
    setTimeout(forgetNow, UNUSED_MS).unref()
  }

  async #restoreLayer(layer: CountedLayer): Promise<void> {
    try {
      await this.#mount(layer)
    } catch (error) {
      this.#refuse(layer, error)
    }
  }

  #refuse(name: StoredLayerName, error: unknown): void {
    const reason = describeError(error)
    this.#refusals.add(name, reason)
    this.#options.log.warn(
      {reference: name.reference, layer: name.name, error: reason},
      'cannot serve a layer lazily',
    )
  }

  #served(layer: StoredLayer): ServedLayer {
    return {
      layer,
      directory: this.directoryOf(layer),
      blob: this.#options.blobOf(parseLabels(layer.labels), layer.compressedSize),
    }
  }
}
