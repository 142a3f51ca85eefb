// Whose turn it is to use the network and memory: reads that somebody waits for at once, then prefetching, then filling.

import {CodedError} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {FillPace} from './fill-pace.ts'
import {MemoryBudget, type TakenMemory} from './memory-budget.ts'

/** What is fetched before anybody asks for it. */
export type AheadCause = 'prefetch' | 'background'

/** Something to fetch. */
export interface AheadWork {
  /** Compressed bytes to fetch, and bytes of memory that this takes. */
  readonly bytes: number
  readonly memory: number
  /** Fetches it; called at once, if at all. Resolves to how long it took to unpack, milliseconds. */
  readonly run: () => Promise<number>
}

/** Who wants to fetch ahead. */
export interface AheadSource {
  /**
   * What to fetch, now that it is its turn; `size` is what one request should bring, compressed bytes. Undefined when nothing
   * is left. When memory is short, it is asked again later.
   */
  plan(size: number): AheadWork | undefined
  /** When somebody last waited for something of the kind, by `performance.now()`: what they read on is filled first. */
  readonly lastRead: number
  /**
   * When the next of it will be read, milliseconds after a start, where a plan says so: who has the earliest is first. Undefined
   * for what goes in the order in which it was asked for, before that.
   */
  readonly dueMs?: number
  /** Whether a plan says what a start reads: that somebody waited shows little then, and no more of it will be read soon. */
  readonly isPlanned?: boolean
  /** Whether most of what comes is read: then filling is what readers wait for. */
  readonly isDense: boolean
}

export interface FetchQueueOptions {
  /** How many requests of each kind run at once. */
  readonly prefetches: number
  readonly backgrounds: number
  /** Bytes that what readers wait for may take, and as many again for all that is fetched ahead. */
  readonly memory: number
  /** Throws when there is no room for anything that is fetched ahead. */
  readonly requireRoom?: () => Promise<void>
  /** Bytes of the disk that what is fetched ahead may take, with what is on its way. */
  readonly spareRoom?: () => number
  /** A clock, milliseconds; `performance.now` unless given. */
  readonly now?: () => number
}

/** Compressed bytes of one request for what will be read soon, and the bounds of one for what perhaps never will. */
const PREFETCH_REQUEST = 1 << 20
const MIN_FILL_REQUEST = 128 << 10
const MAX_FILL_REQUEST = 4 << 20
/** While programs are at work, less is unpacked at once. */
const MAX_BUSY_REQUEST = 1 << 20
/** Compressed bytes on their way for filling what is read nearly whole, whatever the pace. */
const DENSE_VOLUME = 4 << 20

/**
 * A layer of which nobody has waited for anything is not filled while a container starts: that would take processors and
 * link from it. With many starts one after the other it has its turn after this long, milliseconds.
 */
const MAX_START_WAIT_MS = 10_000

/** Somebody who waits for a turn. */
interface Waiting {
  readonly source: AheadSource
  /** By the queue's clock. */
  readonly since: number
  /** The work that was started; undefined when there was none. In an object, because nobody waits for it here. */
  readonly turn: PromiseWithResolvers<{readonly running: Promise<unknown>} | undefined>
}

/** The turns of one daemon, for all layers together. What is aborted while it waits for its turn is not run. */
export class FetchQueue {
  readonly pace: FillPace
  readonly #now: () => number
  /** How many requests of each kind run at once. */
  readonly prefetches: number
  readonly backgrounds: number
  readonly #demandMemory: MemoryBudget
  readonly #aheadMemory: MemoryBudget
  readonly #waiting: Readonly<Record<AheadCause, Waiting[]>> = {prefetch: [], background: []}
  readonly #running = {prefetch: 0, background: 0}
  readonly #requireRoom: (() => Promise<void>) | undefined
  readonly #spareRoom: () => number
  #filling = 0
  #nextLook: NodeJS.Timeout | undefined
  /** Bytes that what is fetched ahead now may write at most. */
  #writing = 0

