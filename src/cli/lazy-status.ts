// What `lazy status` shows: a table of layers that a snapshotter was asked to mount lazily.

import type {LazyLayerStatus} from '../lib/layer/lazy-layer-status.ts'
import {formatTable} from './table.ts'
import {formatBytes} from './units.ts'

/** A table with a line for each layer, ordered by image and as given. */
export function formatLayers(layers: readonly LazyLayerStatus[]): string {
  const rows = layers.map(layer => [
    layer.reference,
    layer.digest.slice(0, 19),
    stateOf(layer),
    percent(layer.fetched, layer.size),
    layer.size > 0 ? formatBytes(layer.size) : '-',
    String(layer.requests),
    String(layer.errors),
    layer.reason ?? layer.lastError ?? '-',
  ])
  return formatTable(['REF', 'LAYER', 'STATE', 'FETCHED', 'SIZE', 'REQUESTS', 'ERRORS', 'NOTE'], rows)
}

function stateOf({lazy, backend}: LazyLayerStatus): string {
  if (!lazy) return 'not-lazy'
  // Complete: the kernel reads it as a plain file.
  return backend === 'plain' ? 'complete' : `lazy${backend === undefined ? '' : `/${backend}`}`
}

/** Rounded down, so that 100 % is all of it. */
function percent(part: number, whole: number): string {
  if (whole === 0) return '-'
  return `${Math.floor((Math.min(part, whole) / whole) * 100)}%`
}
