// When and how long to wait before a request is sent again: exponential backoff with jitter, and Retry-After.

import {setTimeout as sleep} from 'node:timers/promises'
import type {CallOptions} from '../oci/content-store.ts'

export interface RetryPolicy {
  /** Attempts in all, the first included. */
  readonly attempts: number
  /** Delay before the second attempt; it doubles from there. */
  readonly minDelayMs: number
  readonly maxDelayMs: number
  /** A registry that asks for a longer pause than this is not waited for any longer. */
  readonly maxRetryAfterMs: number
}

/** About 10 s of patience for a registry that is down; a minute per attempt for one that says how long. */
export const DEFAULT_RETRY: RetryPolicy = {
  attempts: 6,
  minDelayMs: 200,
  maxDelayMs: 10_000,
  maxRetryAfterMs: 60_000,
}

/** Statuses that say "later": timeouts, throttling, and trouble behind the registry. 501 and 505 are for good. */
export function isRetryableStatus(status: number): boolean {
  return [408, 425, 429, 500, 502, 503, 504].includes(status)
}

/**
 * The pause before attempt `attempt` (2 is the first retry): the registry's wish where it has one, else between half
 * and all of the exponential delay, so that clients that failed together do not come back together.
 */
export function retryDelayMs(policy: RetryPolicy, attempt: number, retryAfterMs?: number): number {
  const exponential = Math.min(policy.maxDelayMs, policy.minDelayMs * 2 ** (attempt - 2))
  const jittered = exponential * (0.5 + Math.random() / 2)
  return retryAfterMs === undefined
    ? jittered
    : Math.min(policy.maxRetryAfterMs, Math.max(retryAfterMs, jittered))
}

/** A Retry-After header (RFC 9110, 10.2.3: seconds, or a date) in milliseconds from `nowMs`; undefined when malformed. */
export function parseRetryAfter(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined
  const text = header.trim()
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000
  const date = /[A-Za-z]/.test(text) ? Date.parse(text) : Number.NaN
  return Number.isNaN(date) ? undefined : Math.max(0, date - nowMs)
}

/** Waits; rejects with the signal's reason when it is aborted. */
export async function pause(delayMs: number, options: CallOptions): Promise<void> {
  await sleep(delayMs, undefined, options.signal ? {signal: options.signal} : {}).catch(error => {
    options.signal?.throwIfAborted()
    throw error
  })
}