  constructor(options: FetchQueueOptions) {
    this.#now = options.now ?? (() => performance.now())
    this.pace = new FillPace(this.#now)
    this.backgrounds = options.backgrounds
    this.#requireRoom = options.requireRoom
    this.#spareRoom = options.spareRoom ?? (() => Number.POSITIVE_INFINITY)
    this.prefetches = options.prefetches
    this.#demandMemory = new MemoryBudget(options.memory)
    this.#aheadMemory = new MemoryBudget(options.memory)
  }

  /** Compressed bytes that are on their way for filling. */
  get filling(): number {
    return this.#filling
  }

  /**
   * Runs `work`, which a process waits for and which takes so many bytes of memory. It waits for nothing but other work of
   * its kind, and for that only when memory is short.
   */
  async demand<T>(memory: number, work: () => Promise<T>, {signal}: CallOptions): Promise<T> {
    using _ = await this.#demandMemory.take(memory, {signal})
    return await work()
  }

  /** Whether so much memory is free for what readers wait for. */
  hasDemandMemory(bytes: number): boolean {
    return this.#demandMemory.free >= bytes
  }

  /** Runs what `source` plans, when it is its turn. Resolves to whether there was anything to do. */
  async ahead(cause: AheadCause, source: AheadSource, {signal}: CallOptions): Promise<boolean> {
    if (this.#requireRoom) await this.#requireRoom()
    signal?.throwIfAborted()
    const waiting: Waiting = {source, since: this.#now(), turn: Promise.withResolvers()}
    const line = this.#waiting[cause]
    line.push(waiting)
    this.#startWaiting()
    try {
      const started = await raceAbort(waiting.turn.promise, signal)
      if (started) await raceAbort(started.running, signal)
      return started !== undefined
    } finally {
      const index = line.indexOf(waiting)
      if (index >= 0) line.splice(index, 1)
      // Others may have waited behind one that needed much.
      this.#startWaiting()
    }
  }

  /** Somebody waits for something of a layer, so that it may be filled now. */
  lookAgain(): void {
    this.#startWaiting()
  }

  /** Prefetches go first: while one waits, nothing is filled. */
  #startWaiting(): void {
    while (this.#waiting.prefetch.length > 0) {
      if (this.#running.prefetch >= this.prefetches) return
      if (!this.#startOne('prefetch', earliestDue(this.#waiting.prefetch), PREFETCH_REQUEST)) return
    }
    while (this.#waiting.background.length > 0) {
      const index = latestRead(this.#waiting.background)
      const {source} = this.#waiting.background[index]!
      const startingMs = this.#startingMs(this.#waiting.background[index]!)
      if (startingMs > 0) {
        this.#lookAgainIn(startingMs)
        return
      }
      if (!this.#mayFill(source) || !this.#startOne('background', index, this.#fillRequest(source))) return
    }
  }

  /** How long a start keeps this one waiting, milliseconds. */
  #startingMs({source, since}: Waiting): number {
    if (source.lastRead !== Number.NEGATIVE_INFINITY && !source.isPlanned) return 0
    return Math.min(this.pace.startingMs(), since + MAX_START_WAIT_MS - this.#now())
  }

  #lookAgainIn(ms: number): void {
    if (this.#nextLook) return
    this.#nextLook = setTimeout(() => {
      this.#nextLook = undefined
      this.#startWaiting()
    }, ms)
    this.#nextLook.unref()
  }

  #mayFill(source: AheadSource): boolean {
    const {background} = this.#running
    return background === 0 || (background < this.backgrounds && this.#filling < this.#volumeFor(source))
  }

  #volumeFor({isDense}: AheadSource): number {
    return isDense ? Math.max(DENSE_VOLUME, this.pace.volume) : this.pace.volume
  }

  /** Requests share what may be on its way. */
  #fillRequest(source: AheadSource): number {
    const share = this.#volumeFor(source) / this.backgrounds
    const most = this.pace.isBusy() && !source.isDense ? MAX_BUSY_REQUEST : MAX_FILL_REQUEST
    return Math.max(MIN_FILL_REQUEST, Math.min(share, most))
  }

  /** Gives one its turn; false when memory is short. */
  #startOne(cause: AheadCause, index: number, size: number): boolean {
    const line = this.#waiting[cause]
    const {source, turn} = line[index]!
    let work: AheadWork | undefined
    try {
      work = source.plan(size)
    } catch (error) {
      turn.reject(error)
    }
    if (work && this.#writing + work.memory > this.#spareRoom()) {
      line.splice(index, 1)
      turn.reject(new CodedError('unavailable', 'Cannot fetch ahead: the disk is nearly full'))
      return true
    }
    const memory = work && this.#aheadMemory.tryTake(work.memory)
    if (work && !memory) return false
    line.splice(index, 1)
    turn.resolve(work && memory && {running: this.#run(cause, source, {work, memory})})
    return true
  }

  #run(
    cause: AheadCause,
    source: AheadSource,
    {work, memory}: {readonly work: AheadWork; readonly memory: TakenMemory},
  ): Promise<unknown> {
    const filling = cause === 'background' ? work.bytes : 0
    this.#running[cause]++
    this.#filling += filling
    this.#writing += work.memory
    const end = (restMs: number) => {
      this.#filling -= filling
      this.#writing -= work.memory
      memory[Symbol.dispose]()
      const leave = () => {
        this.#running[cause]--
        this.#startWaiting()
      }
      if (restMs > 0) setTimeout(leave, restMs).unref()
      else leave()
    }
    const running = work.run()
    // Whoever asked may have given up.
    running.then(
      unpackMs => end(cause === 'background' && !source.isDense ? this.pace.restAfter(unpackMs) : 0),
      () => end(0),
    )
    return running
  }
}

/** Over all layers, so that an image comes in the order in which it is read. */
function earliestDue(line: readonly Waiting[]): number {
  let earliest = 0
  let earliestMs = Number.POSITIVE_INFINITY
  for (const [index, {source}] of line.entries()) {
    const dueMs = source.dueMs ?? Number.NEGATIVE_INFINITY
    if (dueMs < earliestMs) [earliest, earliestMs] = [index, dueMs]
  }
  return earliest
}

/** The one whose layer is being read; among those that nobody reads, the first. */
function latestRead(line: readonly Waiting[]): number {
  let latest = 0
  for (const [index, {source}] of line.entries()) {
    if (source.lastRead > line[latest]!.source.lastRead) latest = index
  }
  return latest
}
