// Which layers an image has, and what a snapshotter that was asked to mount them lazily knows of them.

import {type ConnectOptions, connectContainerd} from '../containerd/client.ts'
import type {Labels} from '../containerd/gc-labels.ts'
import {findSnapshotter} from '../containerd/snapshotters.ts'
import {openContainerdStore} from '../containerd/store.ts'
import {chainIdsOf, findSnapshot} from '../containerd/unpack.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {summarizeImage} from '../image/image-summary.ts'
import {readConfig} from '../image/image-tree.ts'
import type {LazyLayerStatus} from '../layer/lazy-layer-status.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {isLazySnapshot} from '../rpull/lazy-labels.ts'
import {canonicalImageName, findImage} from '../transport/store-image.ts'

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
