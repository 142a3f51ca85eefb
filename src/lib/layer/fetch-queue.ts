// Whose turn it is to use the network and memory: reads that somebody waits for at once, then prefetching, then filling.

import {setTimeout as sleep} from 'node:timers/promises'
import pLimit from 'p-limit'
import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'

/** Turns, for all layers together. What is aborted while it waits for its turn is not run. */
export interface FetchQueue {
  /** Runs `work` now: a process is blocked until it is done. */
  demand<T>(work: () => Promise<T>): Promise<T>
  /** Runs `work` beside others of its kind, a few at a time. */
  prefetch<T>(work: () => Promise<T>, options: CallOptions): Promise<T>
  /** Runs `work` when nobody has waited for the network for a while. */
  background<T>(work: () => Promise<T>, options: CallOptions): Promise<T>
  /** Runs `work`, which takes so many bytes of memory, when that much is free; what takes more than there is, alone. */
  withMemory<T>(bytes: number, work: () => Promise<T>): Promise<T>
}

export interface FetchQueueOptions {
  /** How many of each kind run at once. */
  readonly prefetches: number
  readonly backgrounds: number
  /** How long nothing more urgent must have run before filling goes on, milliseconds. */
  readonly quietMs: number
  /** Bytes that all work together may take. */
  readonly memory: number
}

/** A queue for one daemon. */
export function createFetchQueue(options: FetchQueueOptions): FetchQueue {
  const prefetches = pLimit(options.prefetches)
  const backgrounds = pLimit(options.backgrounds)
  let urgent = 0
  let lastUrgent = Number.NEGATIVE_INFINITY
  let freeMemory = options.memory
  const waiting: {readonly bytes: number; readonly start: () => void}[] = []

  async function urgently<T>(work: () => Promise<T>): Promise<T> {
    urgent++
    try {
      return await work()
    } finally {
      urgent--
      lastUrgent = performance.now()
    }
  }

  /** Milliseconds until filling may go on, if nothing urgent comes. */
  function noise(): number {
    return urgent > 0 ? Math.max(1, options.quietMs) : lastUrgent + options.quietMs - performance.now()
  }

  async function background<T>(work: () => Promise<T>, {signal}: CallOptions): Promise<T> {
    for (;;) {
      for (let left = noise(); left > 0; left = noise()) await sleep(left, undefined, {signal, ref: false})
      signal?.throwIfAborted()
      // Nobody holds a place while he waits for quiet.
      const turn = backgrounds(async () => {
        signal?.throwIfAborted()
        return noise() > 0 ? undefined : {result: await work()}
      })
      const done = await raceAbort(turn, signal)
      if (done) return done.result
    }
  }

  function startWaiting(): void {
    for (let next = waiting[0]; next && next.bytes <= freeMemory; next = waiting[0]) {
      waiting.shift()
      freeMemory -= next.bytes
      next.start()
    }
  }

  return {
    demand: urgently,
    prefetch: (work, {signal}) =>
      raceAbort(
        prefetches(() => {
          signal?.throwIfAborted()
          return urgently(work)
        }),
        signal,
      ),
    background,
    withMemory: async (wanted, work) => {
      const bytes = Math.min(wanted, options.memory)
      await new Promise<void>(start => {
        waiting.push({bytes, start})
        startWaiting()
      })
      try {
        return await work()
      } finally {
        freeMemory += bytes
        startWaiting()
      }
    },
  }
}
