// Requests of a layer that are on their way: each stream is asked for once, whoever waits for it.

import {CodedError, describeError} from '../errors/coded-error.ts'
import {TaskScope} from '../io/task-scope.ts'
import type {FailureMemory} from './failure-memory.ts'
import type {FetchQueue} from './fetch-queue.ts'
import type {LayerContents, LooseChunks} from './layer-contents.ts'
import type {FetchCause} from './layer-observer.ts'
import type {Outage} from './outage.ts'
import type {StreamRange} from './stream-places.ts'
import {type FetchCall, type StreamContents, StreamReader, type StreamReaderOptions} from './stream-reader.ts'

/** After which a fetch is given up, milliseconds; who waits for it tries again, if he has not given up himself. */
const TIMEOUTS: Readonly<Record<FetchCause, number>> = {
  metadata: 60_000,
  'on-demand': 300_000,
  prefetch: 120_000,
  background: 300_000,
}
/** A reader waits at most this long for what is being fetched for nobody in particular; then he asks himself, milliseconds. */
const OVERTAKE_MS = 5_000
/** And no longer than this many times what his own request would take, and a bit, milliseconds. */
const PATIENCE = 2
const PATIENCE_MS = 10
/** Between attempts at a stream that was damaged, milliseconds. */
const DAMAGED = {minMs: 1_000, maxMs: 60_000}

/** What a request brought beside what was kept. */
export interface Fetched extends Pick<StreamContents, 'damaged' | 'unpackMs'> {
  readonly loose: LooseChunks
}

/** A fetch on its way. */
interface Fetch {
  readonly promise: Promise<Fetched>
  readonly cause: FetchCause
  readonly bytes: number
  /** By `performance.now()`. */
  readonly started: number
}

export interface StreamFetchesOptions extends Omit<StreamReaderOptions, 'onRequest'> {
  readonly contents: LayerContents
  readonly queue: FetchQueue
  /** Of who serves the layer. */
  readonly outage: Outage
  readonly failures: FailureMemory
}

export class StreamFetches {
  readonly #options: StreamFetchesOptions
  readonly #reader: StreamReader
  readonly #scope = new TaskScope()
  /** By stream. One may have overtaken another. */
  readonly #byStream = new Map<number, Fetch>()
  requests = 0
  fetchedBytes = 0
  errors = 0
  lastError: string | undefined

  constructor(options: StreamFetchesOptions) {
    this.#options = options
    this.#reader = new StreamReader({
      ...options,
      onRequest: bytes => {
        this.requests++
        this.fetchedBytes += bytes
      },
    })
  }

  /** Whether a stream is neither here nor on its way. */
  isWanted(stream: number): boolean {
    return !this.#byStream.has(stream) && !this.#options.contents.isKept(stream)
  }

  /** What is wrong with a stream, as long as it is too soon to ask for it again. */
  damageOf(stream: number): unknown {
    return this.#options.failures.recall(this.#placeOf(stream))
  }

  /** Whether a stream is worth fetching because another is. */
  isWorthwhile(stream: number): boolean {
    return this.isWanted(stream) && !this.#options.failures.isFailing(this.#placeOf(stream))
  }

  /**
   * Fetches a range and keeps what it brings; from now on others can join. `isAwaited` is false for what is on demand because
   * its neighbour is.
   */
  start(
    range: StreamRange,
    cause: FetchCause,
    {isAwaited = cause === 'on-demand'}: {readonly isAwaited?: boolean} = {},
  ): Promise<Fetched> {
    const promise = this.#scope.run(() => this.#fetchRange(range, cause, isAwaited))
    const bytes = this.#options.contents.bytesOf(range)
    const fetch: Fetch = {promise, cause, bytes, started: performance.now()}
    for (let stream = range.first; stream <= range.last; stream++) this.#byStream.set(stream, fetch)
    const forget = () => {
      for (let stream = range.first; stream <= range.last; stream++) {
        if (this.#byStream.get(stream) === fetch) this.#byStream.delete(stream)
      }
    }
    // Whoever waits hears of it; a fetch that nobody waits for any more may fail unheard.
    promise.then(forget, forget)
    return promise
  }

  /** What brings `stream` already, unless a request of the reader's own would be here much sooner. */
  joinable(stream: number): Promise<Fetched> | undefined {
    const fetch = this.#byStream.get(stream)
    if (!fetch || fetch.cause === 'on-demand') return fetch?.promise
    const {contents, queue} = this.#options
    const elapsed = performance.now() - fetch.started
    const left = queue.pace.expectedMs(fetch.bytes) - elapsed
    const own = queue.pace.expectedMs(contents.compressedSize(stream)) * PATIENCE + PATIENCE_MS
    return elapsed > OVERTAKE_MS || left > own ? undefined : fetch.promise
  }

  /** Resolves when what is on its way now has come, or failed. */
  settled(): Promise<void> {
    return this.#scope.settled()
  }

  /** Ends all; when it resolves, nothing is written any more, and nothing will be. */
  async close(reason: unknown): Promise<void> {
    await this.#scope.close(reason)
  }

  async #fetchRange(range: StreamRange, cause: FetchCause, isAwaited: boolean): Promise<Fetched> {
    const {contents, queue} = this.#options
    // Not a caller's signal: others may wait for the same bytes.
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(this.#timedOut(range)), TIMEOUTS[cause]).unref()
    const signal = AbortSignal.any([this.#scope.signal, late.signal])
    const read = () => this.#read(range, {signal, cause}, isAwaited)
    try {
      // What is fetched ahead has been given its memory with its turn.
      if (cause !== 'on-demand') return await read()
      return await queue.demand(contents.memoryOf(range), read, {signal})
    } catch (error) {
      // An abort has its own reason, whatever was going on.
      const reason = signal.aborted ? signal.reason : error
      if (!this.#scope.signal.aborted) this.#count(reason)
      throw reason
    } finally {
      clearTimeout(timer)
    }
  }

  async #read(range: StreamRange, call: FetchCall, isAwaited: boolean): Promise<Fetched> {
    const {contents, queue} = this.#options
    const started = performance.now()
    const beside = queue.filling
    const asked = this.#options.failures.now()
    const {written, chunks, damaged, unpackMs} = await this.#reader.read(range, call)
    this.#options.outage.end()
    const bytes = contents.bytesOf(range)
    if (isAwaited) queue.pace.readerServed({bytes, durationMs: performance.now() - started, beside})
    else if (call.cause !== 'prefetch') queue.pace.filled(bytes)
    this.#noteDamage(range, damaged, asked)
    contents.note(written)
    return {loose: await contents.keep(chunks), damaged, unpackMs}
  }

  #noteDamage({first, last}: StreamRange, damaged: StreamContents['damaged'], started: number): void {
    const {failures} = this.#options
    for (let stream = first; stream <= last; stream++) {
      const place = this.#placeOf(stream)
      const error = damaged.get(stream)
      if (error !== undefined) {
        this.#count(error)
        failures.failed(place, error, {...DAMAGED, started})
      } else if (failures.isFailing(place)) failures.succeeded(place)
    }
  }

  #placeOf(stream: number): string {
    return `stream ${stream} of ${this.#options.layer}`
  }

  #count(error: unknown): void {
    this.errors++
    this.lastError = describeError(error)
  }

  #timedOut({first}: StreamRange): CodedError {
    const {contents, where} = this.#options
    const what = `Cannot fetch byte ${contents.map.streamOffsets[first]} of ${where}`
    return new CodedError('unavailable', `${what}: it takes too long`)
  }
}
