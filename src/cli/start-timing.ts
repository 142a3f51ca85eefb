// What `lazy status --timing` shows: each step of a start, of all layers together and of each.

import {type StartSpan, type StartTiming, type StepTotals, totalsOf} from '../lib/layer/start-timing.ts'
import {formatTable} from './table.ts'
import {formatBytes} from './units.ts'

/** A heading, a table of steps, and one of the steps of each layer, topmost last. Times are milliseconds since the start began. */
export function formatStart({reference, beganAt, layers, spans, dropped}: StartTiming): string {
  const began = new Date(beganAt).toISOString()
  const left = dropped > 0 ? `; ${dropped} steps are left out` : ''
  const bottomFirst = layers.toReversed()
  const rows = [
    ...rowsOf('all', spans),
    ...bottomFirst.flatMap(layer =>
      rowsOf(
        layer.slice(0, 19),
        spans.filter(span => span.layer === layer),
      ),
    ),
  ]
  const table = formatTable(['LAYER', 'STEP', 'FROM', 'TO', 'GOES-ON', 'COUNT', 'BYTES'], rows)
  return `${reference}: start at ${began}, in milliseconds since then${left}\n${table}`
}

function rowsOf(layer: string, spans: readonly StartSpan[]): string[][] {
  return totalsOf(spans).map(totals => [layer, ...columnsOf(totals)])
}

function columnsOf({step, fromMs, toMs, coveredMs, count, bytes}: StepTotals): string[] {
  const times = [fromMs, toMs, coveredMs].map(ms => ms.toFixed(1))
  return [step, ...times, String(count), bytes > 0 ? formatBytes(bytes) : '-']
}
