// What `lazy status` tells: how the layers do that a snapshotter was asked to mount lazily.

import {type ConnectOptions, connectContainerd} from '../lib/containerd/client.ts'
import {findSnapshotter} from '../lib/containerd/snapshotters.ts'
import {CodedError, hasCode} from '../lib/errors/coded-error.ts'
import type {LazyLayerStatus} from '../lib/snapshot/lazy-layer-status.ts'
import {formatTable} from './table.ts'
import {formatBytes} from './units.ts'

/** Where containerd-stargz-grpc listens unless told otherwise. */
const DEFAULT_SOCKET = '/run/containerd-stargz-grpc/containerd-stargz-grpc.sock'

/** The socket of a snapshotter's daemon, as containerd knows it; the usual one where there is no containerd to ask. */
export async function findSnapshotterSocket(snapshotter: string, options: ConnectOptions): Promise<string> {
  try {
    using client = await connectContainerd(options)
    const {address} = await findSnapshotter(client, snapshotter, options)
    if (address !== undefined) return address
  } catch (error) {
    if (hasCode(error, 'unavailable', 'permission-denied')) return DEFAULT_SOCKET
    throw error
  }
  throw new CodedError(
    'unsupported',
    `Cannot ask the snapshotter "${snapshotter}" about lazy layers: it is a part of containerd`,
  )
}

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
