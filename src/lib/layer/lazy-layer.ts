// A layer that comes as it is read: maps what is read of its device to chunks, fetches the streams that hold them, once
// for all who wait, keeps them, answers.

import {CodedError} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import {createReadLog, type ReadLog} from '../io/read-log.ts'
import {TaskScope} from '../io/task-scope.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {PrefetchPlan} from '../prefetch/prefetch-plan.ts'
import {chunksIn} from './chunk-map.ts'
import {createDemandWindow, type DemandWindow} from './demand-window.ts'
import type {AheadCause} from './fetch-queue.ts'
import {LayerContents, type LayerContentsOptions, type LooseChunks, NONE} from './layer-contents.ts'
import {PlannedSweep} from './planned-sweep.ts'
import type {LazyDevice} from './ports.ts'
import {createPrefetchAccount, type PrefetchAccount} from './prefetch-account.ts'
import {insist} from './reader-patience.ts'
import {type Fetched, StreamFetches, type StreamFetchesOptions} from './stream-fetches.ts'
import type {StreamRange} from './stream-places.ts'
import {fetchAllOf, Sweep, type SweepOptions} from './sweep.ts'
import {DEVICE_BLOCK_SIZE} from './toc-tree.ts'

/** What a layer has done so far. Sizes are bytes. */
export interface LayerCounters {
  /** Requests to the registry, and what they brought. */
  readonly requests: number
  readonly fetchedBytes: number
  /** Compressed bytes of streams that are kept, out of those of all. */
  readonly keptBytes: number
  readonly totalBytes: number
  /** Bytes of chunks that are kept. */
  readonly presentBytes: number
  readonly errors: number
  readonly lastError: string | undefined
  /** Reads that needed nothing from the registry. */
  readonly hits: number
}

export interface LazyLayerOptions
  extends Omit<StreamFetchesOptions, 'contents' | 'data'>,
    LayerContentsOptions {
  /** Of the device. */
  readonly name: string
}

/** Compressed bytes of one request. */
const MAX_REQUEST = 1 << 20
/** Blocks of the device that must have been read, and their part of all that are here, for readers to be taken for dense. */
const MIN_DENSE_BLOCKS = 2048
const DENSE_SHARE = 0.4

export class LazyLayer implements LazyDevice {
  readonly name: string
  readonly #options: LazyLayerOptions
  readonly #contents: LayerContents
  readonly #fetches: StreamFetches
  readonly #readLog: ReadLog
  readonly #prefetches: PrefetchAccount
  readonly #window: DemandWindow = createDemandWindow()
  /** Everything that goes on for others; all of it ends with `close`. */
  readonly #scope = new TaskScope()
  #isPlanned = false
  /** While it is being filled. */
  #filling: Sweep | undefined

  constructor(options: LazyLayerOptions) {
    this.#options = options
    this.name = options.name
    this.#contents = new LayerContents(options)
    this.#fetches = new StreamFetches({...options, contents: this.#contents})
    this.#readLog = createReadLog(this.size / DEVICE_BLOCK_SIZE)
    this.#prefetches = createPrefetchAccount(options.map, this.#readLog)
  }

  get size(): number {
    return this.#options.map.deviceSize
  }

  get path(): string {
    return this.#options.data.path
  }

  get present(): SharedArrayBuffer {
    return this.#contents.blocks.bitmap.buffer
  }

  get readLog() {
    return this.#readLog.memory
  }

  isComplete(): boolean {
    return this.#contents.isComplete()
  }

  counters(): LayerCounters {
    const {keptBytes, totalBytes, presentBytes} = this.#contents
    const {requests, fetchedBytes, errors, lastError} = this.#fetches
    const hits = this.#readLog.hits()
    return {keptBytes, totalBytes, presentBytes, requests, fetchedBytes, errors, lastError, hits}
  }

  /** Bytes that were prefetched, by this object, and that nobody has read yet. */
  prefetchedUnread(): number {
    return this.#prefetches.unread()
  }

  read(offset: number, length: number, call: CallOptions): Promise<Uint8Array> {
    return this.#scope.run(() => this.#read(offset, length, call))
  }

  /** Fetches the streams that start in the first `size` bytes of the blob. */
  prefetch(size: number, {signal}: CallOptions): Promise<void> {
    return this.#scope.run(() => this.#prefetch(size, {signal: this.#orClosed(signal)}))
  }

