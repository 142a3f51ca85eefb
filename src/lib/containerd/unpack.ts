// Unpacks the layers of an image into snapshots, as `ctr image pull` does.

import {randomBytes} from 'node:crypto'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {ProgressSink} from '../io/progress.ts'
import {digestOf} from '../io/sha256.ts'
import {CONTAINERD_UNCOMPRESSED} from '../oci/annotations.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageConfig, ImageManifest} from '../oci/manifest.ts'
import {updateLabels} from './blob-info.ts'
import {describePlace} from './failure.ts'
import {type Labels, snapshotLabel} from './gc-labels.ts'
import {Diff} from './proto/diff_pb.ts'
import {Snapshots} from './proto/snapshots_pb.ts'
import type {Mount} from './proto/types_pb.ts'
import {removeSnapshot} from './snapshot-mounts.ts'
import type {ContainerdStore} from './store.ts'

/** The snapshotter that containerd itself takes on Linux. */
export const DEFAULT_SNAPSHOTTER = 'overlayfs'

/** Names, for a snapshotter that brings layers itself, the snapshot that preparing is about. */
const SNAPSHOT_REF = 'containerd.io/snapshot.ref'
/** Annotations of layers that snapshotters are told, as labels. */
const INHERITED_PREFIX = 'containerd.io/snapshot/'

/** Someone else unpacks the same layer: how often we look whether it is there, and try ourselves. */
const MAX_PREPARE_ATTEMPTS = 3

export interface UnpackOptions extends CallOptions {
  readonly snapshotter: string
  readonly manifest: ImageManifest
  readonly config: ImageConfig
  /** Resolves when a layer's content is in the store; without it everything is there already. */
  readonly layerReady?: (layer: Descriptor) => Promise<void>
  /** Further labels for the snapshot of a layer, by its place, bottom first. */
  readonly layerLabels?: (index: number) => Labels
  readonly onProgress?: ProgressSink | undefined
}

/** The id of every layer's file system with those below it (image-spec config.md, "Layer ChainID"), bottom first. */
export function chainIdsOf(diffIds: readonly Digest[]): Digest[] {
  const chain: Digest[] = []
  for (const diffId of diffIds) {
    const below = chain.at(-1)
    chain.push(below === undefined ? diffId : digestOf(`${below} ${diffId}`))
  }
  return chain
}

/**
 * Unpacks what is not unpacked yet; resolves to the chain id of the topmost layer, under which its snapshot is found.
 * The caller holds a lease; afterwards the config keeps the snapshots, and so does the image once it has a name. Throws
 * `corrupt` for a layer that is not what the config says, `not-found` for a snapshotter that containerd does not have.
 */
export async function unpackImage(store: ContainerdStore, options: UnpackOptions): Promise<Digest> {
  const {snapshotter, manifest, config} = options
  const chain = chainIdsOf(config.rootfs.diff_ids)
  const top = chain.at(-1)
  if (top === undefined || chain.length !== manifest.layers.length) {
    throw new CodedError(
      'unsupported',
      `Cannot unpack an image whose config ${manifest.config.digest} lists ${chain.length} layers, its manifest ${manifest.layers.length}`,
    )
  }
  const present = await firstMissing(store, snapshotter, chain, options)
  for (let index = present; index < chain.length; index += 1) {
    options.signal?.throwIfAborted()
    const layer = manifest.layers[index]!
    await unpackLayer(store, {
      layer,
      labels: {...inheritedLabels(layer), ...options.layerLabels?.(index)},
      diffId: config.rootfs.diff_ids[index]!,
      chainId: chain[index]!,
      parent: chain[index - 1] ?? '',
      options,
    })
  }
  await options.layerReady?.(manifest.config)
  await updateLabels(store.client, manifest.config.digest, snapshotLabel(snapshotter, top), options)
  return top
}

/** The index of the lowest layer that must be unpacked; those below are there, and belong to the lease. */
async function firstMissing(
  store: ContainerdStore,
  snapshotter: string,
  chain: readonly Digest[],
  options: UnpackOptions,
): Promise<number> {
  for (let index = chain.length - 1; index >= 0; index -= 1) {
    if (await isUnpacked(store, snapshotter, chain[index]!, options)) return index + 1
  }
  return 0
}

