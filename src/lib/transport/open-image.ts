// Opens the place that an image location names. What knows the outside world arrives in the context.

import {CodedError} from '../errors/coded-error.ts'
import type {IpfsNode} from '../ipfs/ipfs-node.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {ImageSource, ImageTarget, Store} from '../oci/image-store.ts'
import type {Registry} from '../registry/registry.ts'
import type {ImageLocation} from './image-location.ts'
import {openStoreSource, openStoreTarget} from './store-image.ts'

/** What opening needs that only the composition root has. */
export interface TransportContext extends CallOptions {
  /** Opens the store of plain names, once, when first asked for; the caller disposes it. */
  readonly store: () => Promise<Store>
  /** Opens the store that `containerd:` names. */
  readonly containerdStore: () => Promise<Store>
  /** The client for the registry of a reference, which is read or written; the caller disposes it. */
  readonly registry: (role: 'source' | 'target', reference: string) => Promise<Registry>
  /** The IPFS node of this user; the caller disposes it. */
  readonly ipfs: () => Promise<IpfsNode>
  /** References whose blobs the registry targets opened later may mount; what is read from registries is added. */
  readonly mountFrom: string[]
}

/** Opens an image for reading; the caller disposes it. Whether it exists shows when it is resolved. */
export async function openImageSource(
  location: ImageLocation,
  context: TransportContext,
): Promise<ImageSource> {
  return transportOf(location, context).source()
}

/** Opens a place for writing an image; the caller disposes it, and nothing shows before it publishes. */
export async function openImageTarget(
  location: ImageLocation,
  context: TransportContext,
): Promise<ImageTarget> {
  return transportOf(location, context).target()
}

/** Both ends of one location. */
interface Transport {
  source(): Promise<ImageSource>
  target(): Promise<ImageTarget>
}

/** The one place that knows every kind of location; what a kind needs is loaded when it is used. */
function transportOf(location: ImageLocation, context: TransportContext): Transport {
  switch (location.transport) {
    case 'store':
      return inStore(context.store, location.name, context)
    case 'containerd':
      return inStore(context.containerdStore, location.name, context)
    case 'docker':
      return inRegistry(location.reference, context)
    case 'ipfs':
      return inIpfs(location.cid, context)
    case 'oci':
      return {
        source: async () => (await layouts()).createLayoutSource(location),
        target: async () => (await layouts()).createLayoutTarget(location, context),
      }
    case 'oci-archive':
      return {
        source: async () => (await archives()).openOciArchiveSource(location, context),
        target: async () => (await archives()).openOciArchiveTarget(location),
      }
    case 'docker-archive':
      return {
        source: async () => (await archives()).openDockerArchiveSource(location, context),
        target: async () => (await archives()).openDockerArchiveTarget(location),
      }
  }
}

const layouts = () => import('../layout/oci-directory.ts')
const archives = () => import('../archive/archive-transports.ts')

function inStore(store: () => Promise<Store>, name: string, options: CallOptions): Transport {
  return {
    source: async () => openStoreSource(await store(), name, options),
    target: async () => openStoreTarget(await store(), name, options),
  }
}

function inIpfs(cid: string, {ipfs}: TransportContext): Transport {
  return {
    source: async () => (await import('../ipfs/ipfs-image.ts')).createIpfsImageSource(cid, await ipfs()),
    target: () =>
      Promise.reject(
        new CodedError(
          'unsupported',
          `Cannot write to "ipfs://${cid}", which stands for one image: use image ipfs-push`,
        ),
      ),
  }
}

function inRegistry(reference: string, {registry, mountFrom}: TransportContext): Transport {
  const images = () => import('../registry/image.ts')
  return {
    async source() {
      const opened = await registry('source', reference)
      // Layers that come from a registry and go back to it need not travel.
      mountFrom.push(reference)
      return (await images()).createRegistryImageSource(reference, {registry: opened})
    },
    async target() {
      const opened = await registry('target', reference)
      return (await images()).createRegistryImageTarget(reference, {registry: opened, mountFrom})
    },
  }
}
