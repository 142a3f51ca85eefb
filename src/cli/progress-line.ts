// One piece of work in words: what it is, how far it is, how fast it goes.

import type {ProgressEvent} from '../lib/io/progress.ts'
import {formatBytes, formatDuration} from './units.ts'

/** One line about an event; `elapsedMs` is since the item started. */
export function describeProgress(event: ProgressEvent, elapsedMs: number): string {
  const {label, phase, doneBytes, totalBytes, note} = event
  const details: string[] = []
  if (phase === 'done' || phase === 'skipped') {
    const bytes = doneBytes ?? totalBytes
    details.push(phase, ...(bytes === undefined ? [] : [formatBytes(bytes)]))
    if (phase === 'done') details.push(formatDuration(elapsedMs))
  } else if (doneBytes !== undefined) {
    details.push(
      totalBytes === undefined
        ? formatBytes(doneBytes)
        : `${formatBytes(doneBytes)} / ${formatBytes(totalBytes)}`,
    )
    if (elapsedMs > 0) details.push(`${formatBytes(Math.round((doneBytes / elapsedMs) * 1000))}/s`)
  }
  if (note) details.push(note)
  return details.length === 0 ? label : `${label}  ${details.join('  ')}`
}
