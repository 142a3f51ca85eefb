// Goes over the streams of a layer that a plan names, in the order in which they will be read, and fetches those that are
// not here when it is their turn.

import type {PrefetchPlan} from '../prefetch/prefetch-plan.ts'
import type {ChunkMap} from './chunk-map.ts'
import type {AheadSource, AheadWork} from './fetch-queue.ts'
import type {LayerContents} from './layer-contents.ts'
import type {Fetched, StreamFetches} from './stream-fetches.ts'
import type {StreamRange} from './stream-places.ts'

export interface PlannedSweepOptions {
  readonly contents: LayerContents
  readonly fetches: StreamFetches
  readonly plan: PrefetchPlan
  readonly onFetched: (range: StreamRange, fetched: Fetched) => void
}

/** What is read so much later than what a request is for does not go with it, even where it is the next of the blob, milliseconds. */
const TOGETHER_MS = 100

export class PlannedSweep implements AheadSource {
  readonly lastRead = Number.NEGATIVE_INFINITY
  readonly isDense = false
  readonly #options: PlannedSweepOptions
  /** In the order of the plan, with the time of each; what is fetched is taken out. */
  readonly #times = new Map<number, number>()
  readonly #order: number[] = []
  #next = 0

  constructor(options: PlannedSweepOptions) {
    this.#options = options
    for (const {offset, end, atMs} of options.plan) {
      for (const stream of streamsIn(options.contents.map, offset, end)) {
        if (this.#times.has(stream)) continue
        this.#times.set(stream, atMs)
        this.#order.push(stream)
      }
    }
  }

  get dueMs(): number {
    const next = this.#nextStream()
    return next === undefined ? Number.POSITIVE_INFINITY : this.#times.get(next)!
  }

  plan(size: number): AheadWork | undefined {
    const {contents, fetches, onFetched} = this.#options
    const first = this.#nextStream()
    if (first === undefined) return undefined
    const until = this.#times.get(first)! + TOGETHER_MS
    const isWanted = (stream: number) =>
      (this.#times.get(stream) ?? Number.POSITIVE_INFINITY) <= until && fetches.isWanted(stream)
    const range = contents.rangeFrom(first, size, {isWanted})
    return {
      bytes: contents.bytesOf(range),
      memory: contents.memoryOf(range),
      run: async () => {
        for (let stream = range.first; stream <= range.last; stream++) this.#times.delete(stream)
        const fetched = await fetches.start(range, 'prefetch')
        onFetched(range, fetched)
        return fetched.unpackMs
      },
    }
  }

  /** What somebody else is fetching is theirs. */
  #nextStream(): number | undefined {
    for (; this.#next < this.#order.length; this.#next++) {
      const stream = this.#order[this.#next]!
      if (this.#times.has(stream) && this.#options.fetches.isWanted(stream)) return stream
    }
    return undefined
  }
}

/** The streams that start in a range of the blob. */
function* streamsIn({streamOffsets, streamCount}: ChunkMap, offset: number, end: number): Generator<number> {
  let low = 0
  for (let high = streamCount; low < high; ) {
    const middle = (low + high) >>> 1
    if (streamOffsets[middle]! < offset) low = middle + 1
    else high = middle
  }
  for (; low < streamCount && streamOffsets[low]! < end; low++) yield low
}
