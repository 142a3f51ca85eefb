// A registry that cannot be reached may be back before a reader gives up.

import {setTimeout as sleep} from 'node:timers/promises'
import {hasCode} from '../errors/coded-error.ts'
import type {Outage} from './outage.ts'

/** Between attempts to reach a registry for somebody who waits, milliseconds; doubled each time. */
const MIN_RETRY_DELAY = 250
const MAX_RETRY_DELAY = 5_000

/** Until when somebody waits. */
export interface Patience {
  /** Undefined for somebody who wants one attempt. */
  readonly reader: AbortSignal | undefined
  /** Aborts when what is read is closed. */
  readonly closed: AbortSignal
}

/**
 * Repeats `work` as long as it fails with `unavailable`, its reader waits and nobody has waited in vain just now. Throws
 * what it failed with, or what `closed` says.
 */
export async function insist<T>(work: () => Promise<T>, outage: Outage, patience: Patience): Promise<T> {
  const {reader, closed} = patience
  const mayWait = outage.mayWait()
  for (let delay = MIN_RETRY_DELAY; ; delay = Math.min(delay * 2, MAX_RETRY_DELAY)) {
    try {
      return await work()
    } catch (error) {
      closed.throwIfAborted()
      if (!hasCode(error, 'unavailable')) throw error
      if (mayWait && reader && (await pause(delay, AbortSignal.any([reader, closed])))) continue
      closed.throwIfAborted()
      const inVain = !mayWait || (reader?.aborted && hasCode(reader.reason, 'unavailable'))
      if (inVain) outage.begin(error)
      throw error
    }
  }
}

/** Resolves to false when `signal` aborts before. */
async function pause(delayMs: number, signal: AbortSignal): Promise<boolean> {
  if (signal.aborted) return false
  return sleep(delayMs, true, {signal, ref: false}).catch(() => false)
}
