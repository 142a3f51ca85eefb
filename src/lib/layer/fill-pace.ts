// How much may be on its way for nobody in particular, so that those who wait for something hardly feel it: as much as
// keeps the link busy, less as soon as readers wait longer than they would alone.

/** Compressed bytes: what filling starts with, what it never goes below, and what it never goes above. */
const FIRST_VOLUME = 512 << 10
const MIN_VOLUME = 128 << 10
const MAX_VOLUME = 16 << 20
/** What filling gets more for every reader that was served in good time. */
const STEP = 256 << 10
/** A reader that waited more than this many times as long as alone, and a bit, was kept waiting, milliseconds. */
const TOLERANCE = 2
const SLACK_MS = 5
/** Shrinking shows its effect only after a while: the next reader may have been on his way already, milliseconds. */
const SHRINK_PAUSE_MS = 50
/** When nobody has waited for this long, filling may take what the link gives, milliseconds. */
const QUIET_MS = 200
/**
 * For this long after somebody has read, or something was mounted, a program is taken to be at work, perhaps starting, and to
 * need the processors too, milliseconds. Then filling rests after each request this many times as long as unpacking took.
 */
const BUSY_MS = 2_000
const REST = 4
/**
 * For this long after a mount a container is likely to start, milliseconds. Until one of its programs waits for something of
 * a layer, nothing shows that more of it will be read than was prefetched.
 */
const START_MS = 2_000
/**
 * While readers come, what is on its way passes the link in this time beyond half a round trip, milliseconds: all of it keeps
 * each of them waiting, where the link is what they wait for.
 */
const QUEUE_MS = {near: 100, far: 10}
/** Whoever answers sooner than this is near, milliseconds: in the same network, not in another town. */
const NEAR_MS = 6
/** How long the link is watched for its speed, milliseconds, and how fast old figures are forgotten. */
const WINDOW_MS = 100
const FORGET = 0.95

export class FillPace {
  readonly #now: () => number
  #volume = FIRST_VOLUME
  /** What a request costs beside its bytes, milliseconds; the best that was seen lately. */
  #latencyMs: number | undefined
  /** Bytes in a millisecond; the best that was seen lately. */
  #rate = 0
  #windowStart = Number.NEGATIVE_INFINITY
  #windowBytes = 0
  #lastReader = Number.NEGATIVE_INFINITY
  #lastUse = Number.NEGATIVE_INFINITY
  #lastMount = Number.NEGATIVE_INFINITY
  #lastShrink = Number.NEGATIVE_INFINITY

  /** `now` in milliseconds, from any start. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Compressed bytes that may be on their way for filling. */
  get volume(): number {
    if (this.#rate === 0 || this.#latencyMs === undefined || this.#isQuiet()) return this.#volume
    const inTime = this.#rate * (this.#latencyMs / 2 + (this.isNear() ? QUEUE_MS.near : QUEUE_MS.far))
    return Math.max(MIN_VOLUME, Math.min(this.#volume, inTime))
  }

  /** Somebody reads, whether or not he waits. */
  used(): void {
    this.#lastUse = this.#now()
  }

  /** A layer is being mounted, or has just been. */
  mounted(): void {
    this.#lastMount = this.#now()
    this.#lastUse = this.#lastMount
  }

  /** How long a container is still likely to be about to start, milliseconds; 0 when none is. */
  startingMs(): number {
    return Math.max(0, this.#lastMount + START_MS - this.#now())
  }

  /** Whether a program is likely to be at work. */
  isBusy(): boolean {
    return this.#now() - Math.max(this.#lastUse, this.#lastReader) < BUSY_MS
  }

  /** How long filling leaves the processors to others after something took so long to unpack, milliseconds. */
  restAfter(unpackMs: number): number {
    return this.isBusy() ? unpackMs * REST : 0
  }

  /** Whether whoever is asked answers so soon that a round trip is worth few bytes. */
  isNear(): boolean {
    return this.#latencyMs !== undefined && this.#latencyMs < NEAR_MS
  }

  /** How long a request for so many bytes takes when it is alone, milliseconds. */
  expectedMs(bytes: number): number {
    return (this.#latencyMs ?? 0) + (this.#rate > 0 ? bytes / this.#rate : 0)
  }

  /** A request that somebody waited for has ended; `beside` tells how much was being filled when it started. */
  readerServed(request: {
    readonly bytes: number
    readonly durationMs: number
    readonly beside: number
  }): void {
    const {bytes, durationMs, beside} = request
    this.#lastReader = this.#now()
    this.#arrived(bytes)
    const expected = this.#latencyMs === undefined ? undefined : this.expectedMs(bytes)
    const latency = Math.max(0, durationMs - (this.#rate > 0 ? bytes / this.#rate : 0))
    this.#latencyMs = Math.min(latency, (this.#latencyMs ?? Number.POSITIVE_INFINITY) / FORGET)
    if (beside === 0 || expected === undefined) return
    if (durationMs <= expected * TOLERANCE + SLACK_MS) this.#grow(STEP)
    else this.#shrink()
  }

  /** What was fetched for nobody in particular has come. */
  filled(bytes: number): void {
    this.#arrived(bytes)
    if (this.#isQuiet()) this.#grow(bytes)
  }

  #isQuiet(): boolean {
    return this.#now() - this.#lastReader > QUIET_MS
  }

  #grow(bytes: number): void {
    this.#volume = Math.min(MAX_VOLUME, this.#volume + bytes)
  }

  #shrink(): void {
    if (this.#now() - this.#lastShrink < SHRINK_PAUSE_MS) return
    this.#lastShrink = this.#now()
    this.#volume = Math.max(MIN_VOLUME, this.#volume / 2)
  }

  #arrived(bytes: number): void {
    const now = this.#now()
    const elapsed = now - this.#windowStart
    this.#windowBytes += bytes
    if (elapsed < WINDOW_MS) return
    // A window that nothing came in for long says nothing about the link.
    if (elapsed < 10 * WINDOW_MS) this.#rate = Math.max(this.#windowBytes / elapsed, this.#rate * FORGET)
    this.#windowStart = now
    this.#windowBytes = 0
  }
}
