// Pulls an image lazily into containerd, and tells what came of it.

import {createConnection} from 'node:net'
import {setTimeout as pause} from 'node:timers/promises'
import {findSnapshotter} from '../lib/containerd/snapshotters.ts'
import {type ContainerdStore, isContainerdStore} from '../lib/containerd/store.ts'
import {type UnpackOptions, unpackImage} from '../lib/containerd/unpack.ts'
import {labelledTarget} from '../lib/convert/distribution-source.ts'
import type {PlatformSelection} from '../lib/convert/image-tree.ts'
import {CodedError, hasCode} from '../lib/errors/coded-error.ts'
import type {Descriptor} from '../lib/oci/descriptor.ts'
import type {Digest} from '../lib/oci/digest.ts'
import {listLazyLayers} from '../lib/snapshotter-client/snapshotter-client.ts'
import {type PulledLayer, pullLazily} from '../lib/transport/lazy-pull.ts'
import {canonicalImageName} from '../lib/transport/store-image.ts'
import type {Session} from './session.ts'

export interface LazyPullRequest {
  readonly platforms: PlatformSelection
  readonly labels: Readonly<Record<string, string>>
  readonly snapshotter: string
  readonly skipContentVerify: boolean
  /** A line for stdout. */
  readonly print: (line: string) => void
}

/** What `--json` prints. */
export interface LazyPullReport {
  readonly name: string
  readonly digest: string
  readonly layers: readonly {readonly digest: string; readonly state: string; readonly reason?: string}[]
}

/** containerd waits up to 3 s between attempts to reach a daemon. */
const RETRY_INTERVAL_MS = 500
const MAX_ATTEMPTS = 10

/** Pulls `ref`; throws `unsupported` for a store without snapshots. */
export async function pullIntoSnapshots(
  session: Session,
  ref: string,
  request: LazyPullRequest,
): Promise<LazyPullReport> {
  const {signal, say} = session
  const {snapshotter} = request
  const store = await session.store()
  if (!isContainerdStore(store)) {
    throw new CodedError(
      'unsupported',
      `Cannot pull "${ref}" lazily into the ${store.kind} store: its layers are mounted by a snapshotter of containerd; use image pull, or --store containerd`,
    )
  }
  await using source = await session.source({transport: 'docker', reference: ref})
  const root = source.resolve({signal})
  // Seen by whoever awaits it; until then containerd gets ready.
  root.catch(() => undefined)
  await using place = await session.target({transport: 'store', name: ref})
  const {address} = await findSnapshotter(store.client, snapshotter, {signal})
  const isRemote = address !== undefined || snapshotter.includes('stargz')
  if (!isRemote) say(`no layer will be lazy: the snapshotter "${snapshotter}" mounts none by itself`)
  const reference = canonicalImageName(ref)
  const snapshots = {
    name: snapshotter,
    isRemote,
    unpack: (image: UnpackRequest) => unpackWhenReachable(store, image, {snapshotter, address, signal}),
    explain: (layer: Descriptor) => explainLayer(layer, {address, reference, signal}),
  }
  const image = await session.watch(onProgress =>
    pullLazily({...source, resolve: () => root}, labelledTarget(place, ref), {
      platforms: request.platforms,
      reference,
      skipContentVerify: request.skipContentVerify,
      snapshots,
      onFetch: ({digest, mediaType}) => request.print(`fetching ${digest.slice(0, 15)}... ${mediaType}`),
      onLayer: layer => {
        if (isRemote && layer.state === 'fetched') say(describeFetched(layer))
      },
      onProgress,
      signal,
    }),
  )
  const {labels} = request
  if (Object.keys(labels).length > 0) await store.images.put(place.name, image.root, {labels, signal})
  return {
    name: place.name,
    digest: image.root.digest,
    layers: image.layers.map(({descriptor: {digest}, state, reason}) => ({
      digest,
      state,
      ...(reason === undefined ? {} : {reason}),
    })),
  }
}

function describeFetched({descriptor, index, count, reason}: PulledLayer): string {
  return `layer ${index + 1}/${count} ${descriptor.digest.slice(0, 19)} is not lazy: ${reason}`
}

/** Our own daemon tells; others do not, and their log must be read. */
async function explainLayer(
  {digest}: Descriptor,
  {address, ...query}: {address: string | undefined; reference: string; signal: AbortSignal},
): Promise<string | undefined> {
  if (address === undefined) return undefined
  try {
    const layers = await listLazyLayers({address, ...query})
    return layers.find(layer => layer.digest === digest && !layer.lazy)?.reason
  } catch (error) {
    if (hasCode(error, 'unsupported', 'unavailable')) return undefined
    throw error
  }
}

type UnpackRequest = Omit<UnpackOptions, 'snapshotter'>

/**
 * Unpacks as soon as containerd has a connection to the snapshotter's daemon: after a failure it waits some seconds before
 * it tries again, and a daemon that has just been started would look as if it were not there.
 */
async function unpackWhenReachable(
  store: ContainerdStore,
  image: UnpackRequest,
  {snapshotter, address, signal}: {snapshotter: string; address: string | undefined; signal: AbortSignal},
): Promise<Digest> {
  let fetchFailure: unknown
  const contentReady: UnpackOptions['contentReady'] = async (content, place) => {
    await image.contentReady?.(content, place).catch(error => {
      fetchFailure = error
      throw error
    })
  }
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await unpackImage(store, {...image, contentReady, snapshotter})
    } catch (cause) {
      if (cause === fetchFailure || address === undefined || !hasCode(cause, 'unavailable')) throw cause
      const listens = await isListening(address)
      if (listens && attempt < MAX_ATTEMPTS) {
        await pause(RETRY_INTERVAL_MS, undefined, {signal})
        continue
      }
      const problem = listens
        ? `containerd does not reach its daemon at "${address}"`
        : `nothing listens on "${address}"; start its daemon, mostly containerd-stargz-grpc`
      throw new CodedError('unavailable', `Cannot use the snapshotter "${snapshotter}": ${problem}`, {cause})
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
