// Pulls an image lazily into containerd, and tells what came of it.

import {findSnapshotter} from '../lib/containerd/snapshotters.ts'
import {isContainerdStore} from '../lib/containerd/store.ts'
import {unpackImage} from '../lib/containerd/unpack.ts'
import {labelledTarget} from '../lib/convert/distribution-source.ts'
import type {PlatformSelection} from '../lib/convert/image-tree.ts'
import {CodedError, hasCode} from '../lib/errors/coded-error.ts'
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
  await using place = await session.target({transport: 'store', name: ref})
  const {address} = await findSnapshotter(store.client, snapshotter, {signal})
  const isRemote = address !== undefined || snapshotter.includes('stargz')
  if (!isRemote) say(`no layer will be lazy: the snapshotter "${snapshotter}" mounts none by itself`)
  const {root, layers} = await pullLazily(source, labelledTarget(place, ref), {
    platforms: request.platforms,
    reference: canonicalImageName(ref),
    skipContentVerify: request.skipContentVerify,
    snapshots: {
      name: snapshotter,
      isRemote,
      unpack: image =>
        unpackImage(store, {...image, snapshotter}).catch(error => {
          throw explainFailure(error, snapshotter, address)
        }),
      explain: async () => undefined,
    },
    onFetch: ({digest, mediaType}) => request.print(`fetching ${digest.slice(0, 15)}... ${mediaType}`),
    onLayer: layer => {
      if (isRemote && layer.state === 'fetched') say(describeFetched(layer))
    },
    signal,
  })
  const {labels} = request
  if (Object.keys(labels).length > 0) await store.images.put(place.name, root, {labels, signal})
  return {
    name: place.name,
    digest: root.digest,
    layers: layers.map(({descriptor: {digest}, state, reason}) => ({
      digest,
      state,
      ...(reason === undefined ? {} : {reason}),
    })),
  }
}

function describeFetched({descriptor, index, count, reason}: PulledLayer): string {
  return `layer ${index + 1}/${count} ${descriptor.digest.slice(0, 19)} is not lazy: ${reason}`
}

/** containerd says of a daemon that does not run only that it is unavailable. */
function explainFailure(error: unknown, snapshotter: string, address: string | undefined): unknown {
  if (address === undefined || !hasCode(error, 'unavailable')) return error
  return new CodedError(
    'unavailable',
    `Cannot use the snapshotter "${snapshotter}": is its daemon, mostly containerd-stargz-grpc, running and listening on "${address}"?`,
    {cause: error},
  )
}