/** Whether the snapshot of a chain id is there; it belongs to the lease then. */
export async function isUnpacked(
  {client, session}: ContainerdStore,
  snapshotter: string,
  key: string,
  options: CallOptions,
): Promise<boolean> {
  await session.keep(`snapshots/${snapshotter}`, key, options)
  try {
    const doing = `look for the snapshot ${key} of "${snapshotter}"`
    await client.call(Snapshots.method.stat, {snapshotter, key}, {...options, doing})
    return true
  } catch (error) {
    if (hasCode(error, 'not-found')) return false
    throw error
  }
}

interface LayerToUnpack {
  readonly layer: Descriptor
  readonly labels: Labels
  readonly diffId: Digest
  readonly chainId: Digest
  readonly parent: string
  readonly options: UnpackOptions
}

async function unpackLayer(store: ContainerdStore, work: LayerToUnpack): Promise<void> {
  const {client, session} = store
  const {layer, chainId, options} = work
  const {snapshotter, signal} = options
  const prepared = await prepareLayer(store, work)
  if (!prepared) return report(options, layer, 'skipped')
  const {key, mounts} = prepared
  const doing = `unpack the layer ${layer.digest} with "${snapshotter}"`
  const call = {signal, lease: session.id, doing}
  try {
    await options.layerReady?.(layer)
    report(options, layer, 'running')
    const {mediaType, digest, size, annotations = {}} = layer
    const diff = {mediaType, digest, size: BigInt(size), annotations: {...annotations}}
    const {applied} = await client.call(Diff.method.apply, {diff, mounts: [...mounts]}, call)
    if (applied?.digest !== work.diffId) {
      throw new CodedError(
        'corrupt',
        `Cannot ${doing} (${describePlace(client)}): its DiffID is ${applied?.digest}, and the config says ${work.diffId}`,
      )
    }
    const labels = {...work.labels, [SNAPSHOT_REF]: chainId}
    await client
      .call(Snapshots.method.commit, {snapshotter, key, name: chainId, labels}, call)
      .catch(error => {
        // Someone else was faster; ours is removed below.
        if (!hasCode(error, 'already-exists')) throw error
      })
    await updateLabels(client, layer.digest, {[CONTAINERD_UNCOMPRESSED]: work.diffId}, options)
    report(options, layer, 'done')
  } finally {
    await removeSnapshot(store, snapshotter, key)
  }
}

/** An active snapshot to unpack into; undefined when the layer turns out to be there. */
async function prepareLayer(
  store: ContainerdStore,
  {layer, chainId, parent, labels, options}: LayerToUnpack,
): Promise<{readonly key: string; readonly mounts: readonly Mount[]} | undefined> {
  const {snapshotter, signal} = options
  for (let attempt = 1; ; attempt += 1) {
    const key = `extract-ctr-remote-${randomBytes(8).toString('hex')} ${chainId}`
    try {
      const request = {snapshotter, key, parent, labels: {...labels, [SNAPSHOT_REF]: chainId}}
      const doing = `prepare the snapshot of the layer ${layer.digest} with "${snapshotter}"`
      const {client, session} = store
      const call = {signal, lease: session.id, doing}
      return {key, mounts: (await client.call(Snapshots.method.prepare, request, call)).mounts}
    } catch (error) {
      // A remote snapshotter that brings the layer itself says so in this way.
      if (!hasCode(error, 'already-exists')) throw error
      if (await isUnpacked(store, snapshotter, chainId, options)) return undefined
      if (attempt === MAX_PREPARE_ATTEMPTS) throw error
    }
  }
}

function inheritedLabels({annotations = {}}: Descriptor): Labels {
  return Object.fromEntries(Object.entries(annotations).filter(([key]) => key.startsWith(INHERITED_PREFIX)))
}

function report(options: UnpackOptions, layer: Descriptor, phase: 'running' | 'done' | 'skipped'): void {
  options.onProgress?.({
    id: `unpack ${layer.digest}`,
    label: `unpack ${layer.digest.slice(0, 19)}`,
    phase,
    ...(phase === 'skipped' ? {note: 'already there'} : {}),
  })
}
