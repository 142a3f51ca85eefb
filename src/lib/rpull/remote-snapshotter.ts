// A snapshotter of containerd that mounts layers by itself: whether it is there, what it says, and patience with it.

import {createConnection} from 'node:net'
import {setTimeout as pause} from 'node:timers/promises'
import {findSnapshotter} from '../containerd/snapshotters.ts'
import {type ContainerdStore, isContainerdStore} from '../containerd/store.ts'
import {type UnpackOptions, unpackImage} from '../containerd/unpack.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {Store} from '../oci/image-store.ts'
import {announceLayers, listLazyLayers} from '../snapshotter-client/snapshotter-client.ts'
import type {LayerSnapshots, UnpackRequest} from './lazy-pull.ts'

export interface RemoteSnapshotterOptions {
  readonly name: string
  /** Of the image that is being pulled, canonical. */
  readonly reference: string
  readonly signal: AbortSignal
}

/** A snapshotter, and the socket of the daemon behind it; undefined for one that is part of containerd. */
interface Daemon extends RemoteSnapshotterOptions {
  readonly address: string | undefined
}

/** containerd waits up to 3 s between attempts to reach a daemon; one that restarts needs a moment too. */
const RETRY_INTERVAL_MS = 500
const MAX_ATTEMPTS = 20

/** Throws `unsupported` for a store that has no snapshots, and as `findSnapshotter`. */
export async function openRemoteSnapshotter(
  store: Store,
  options: RemoteSnapshotterOptions,
): Promise<LayerSnapshots> {
  if (!isContainerdStore(store))
    throw new CodedError('unsupported', `The ${store.kind} store has no snapshots`)
  const {name} = options
  const {address} = await findSnapshotter(store.client, name, options)
  const daemon = {...options, address}
  return {
    name,
    // One without a daemon can still be the reference's, built into containerd.
    isRemote: address !== undefined || name.includes('stargz'),
    unpack: image => unpackWhenReachable(store, image, daemon),
    announce: async (labels, call) => {
      if (address !== undefined) await announceQuietly(labels, {...call, address})
    },
    explain: layer => explainLayer(layer, daemon),
  }
}

/** Others do not listen, and what does not work now will be said when layers are asked for. */
async function announceQuietly(
  labels: Readonly<Record<string, string>>,
  query: CallOptions & {readonly address: string},
): Promise<void> {
  try {
    await announceLayers(labels, query)
  } catch {}
}

/** Our own daemon tells; others do not, and their log must be read. */
async function explainLayer(
  {digest}: Descriptor,
  {address, reference, signal}: Daemon,
): Promise<string | undefined> {
  if (address === undefined) return undefined
  try {
    const layers = await listLazyLayers({address, reference, signal})
    return layers.find(layer => layer.digest === digest && !layer.lazy)?.reason
  } catch (error) {
    if (hasCode(error, 'unsupported', 'unavailable')) return undefined
    throw error
  }
}

/**
 * Unpacks as soon as containerd has a connection to the snapshotter's daemon: after a failure it waits some seconds before
 * it tries again, and a daemon that has just been started would look as if it were not there. One that has mounted layers
 * and is gone may be restarting; one that never was there is not waited for.
 */
async function unpackWhenReachable(
  store: ContainerdStore,
  image: UnpackRequest,
  {name, address, signal}: Daemon,
): Promise<Digest | ''> {
  let fetchFailure: unknown
  const contentReady: UnpackOptions['contentReady'] = async (content, place) => {
    await image.contentReady?.(content, place).catch(error => {
      fetchFailure = error
      throw error
    })
  }
  let wasThere = false
  const onLayer: UnpackOptions['onLayer'] = (index, fate) => {
    wasThere = true
    image.onLayer?.(index, fate)
  }
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await unpackImage(store, {...image, contentReady, onLayer, snapshotter: name})
    } catch (cause) {
      if (cause === fetchFailure || address === undefined || !hasCode(cause, 'unavailable')) throw cause
      const listens = await isListening(address)
      if ((listens || wasThere) && attempt < MAX_ATTEMPTS) {
        await pause(RETRY_INTERVAL_MS, undefined, {signal})
        continue
      }
      const problem = listens
        ? `containerd does not reach its daemon at "${address}"`
        : `nothing listens on "${address}"; start its daemon, mostly containerd-stargz-grpc`
      throw new CodedError('unavailable', `Cannot use the snapshotter "${name}": ${problem}`, {cause})
    }
  }
}

function isListening(address: string): Promise<boolean> {
  return new Promise(resolve => {
    const socket = createConnection(address)
    socket.once('error', () => resolve(false))
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
  })
}
