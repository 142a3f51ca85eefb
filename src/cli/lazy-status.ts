// What `lazy status` tells: how the layers do that a snapshotter was asked to mount lazily.

import {type ConnectOptions, connectContainerd} from '../lib/containerd/client.ts'
import type {Labels} from '../lib/containerd/gc-labels.ts'
import {findSnapshotter} from '../lib/containerd/snapshotters.ts'
import {openContainerdStore} from '../lib/containerd/store.ts'
import {chainIdsOf, findSnapshot} from '../lib/containerd/unpack.ts'
import {readConfig} from '../lib/convert/image-tree.ts'
import {CodedError, hasCode} from '../lib/errors/coded-error.ts'
import type {Descriptor} from '../lib/oci/descriptor.ts'
import type {LazyLayerStatus} from '../lib/snapshot/lazy-layer-status.ts'
import {isLazySnapshot} from '../lib/transport/lazy-labels.ts'
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

/** An image's layer as containerd has it. */
interface ImageLayer {
  readonly descriptor: Descriptor
  /** The labels of its snapshot; undefined when it has none. */
  readonly snapshot: Labels | undefined
}

/**
 * What is known of an image's layers, bottom first: also those that another image brought, under whose name they are
 * mounted. Without the image, or without containerd, it is what the snapshotter was asked for under this name.
 */
export async function layersOfImage(
  all: readonly LazyLayerStatus[],
  name: string,
  options: ConnectOptions & {readonly snapshotter: string},
): Promise<readonly LazyLayerStatus[]> {
  const reference = canonicalImageName(name)
  const layers = await layersInContainerd(name, options)
  if (!layers) return all.filter(status => status.reference === reference)
  return layers.map(({descriptor, snapshot}) => {
    const known = all.filter(({digest}) => digest === descriptor.digest)
    return known.find(status => status.lazy) ?? known[0] ?? unknownLayer(descriptor, reference, snapshot)
  })
}

/** The layers of an image in containerd; undefined when it cannot be asked or does not have the image. */
async function layersInContainerd(
  name: string,
  options: ConnectOptions & {readonly snapshotter: string},
): Promise<readonly ImageLayer[] | undefined> {
  try {
    await using store = await openContainerdStore(options)
    const {target} = await findImage(store, name, options)
    const summaries = await summarizeImage(store.content, target, options)
    const layers: ImageLayer[] = []
    for (const {manifest, platform} of summaries) {
      if (!manifest || !platform?.startsWith('linux/')) continue
      const {rootfs} = await readConfig(store.content, manifest, options)
      for (const [index, chainId] of chainIdsOf(rootfs.diff_ids).entries()) {
        const snapshot = await findSnapshot(store, options.snapshotter, chainId, options)
        layers.push({descriptor: manifest.layers[index]!, snapshot})
      }
    }
    return layers
  } catch (error) {
    if (hasCode(error, 'unavailable', 'permission-denied', 'not-found')) return undefined
    throw error
  }
}

/** A layer that the snapshotter was not asked to mount under its digest. */
function unknownLayer(
  {digest, size}: Descriptor,
  reference: string,
  snapshot: Labels | undefined,
): LazyLayerStatus {
  const lazy = snapshot !== undefined && isLazySnapshot(snapshot)
  const reason = lazy ? 'mounted from another layer with the same files' : 'unpacked, not mounted'
  return {
    mountpoint: '',
    reference,
    digest,
    lazy,
    reason: snapshot ? reason : 'not pulled',
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
