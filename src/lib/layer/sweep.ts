// Goes once over the streams of a layer, and fetches those that nobody else has fetched when it is their turn.

import type {CallOptions} from '../oci/content-store.ts'
import type {AheadCause, AheadSource, AheadWork, FetchQueue} from './fetch-queue.ts'
import type {LayerContents} from './layer-contents.ts'
import type {Fetched, StreamFetches} from './stream-fetches.ts'
import type {StreamRange} from './stream-places.ts'

export interface SweepOptions {
  readonly cause: AheadCause
  readonly contents: LayerContents
  readonly fetches: StreamFetches
  readonly queue: FetchQueue
  /** The streams from this one, the first unless given, to before another. */
  readonly first?: number
  readonly end: number
  /** How many requests it may make at once. */
  readonly requests: number
  /** Whether most of what comes is read. */
  readonly isDense: () => boolean
  /** Whether a plan says what a start reads of the layer. */
  readonly isPlanned?: () => boolean
  /** Told when it is about to ask for something. */
  readonly onPlan: () => void
  readonly onFetched: (range: StreamRange, fetched: Fetched) => void
}

/** Fetches all that `source` plans. Throws what the first request failed with, after all have ended. */
export async function fetchAllOf(
  source: AheadSource,
  {queue, cause, requests, signal}: Pick<SweepOptions, 'queue' | 'cause' | 'requests'> & CallOptions,
): Promise<void> {
  const failing = new AbortController()
  const call = {signal: signal ? AbortSignal.any([signal, failing.signal]) : failing.signal}
  const runners = Array.from({length: requests}, async () => {
    try {
      while (await queue.ahead(cause, source, call));
    } catch (error) {
      failing.abort(error)
      throw error
    }
  })
  await Promise.allSettled(runners)
  failing.signal.throwIfAborted()
}

export class Sweep implements AheadSource {
  lastRead = Number.NEGATIVE_INFINITY
  readonly #options: SweepOptions
  /** One byte for each stream: whether it has been passed. */
  readonly #passed: Uint8Array
  /** No stream before this one is left. */
  #first: number
  /** Where it goes on. */
  #next = 0

  constructor(options: SweepOptions) {
    this.#options = options
    this.#first = options.first ?? 0
    this.#passed = new Uint8Array(options.end)
  }

  get isDense(): boolean {
    return this.#options.isDense()
  }

  get isPlanned(): boolean {
    return this.#options.isPlanned?.() ?? false
  }

  /** Goes on behind what somebody reads: what comes next in the blob is likely to be read next. */
  follow(stream: number): void {
    this.lastRead = performance.now()
    this.#next = stream
  }

  /** Fetches all. Throws what the first request failed with, after all have ended. */
  async run({signal}: CallOptions): Promise<void> {
    const {queue, cause, requests} = this.#options
    await fetchAllOf(this, {queue, cause, requests, signal})
  }

  plan(size: number): AheadWork | undefined {
    const {contents, fetches, end, cause, onPlan, onFetched} = this.#options
    onPlan()
    const first = this.#nextStream()
    if (first === undefined) return undefined
    const isWanted = (stream: number) => this.#passed[stream] === 0 && fetches.isWanted(stream)
    const range = contents.rangeFrom(first, size, {isWanted, end})
    return {
      bytes: contents.bytesOf(range),
      memory: contents.memoryOf(range),
      run: async () => {
        this.#passed.fill(1, range.first, range.last + 1)
        this.#next = range.last + 1
        const fetched = await fetches.start(range, cause)
        onFetched(range, fetched)
        return fetched.unpackMs
      },
    }
  }

  /** The next stream to fetch, from where it is to the end and then from the start. */
  #nextStream(): number | undefined {
    const {end} = this.#options
    while (this.#first < end && !this.#isLeft(this.#first)) this.#first++
    for (let stream = Math.max(this.#next, this.#first); stream < end; stream++) {
      if (this.#isLeft(stream)) return stream
    }
    return this.#first < end ? this.#first : undefined
  }

  /** What somebody else is fetching is theirs: whoever sweeps waits for it in the end. */
  #isLeft(stream: number): boolean {
    if (this.#passed[stream] === 1) return false
    if (this.#options.fetches.isWanted(stream)) return true
    this.#passed[stream] = 1
    return false
  }
}
