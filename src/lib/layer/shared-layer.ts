// A layer that is open, for all its mounts and images.

import type {BulkCodec} from '../compression/codec.ts'
import {describeError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import {type PrefetchPlan, parsePrefetchPlan} from '../prefetch/prefetch-plan.ts'
import type {SnapshotLog} from '../snapshot/ports.ts'
import type {DirectoryNode} from '../vfs/file-tree.ts'
import type {FailureMemory} from './failure-memory.ts'
import {fetchAhead} from './fetch-ahead.ts'
import type {FetchQueue} from './fetch-queue.ts'
import type {LayerObserver} from './layer-observer.ts'
import type {LayerIdentity, OpenedLayer} from './layer-opener.ts'
import type {LayerRequest} from './layer-request.ts'
import {LayerSources} from './layer-sources.ts'
import {LazyLayer} from './lazy-layer.ts'
import type {LayerData, LayerOrigin, LayerState, MountableLayer} from './ports.ts'

export interface SharedLayerOptions {
  readonly origin: Pick<LayerOrigin, 'blob'>
  readonly codec: BulkCodec
  readonly queue: FetchQueue
  readonly failures: FailureMemory
  readonly log: SnapshotLog
  readonly observer: LayerObserver
  /** Bytes to prefetch of a layer that has no landmark and no label; undefined: nothing of any layer. */
  readonly prefetchSize: number | undefined
  /** Whether to fetch the rest as well. */
  readonly fill: boolean
  /** Told when all of a layer is there. */
  readonly onComplete: (layer: SharedLayer) => void
}

/** Images that share a layer and have plans of their own for it: more are not looked at. */
const MAX_PLANS = 32

export class SharedLayer implements MountableLayer {
  readonly key: string
  /** Of whoever has opened it. */
  readonly request: LayerRequest
  readonly format: string
  readonly prefetchSize: number
  readonly device: LazyLayer
  readonly sources: LayerSources
  /** Blobs that are this layer, and their sizes. */
  readonly blobs: Map<Digest, number>
  users = 0
  readonly #opened: OpenedLayer
  readonly #data: LayerData
  readonly #options: SharedLayerOptions
  readonly #fetching = new AbortController()
  /** What goes on, by the plan that it goes by; the first fills the layer in the end. */
  readonly #fetched = new Map<string | undefined, Promise<void>>()

  constructor(
    {key, request}: LayerIdentity,
    opened: OpenedLayer,
    data: LayerData,
    options: SharedLayerOptions,
  ) {
    const where = `layer ${request.digest}`
    this.key = key
    this.request = request
    this.format = opened.format
    this.prefetchSize =
      options.prefetchSize === undefined
        ? 0
        : (opened.prefetchSize ?? request.prefetchSize ?? options.prefetchSize)
    this.#opened = opened
    this.#data = data
    this.#options = options
    this.blobs = new Map([[opened.blobDigest, opened.blobSize]])
    this.sources = new LayerSources(opened.blobSize, {...options, where})
    this.device = new LazyLayer({
      ...options,
      name: key,
      where,
      layer: request.digest,
      map: opened.map,
      memberKind: opened.memberKind,
      blob: this.sources,
      outage: this.sources,
      data,
      onComplete: () => options.onComplete(this),
      onUncached: error => this.#warn(error, 'cannot write to the cache: reading without it'),
    })
  }

  isComplete(): boolean {
    return this.device.isComplete()
  }

  get isOptimized(): boolean {
    return (this.#opened.prefetchSize ?? 0) > 0
  }

  image(call: CallOptions = {}): Promise<string> {
    return this.#opened.image(call)
  }

  tree(call: CallOptions = {}): Promise<DirectoryNode> {
    return this.#opened.tree(call)
  }

  state(): LayerState {
    const {totalBytes, keptBytes, lastError} = this.device.counters()
    return {digest: this.request.digest, size: totalBytes, fetchedSize: keptBytes, error: lastError}
  }

  /** Makes what has been fetched survive a crash of the machine. */
  sync(): Promise<void> {
    return this.#data.sync()
  }

  /** Whether it is known what a start reads of it, to the stream. */
  get hasPlan(): boolean {
    return [...this.#fetched.keys()].some(text => text !== undefined)
  }

  /**
   * Starts to fetch what an image that has the layer will need, until `signal` aborts or the layer is closed; unless that goes on
   * already, or is about to be told.
   */
  fetchAhead({prefetchPlan, isPlanAwaited}: LayerRequest, signal: AbortSignal): void {
    if (this.#fetching.signal.aborted || isPlanAwaited) return
    const plan = this.#options.prefetchSize === undefined ? undefined : this.#planIn(prefetchPlan)
    const key = plan && prefetchPlan
    const isFirst = this.#fetched.size === 0
    if (this.#fetched.has(key) || (!plan && !isFirst) || this.#fetched.size > MAX_PLANS) return
    const until = AbortSignal.any([signal, this.#fetching.signal])
    const sync = () => this.sync()
    const {request, prefetchSize} = this
    const fill = isFirst && this.#options.fill
    const options = {...this.#options, request, prefetchSize, plan, fill, sync, signal: until}
    this.#fetched.set(key, fetchAhead(this.device, options))
  }

  /** A plan is a hint: without a sound one the layer's own landmark says what comes first. */
  #planIn(text: string | undefined): PrefetchPlan | undefined {
    if (text === undefined) return undefined
    try {
      return parsePrefetchPlan(text)
    } catch (error) {
      this.#warn(error, 'prefetching without the plan')
      return undefined
    }
  }

  /** Ends all that goes on, runs `onEnded`, and closes the data. What goes wrong is in the log: nobody could do anything. */
  async close(onEnded: () => Promise<void>): Promise<void> {
    this.#fetching.abort()
    await this.device.close()
    await Promise.all(this.#fetched.values())
    await this.#try(onEnded, 'cannot release a layer')
    await this.#try(() => this.#data.sync(), 'cannot sync a layer')
    await this.#try(() => this.#data[Symbol.asyncDispose](), 'cannot close a layer')
  }

  async #try(work: () => PromiseLike<void>, failure: string): Promise<void> {
    try {
      await work()
    } catch (error) {
      this.#warn(error, failure)
    }
  }

  #warn(error: unknown, message: string): void {
    const {reference, digest} = this.request
    this.#options.log.warn({reference, digest, error: describeError(error)}, message)
  }
}
