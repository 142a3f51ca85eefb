// Whose turn it is to use the network: reads that somebody waits for at once, then prefetching, then filling.

import {setTimeout as sleep} from 'node:timers/promises'
import pLimit from 'p-limit'
import type {CallOptions} from '../oci/content-store.ts'

/** Turns, for all layers together. */
export interface FetchQueue {
  /** Runs `work` now: a process is blocked until it is done. */
  demand<T>(work: () => Promise<T>): Promise<T>
  /** Runs `work` beside others of its kind, a few at a time. */
  prefetch<T>(work: () => Promise<T>): Promise<T>
  /** Runs `work` when nobody has waited for the network for a while. */
  background<T>(work: () => Promise<T>, options: CallOptions): Promise<T>
}

export interface FetchQueueOptions {
  /** How many of each kind run at once. */
  readonly prefetches: number
  readonly backgrounds: number
  /** How long nothing more urgent must have run before filling goes on, milliseconds. */
  readonly quietMs: number
}

/** A queue for one daemon. */
export function createFetchQueue(options: FetchQueueOptions): FetchQueue {
  const prefetches = pLimit(options.prefetches)
  const backgrounds = pLimit(options.backgrounds)
  let urgent = 0
  let lastUrgent = Number.NEGATIVE_INFINITY

  async function urgently<T>(work: () => Promise<T>): Promise<T> {
    urgent++
    try {
      return await work()
    } finally {
      urgent--
      lastUrgent = performance.now()
    }
  }

  async function quiet({signal}: CallOptions): Promise<void> {
    for (;;) {
      signal?.throwIfAborted()
      const left = urgent > 0 ? options.quietMs : lastUrgent + options.quietMs - performance.now()
      if (left <= 0) return
      await sleep(left, undefined, {signal, ref: false})
    }
  }

  return {
    demand: urgently,
    prefetch: work => prefetches(() => urgently(work)),
    background: (work, call) =>
      backgrounds(async () => {
        await quiet(call)
        return work()
      }),
  }
}
