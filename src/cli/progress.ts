// Shows progress on stderr: lines where a program or a log reads it, a live list on a terminal.

import type {ProgressSink} from '../lib/io/progress.ts'
import {describeProgress} from './progress-line.ts'
import type {ProgressView} from './progress-view.ts'

export interface ProgressViewOptions {
  readonly mode: 'auto' | 'plain' | 'none'
  /** True when stderr is a terminal that can be drawn on. */
  readonly terminal: boolean
  readonly print: (line: string) => void
}

/** A plain line about work that goes on is printed this often, milliseconds. */
const PLAIN_INTERVAL_MS = 10_000

/** The view for a mode. */
export async function openProgressView(options: ProgressViewOptions): Promise<ProgressView> {
  if (options.mode === 'none') return {sink: () => {}, [Symbol.asyncDispose]: async () => {}}
  if (options.mode === 'auto' && options.terminal) {
    const {openLiveProgress} = await import('./progress-live.ts')
    return openLiveProgress()
  }
  return {
    sink: createPlainProgress(options.print, () => performance.now()),
    [Symbol.asyncDispose]: async () => {},
  }
}

/** A sink that prints a line when an item ends, and now and then while it runs; `now` is in milliseconds. */
export function createPlainProgress(print: (line: string) => void, now: () => number): ProgressSink {
  const items = new Map<string, {readonly startedAt: number; printedAt: number}>()
  return event => {
    if (event.phase === 'waiting') return
    const time = now()
    const item = items.get(event.id) ?? {startedAt: time, printedAt: time}
    items.set(event.id, item)
    if (event.phase === 'running' && time - item.printedAt < PLAIN_INTERVAL_MS) return
    item.printedAt = time
    print(describeProgress(event, time - item.startedAt))
  }
}
