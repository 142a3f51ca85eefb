// Pulls an image lazily into containerd, and tells what came of it.

import {labelledTarget} from '../lib/copy/distribution-source.ts'
import {CodedError} from '../lib/errors/coded-error.ts'
import type {PlatformSelection} from '../lib/image/image-tree.ts'
import {announceImage, readAhead} from '../lib/rpull/announce-image.ts'
import {saysLazy} from '../lib/rpull/lazy-labels.ts'
import {type PulledLayer, pullLazily} from '../lib/rpull/lazy-pull.ts'
import {canonicalImageName} from '../lib/transport/store-image.ts'
import {resolveAhead} from './resolve-ahead.ts'
import type {Session} from './session.ts'

export interface LazyPullRequest {
  /** Where the image is; its layers say so to the snapshotter, too. */
  readonly from: 'registry' | 'ipfs'
  readonly platforms: PlatformSelection
  readonly labels: Readonly<Record<string, string>>
  readonly snapshotter: string
  readonly skipContentVerify: boolean
  /** Names of the flags by which the registry is reached here, and which the snapshotter does not get. */
  readonly registryFlags: readonly string[]
  /** A line for stdout. */
  readonly print: (line: string) => void
}

/** What `--json` prints. */
export interface LazyPullReport {
  readonly name: string
  readonly digest: string
  readonly layers: readonly {readonly digest: string; readonly state: string; readonly reason?: string}[]
}

/** Pulls `ref`, the CID of one in IPFS; throws `unsupported` for a store without snapshots. */
export async function pullIntoSnapshots(
  session: Session,
  ref: string,
  request: LazyPullRequest,
): Promise<LazyPullReport> {
  const {signal, say} = session
  const isIpfs = request.from === 'ipfs'
  await using named = await session.source(
    isIpfs ? {transport: 'ipfs', cid: ref} : {transport: 'docker', reference: ref},
  )
  const {platforms, skipContentVerify} = request
  const source = readAhead(await resolveAhead(named, {signal}), {platforms, signal})
  const store = await session.store()
  if (store.kind !== 'containerd') throw noSnapshots(ref)
  const {openRemoteSnapshotter} = await import('../lib/rpull/remote-snapshotter.ts')
  const reference = isIpfs ? ref : canonicalImageName(ref)
  const opening = openRemoteSnapshotter(store, {name: request.snapshotter, reference, signal})
  using announced = new DisposableStack()
  const over = announced.adopt(new AbortController(), controller => controller.abort())
  void announceImage(source, {
    platforms,
    reference,
    skipContentVerify,
    snapshots: opening,
    content: store.content,
    signal: AbortSignal.any([signal, over.signal]),
  })
  const [place, snapshots] = await Promise.all([session.target({transport: 'store', name: ref}), opening])
  await using target = isIpfs ? place : labelledTarget(place, ref)
  const {name, isRemote} = snapshots
  if (!isRemote) say(`no layer will be lazy: the snapshotter "${name}" mounts none by itself`)
  const image = await session.watch(onProgress =>
    pullLazily(source, target, {
      platforms,
      reference,
      skipContentVerify,
      snapshots,
      onFetch: ({digest, mediaType}) => request.print(`fetching ${digest.slice(0, 15)}... ${mediaType}`),
      onLayer: layer => {
        if (isRemote && layer.state === 'fetched') say(describeFetched(layer))
      },
      onProgress,
      signal,
    }),
  )
  const refused = image.layers.some(({state, descriptor}) => state === 'fetched' && saysLazy(descriptor))
  if (isRemote && refused && request.registryFlags.length > 0) say(describeFlags(request.registryFlags))
  const {labels} = request
  if (Object.keys(labels).length > 0) await store.images.put(target.name, image.root, {labels, signal})
  return {name: target.name, digest: image.root.digest, layers: image.layers.map(reportLayer)}
}

/** The error of a store that keeps no snapshots. */
export function noSnapshots(ref: string): CodedError {
  return new CodedError(
    'unsupported',
    `Cannot pull "${ref}" lazily into the local store: its layers are mounted by a snapshotter of containerd; use image pull, or --store containerd`,
  )
}

function describeFetched({descriptor, index, count, reason}: PulledLayer): string {
  return `layer ${index + 1}/${count} ${descriptor.digest.slice(0, 19)} is not lazy: ${reason}`
}

function describeFlags(flags: readonly string[]): string {
  const names = flags.map(name => `--${name}`).join(', ')
  return `the snapshotter reaches registries by itself and does not get ${names}: it has its configuration, and what docker login stored for the user that it runs as`
}

function reportLayer({descriptor: {digest}, state, reason}: PulledLayer): LazyPullReport['layers'][number] {
  return {digest, state, ...(reason === undefined ? {} : {reason})}
}