  /** Fetches what a plan names, in its order, and that of the plans of other layers. */
  prefetchPlanned(plan: PrefetchPlan, {signal}: CallOptions): Promise<void> {
    return this.#scope.run(() => this.#prefetchPlanned(plan, {signal: this.#orClosed(signal)}))
  }

  /** Fetches what is missing of a range that is likely to be read. */
  bring(offset: number, length: number, {signal}: CallOptions): Promise<void> {
    return this.#scope.run(() => this.#bring(offset, length, {signal: this.#orClosed(signal)}))
  }

  /** Fetches all that is missing, as far as this keeps nobody waiting. Throws at the end if a stream was damaged. */
  fill({signal}: CallOptions): Promise<void> {
    return this.#scope.run(() => this.#fill({signal: this.#orClosed(signal)}))
  }

  /** Ends everything that goes on; when it resolves, nothing is written any more, and nothing starts. */
  async close(): Promise<void> {
    const closed = new CodedError('cancelled', `Cannot read ${this.#options.where}: it is closed`)
    await Promise.all([this.#scope.close(closed), this.#fetches.close(closed)])
  }

  #orClosed(signal: AbortSignal | undefined): AbortSignal {
    return signal ? AbortSignal.any([signal, this.#scope.signal]) : this.#scope.signal
  }

  async #read(offset: number, length: number, {signal: reader}: CallOptions): Promise<Uint8Array> {
    const {map, observer, layer, data, outage} = this.#options
    const {first, last} = chunksIn(map, offset, length)
    const isHit = data.chunks.hasAll(first, last)
    if (length > 0) this.#readLog.note(blockOf(offset), blockOf(offset + length - 1), isHit)
    if (isHit) return this.#contents.read(offset, length)
    const started = performance.now()
    const closed = this.#scope.signal
    const call = {signal: this.#orClosed(reader)}
    try {
      const loose = await insist(() => this.#fetchChunks(first, last, call), outage, {reader, closed})
      return await this.#contents.read(offset, length, loose)
    } finally {
      const durationMs = performance.now() - started
      observer.event('read', {layer, durationMs, bytes: length, hit: false})
    }
  }

  /** Fetches chunks that are missing. Resolves to those that could not be kept. */
  async #fetchChunks(from: number, to: number, {signal}: CallOptions): Promise<LooseChunks> {
    const {map, queue} = this.#options
    const streams = this.#contents.missingStreams(from, to)
    if (streams.length === 0) return NONE
    const [first, last] = [streams[0]!, streams.at(-1)!]
    const end = map.streamEnds[last]!
    const reader = {isDense: this.#isDense(), isNear: queue.pace.isNear()}
    const {awaited, ahead, behind} = this.#window.next(map.streamOffsets[first]!, end, reader)
    const pending = streams.map(
      stream => this.#fetches.joinable(stream) ?? this.#demand(stream, {end, size: awaited}),
    )
    // After what is waited for, so that no byte of it comes later for them.
    this.#fetchNeighbours(first, ahead, 1)
    this.#fetchNeighbours(first - 1, behind, -1)
    this.#filling?.follow(last + 1)
    queue.lookAgain()
    const results = await raceAbort(Promise.all(pending), signal)
    const loose = new Map<number, Uint8Array>()
    for (const [index, result] of results.entries()) {
      if (result.damaged.has(streams[index]!)) throw result.damaged.get(streams[index]!)
      for (const [chunk, bytes] of result.loose) loose.set(chunk, bytes)
    }
    return loose
  }

  /** Asks for a stream that somebody waits for, with those to `end` of the blob, for which he waits too, or about `size` bytes. */
  async #demand(
    stream: number,
    {end, size}: {readonly end: number; readonly size: number},
  ): Promise<Fetched> {
    const damage = this.#fetches.damageOf(stream)
    if (damage !== undefined) throw damage
    const awaited = Math.min(end - this.#options.map.streamOffsets[stream]!, MAX_REQUEST)
    return await this.#fetches.start(this.#worthwhileFrom(stream, Math.max(awaited, size), 1), 'on-demand')
  }

  /**
   * Asks for what is missing of about `size` bytes from `stream` on, ahead or back, in pieces that come one after the other;
   * nobody waits for them yet. Little that is missing there waits until it is worth a request.
   */
  #fetchNeighbours(stream: number, size: number, step: 1 | -1): void {
    const {map, queue} = this.#options
    const [start, end] = [map.streamOffsets, map.streamEnds]
    const isInside = (next: number) => next >= 0 && next < map.streamCount
    if (!isInside(stream)) return
    const leftFrom = (next: number) =>
      size - Math.abs(step > 0 ? start[next]! - start[stream]! : end[stream]! - end[next]!)
    let next = stream
    while (isInside(next) && leftFrom(next) > size / 2 && !this.#fetches.isWanted(next)) next += step
    if (!isInside(next) || leftFrom(next) <= size / 2) return
    while (isInside(next) && leftFrom(next) > size / 8 && this.#fetches.isWorthwhile(next)) {
      const range = this.#worthwhileFrom(next, Math.min(leftFrom(next), MAX_REQUEST), step)
      // What others wait for must find memory.
      if (!queue.hasDemandMemory(2 * this.#contents.memoryOf(range))) return
      void this.#fetches.start(range, 'on-demand', {isAwaited: false})
      next = step > 0 ? range.last + 1 : range.first - 1
    }
  }

  #worthwhileFrom(stream: number, size: number, step: 1 | -1): StreamRange {
    const isWanted = (next: number) => this.#fetches.isWorthwhile(next)
    return this.#contents.rangeFrom(stream, size, {isWanted, step})
  }

  async #prefetch(size: number, call: CallOptions): Promise<void> {
    const {map} = this.#options
    const end = map.streamOffsets.findIndex(offset => offset >= size)
    await this.#fetchSoon({first: 0, end: end < 0 ? map.streamCount : end}, call)
  }

  async #prefetchPlanned(plan: PrefetchPlan, {signal}: CallOptions): Promise<void> {
    const {queue} = this.#options
    this.#isPlanned = true
    const source = new PlannedSweep({
      contents: this.#contents,
      fetches: this.#fetches,
      plan,
      onFetched: (range, fetched) => this.#prefetched(range, fetched),
    })
    await fetchAllOf(source, {queue, cause: 'prefetch', requests: queue.prefetches, signal})
  }

  #prefetched(range: StreamRange, fetched: Fetched): void {
    requireKept(fetched)
    this.#prefetches.add(range)
  }

  async #bring(offset: number, length: number, call: CallOptions): Promise<void> {
    if (length === 0) return
    const {first, last} = chunksIn(this.#options.map, offset, length)
    const streams = this.#contents.missingStreams(first, last)
    if (streams.length > 0) await this.#fetchSoon({first: streams[0]!, end: streams.at(-1)! + 1}, call)
  }

  async #fetchSoon(streams: Pick<SweepOptions, 'first' | 'end'>, call: CallOptions): Promise<void> {
    const sweep = this.#sweep('prefetch', {
      ...streams,
      requests: this.#options.queue.prefetches,
      onFetched: (range, fetched) => this.#prefetched(range, fetched),
    })
    await sweep.run(call)
  }

  async #fill(call: CallOptions): Promise<void> {
    const {map, queue} = this.#options
    const problems: unknown[] = []
    this.#filling = this.#sweep('background', {
      end: map.streamCount,
      requests: queue.backgrounds,
      onFetched: (_, fetched) => {
        requireKept(fetched)
        problems.push(...fetched.damaged.values())
      },
    })
    try {
      await this.#filling.run(call)
    } finally {
      this.#filling = undefined
    }
    // What others are fetching.
    await raceAbort(this.#fetches.settled(), call.signal)
    if (problems.length > 0) throw problems[0]
  }

  /** Whether readers want most of what is here, so that they will want the rest, too. */
  #isDense(): boolean {
    const touched = this.#readLog.touched()
    return touched >= MIN_DENSE_BLOCKS && touched >= this.#contents.blocks.bitmap.count() * DENSE_SHARE
  }

  #sweep(cause: AheadCause, how: Pick<SweepOptions, 'first' | 'end' | 'requests' | 'onFetched'>): Sweep {
    const {queue} = this.#options
    const {hits} = this.#readLog
    let before = hits()
    const onPlan = () => {
      if (hits() !== before) queue.pace.used()
      before = hits()
    }
    const isDense = () => this.#isDense()
    return new Sweep({
      ...how,
      cause,
      queue,
      isDense,
      isPlanned: () => this.#isPlanned && !this.#isDense(),
      onPlan,
      contents: this.#contents,
      fetches: this.#fetches,
    })
  }
}

/** It is of no use to fetch ahead what cannot be kept. */
function requireKept({loose}: Fetched): void {
  if (loose.size > 0) throw new CodedError('unavailable', 'Cannot write to the cache')
}

function blockOf(offset: number): number {
  return Math.floor(offset / DEVICE_BLOCK_SIZE)
}
