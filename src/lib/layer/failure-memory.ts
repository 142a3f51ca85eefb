// What has failed and will go on failing: asked for again seldom, whoever wants it. Programs read in a loop what they cannot
// get, and each of a thousand attempts would be a login, a request, and time that others wait.

import {createOutage, type Outage} from './outage.ts'

/** How long to hold back after a failure, milliseconds: at first, and at most, for each repetition doubles it. */
export interface HoldBack {
  readonly minMs: number
  readonly maxMs: number
}

export interface FailedAttempt extends HoldBack {
  /** When it was begun, by the memory's clock: one that was begun before another ended says nothing new. */
  readonly started: number
}

interface Failure {
  readonly error: unknown
  readonly at: number
  readonly delayMs: number
  until: number
}

/** Places that are remembered; the oldest go first. */
const MAX_PLACES = 10_000

/** The memory of a daemon, for all its layers. A place is whatever fails as one: a host, a repository, a stream. */
export class FailureMemory {
  /** Milliseconds, from any start. */
  readonly now: () => number
  readonly #failures = new Map<string, Failure>()
  readonly #successes = new Map<string, number>()
  readonly #outages = new Map<string, Outage>()

  constructor(now: () => number = () => performance.now()) {
    this.now = now
  }

  /** What a place failed with, while it is too soon to ask again. Whoever gets undefined asks, and the others hold back. */
  recall(place: string): unknown {
    const failure = this.#failures.get(place)
    if (!failure) return undefined
    if (this.now() < failure.until) return failure.error
    failure.until = this.now() + failure.delayMs
    return undefined
  }

  /** Whether the last that is known of a place is a failure. */
  isFailing(place: string): boolean {
    return this.#failures.has(place)
  }

  failed(place: string, error: unknown, {started, minMs, maxMs}: FailedAttempt): void {
    const known = this.#failures.get(place)
    const heard = Math.max(known?.at ?? started, this.#successes.get(place) ?? started)
    if (heard > started) return
    const delayMs = known ? Math.min(known.delayMs * 2, maxMs) : minMs
    this.#failures.delete(place)
    this.#failures.set(place, {error, at: this.now(), delayMs, until: this.now() + delayMs})
    forgetOldest(this.#failures)
  }

  succeeded(place: string): void {
    this.#failures.delete(place)
    this.#successes.delete(place)
    this.#successes.set(place, this.now())
    forgetOldest(this.#successes)
  }

  /** What readers know of a host that cannot be reached. */
  outageOf(host: string): Outage {
    const outage = this.#outages.get(host) ?? createOutage(this.now)
    this.#outages.set(host, outage)
    return outage
  }
}

function forgetOldest(places: Map<string, unknown>): void {
  const [oldest] = places.keys()
  if (places.size > MAX_PLACES && oldest !== undefined) places.delete(oldest)
}
