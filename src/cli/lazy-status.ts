// What `lazy status` tells: how the layers do that a snapshotter was asked to mount lazily.

import {type ConnectOptions, connectContainerd} from '../lib/containerd/client.ts'
import {findSnapshotter} from '../lib/containerd/snapshotters.ts'
import {openContainerdStore} from '../lib/containerd/store.ts'
import {CodedError, hasCode} from '../lib/errors/coded-error.ts'
import type {Descriptor} from '../lib/oci/descriptor.ts'
import type {LazyLayerStatus} from '../lib/snapshot/lazy-layer-status.ts'
import {canonicalImageName, findImage} from '../lib/transport/store-image.ts'
import {summarizeImage} from './image-summary.ts'
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

/**
 * What is known of an image's layers, bottom first: also those that another image brought, under whose name they are
 * mounted. Without the image, or without containerd, it is what the snapshotter was asked for under this name.
 */
export async function layersOfImage(
  all: readonly LazyLayerStatus[],
  name: string,
  options: ConnectOptions,
): Promise<readonly LazyLayerStatus[]> {
  const reference = canonicalImageName(name)
  const layers = await layersInContainerd(name, options)
  if (!layers) return all.filter(status => status.reference === reference)
  return layers.map(layer => {
    const known = all.filter(({digest}) => digest === layer.digest)
    return known.find(status => status.lazy) ?? known[0] ?? unknownLayer(layer, reference)
  })
}

/** The layers of an image in containerd, each once; undefined when it cannot be asked or does not have the image. */
async function layersInContainerd(
  name: string,
  options: ConnectOptions,
): Promise<readonly Descriptor[] | undefined> {
  try {
    await using store = await openContainerdStore(options)
    const {target} = await findImage(store, name, options)
    const summaries = await summarizeImage(store.content, target, options)
    const layers = summaries.flatMap(({manifest}) => manifest?.layers ?? [])
    return [...new Map(layers.map(layer => [layer.digest, layer])).values()]
  } catch (error) {
    if (hasCode(error, 'unavailable', 'permission-denied', 'not-found')) return undefined
    throw error
  }
}

function unknownLayer({digest, size}: Descriptor, reference: string): LazyLayerStatus {
  return {
    mountpoint: '',
    reference,
    digest,
    lazy: false,
    reason: 'the snapshotter was not asked to mount it: it is not pulled, or was unpacked',
    size,
    fetched: 0,
    deviceSize: 0,
    present: 0,
    prefetchSize: 0,
    requests: 0,
    errors: 0,
  }
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
