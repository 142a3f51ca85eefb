// Unpacks the layers of an image into snapshots, as `ctr image pull` does.

import {randomBytes} from 'node:crypto'
import {digestOf} from '../blob/sha256.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {ProgressSink} from '../io/progress.ts'
import {CONTAINERD_UNCOMPRESSED} from '../oci/annotations.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageConfig, ImageManifest} from '../oci/manifest.ts'
import {readInfo, updateLabels} from './blob-info.ts'
import {describePlace} from './failure.ts'
import {type Labels, snapshotLabel, snapshottersOf} from './gc-labels.ts'
import {makeSnapshot} from './make-snapshot.ts'
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

/** How long an aborted unpacking waits for a snapshot that is being made; a local one takes milliseconds. */
const PREPARE_GRACE_MS = 3_000

export interface UnpackOptions extends CallOptions {
  readonly snapshotter: string
  readonly manifest: ImageManifest
  readonly config: ImageConfig
  /**
   * Asked for each layer that must be applied, by its place, and for the config at the end: resolves when it is in the
   * store. Without it everything is there already.
   */
  readonly contentReady?: (content: Descriptor, place: number | 'config') => Promise<void>
  /** Further labels for the snapshot of a layer, by its place, bottom first. */
  readonly layerLabels?: (index: number) => Labels
  /** Told what became of each layer, bottom first. */
  readonly onLayer?: (index: number, fate: LayerFate) => void
  readonly onProgress?: ProgressSink | undefined
}

/** What became of a layer: its snapshot was there, or the snapshotter brought it; or its content was applied. */
export type LayerFate = {readonly kind: 'present'; readonly labels: Labels} | {readonly kind: 'applied'}

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
 * Unpacks what is not unpacked yet; resolves to the chain id of the topmost layer, under which its snapshot is found, or to
 * none, which containerd writes as an empty text, for an image without layers: it has nothing to unpack.
 * The caller holds a lease; afterwards the config keeps the snapshots, and so does the image once it has a name. Throws
 * `corrupt` for a layer that is not what the config says, `not-found` for a snapshotter that containerd does not have.
 */
export async function unpackImage(store: ContainerdStore, options: UnpackOptions): Promise<Digest | ''> {
  const {snapshotter, manifest, config} = options
  const chain = chainIdsOf(config.rootfs.diff_ids)
  const top = chain.at(-1)
  if (chain.length !== manifest.layers.length) {
    throw new CodedError(
      'unsupported',
      `Cannot unpack an image whose config ${manifest.config.digest} lists ${chain.length} layers, its manifest ${manifest.layers.length}`,
    )
  }
  if (top === undefined) {
    await options.contentReady?.(manifest.config, 'config')
    return ''
  }
  if (!(await allPresent(store, chain, options))) {
    for (const [index, layer] of manifest.layers.entries()) {
      options.signal?.throwIfAborted()
      const fate = await unpackLayer(store, {
        index,
        layer,
        above: chain.slice(index + 1),
        labels: {...inheritedLabels(layer), ...options.layerLabels?.(index)},
        diffId: config.rootfs.diff_ids[index]!,
        chainId: chain[index]!,
        parent: chain[index - 1] ?? '',
        options,
      })
      options.onLayer?.(index, fate)
    }
  }
  await options.contentReady?.(manifest.config, 'config')
  await updateLabels(store.client, manifest.config.digest, snapshotLabel(snapshotter, top), options)
  return top
}

/** Whether the topmost snapshot is there, and so all are. */
async function allPresent(
  store: ContainerdStore,
  chain: readonly Digest[],
  options: UnpackOptions,
): Promise<boolean> {
  // Mostly not; then it need not be kept, which takes a write to containerd's database.
  if (!(await readLabels(store, options.snapshotter, chain.at(-1)!, options))) return false
  if (!(await findSnapshot(store, options.snapshotter, chain.at(-1)!, options))) return false
  const found = await Promise.all(chain.map(id => findSnapshot(store, options.snapshotter, id, options)))
  for (const [index, labels] of found.entries()) {
    if (labels) options.onLayer?.(index, {kind: 'present', labels})
  }
  return true
}

/** Whether the snapshot of a chain id is there; it belongs to the lease then. */
export async function isUnpacked(
  store: ContainerdStore,
  snapshotter: string,
  key: string,
  options: CallOptions,
): Promise<boolean> {
  return (await findSnapshot(store, snapshotter, key, options)) !== undefined
}

/** The labels of the snapshot of a chain id, or undefined; it belongs to the lease then. */
export async function findSnapshot(
  store: ContainerdStore,
  snapshotter: string,
  key: string,
  options: CallOptions,
): Promise<Labels | undefined> {
  // In this order: what is found after the lease knows of it cannot be collected any more.
  await store.session.keep(`snapshots/${snapshotter}`, key, options)
  return readLabels(store, snapshotter, key, options)
}

async function readLabels(
  {client}: ContainerdStore,
  snapshotter: string,
  key: string,
  options: CallOptions,
): Promise<Labels | undefined> {
  try {
    const doing = `look for the snapshot ${key} of "${snapshotter}"`
    const {info} = await client.call(Snapshots.method.stat, {snapshotter, key}, {...options, doing})
    return info?.labels ?? {}
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  }
}

interface LayerToUnpack {
  readonly index: number
  readonly layer: Descriptor
  readonly labels: Labels
  readonly diffId: Digest
  readonly chainId: Digest
  readonly parent: string
  /** The chain ids of the layers above. */
  readonly above: readonly Digest[]
  readonly options: UnpackOptions
}

async function unpackLayer(store: ContainerdStore, work: LayerToUnpack): Promise<LayerFate> {
  const {client, session} = store
  const {layer, chainId, options} = work
  const {snapshotter, signal} = options
  const prepared = await prepareLayer(store, work)
  if (prepared.kind === 'present') {
    report(options, layer, 'skipped')
    return prepared
  }
  const {key, mounts} = prepared
  const doing = `unpack the layer ${layer.digest} with "${snapshotter}"`
  const call = {signal, lease: session.id, doing}
  try {
    await options.contentReady?.(layer, work.index)
    report(options, layer, 'running')
    const {mediaType, digest, size, annotations = {}} = layer
    const diff = {mediaType, digest, size: BigInt(size), annotations: {...annotations}}
    const {applied} = await client
      .call(Diff.method.apply, {diff, mounts: [...mounts]}, call)
      .catch(async error => {
        throw hasCode(error, 'not-found') ? await missingLayer(store, work) : error
      })
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
    return {kind: 'applied'}
  } finally {
    await removeSnapshot(store, snapshotter, key)
  }
}

/** Most likely the image was pulled lazily for another snapshotter: its config tells which. */
async function missingLayer({client}: ContainerdStore, {layer, options}: LayerToUnpack): Promise<CodedError> {
  const config = await readInfo(client, options.manifest.config.digest, options)
  const others = snapshottersOf(config?.labels ?? {}).filter(name => name !== options.snapshotter)
  const hint = others.length > 0 ? `use it with --snapshotter ${others.join(' or ')}, or pull` : 'pull'
  return new CodedError(
    'not-found',
    `Cannot unpack the layer ${layer.digest} with "${options.snapshotter}": it is not in ${describePlace(client)}; ${hint} the image with "image pull"`,
  )
}

type PreparedLayer =
  | {readonly kind: 'present'; readonly labels: Labels}
  | {readonly kind: 'active'; readonly key: string; readonly mounts: readonly Mount[]}

/** An active snapshot to unpack into, unless the layer is there, or the snapshotter has brought it. */
async function prepareLayer(store: ContainerdStore, work: LayerToUnpack): Promise<PreparedLayer> {
  const {layer, chainId, parent, labels, options} = work
  const {snapshotter, signal} = options
  const {client, session} = store
  for (let attempt = 1; ; attempt += 1) {
    const key = `extract-ctr-remote-${randomBytes(8).toString('hex')} ${chainId}`
    const request = {snapshotter, key, parent, labels: {...labels, [SNAPSHOT_REF]: chainId}}
    const doing = `prepare the snapshot of the layer ${layer.digest} with "${snapshotter}"`
    using late = lateSignal(signal)
    const call = {signal: late.signal, lease: session.id, doing}
    // Told beforehand of what the snapshotter may bring, the lease costs no time of its own.
    const [prepared, kept] = await Promise.allSettled([
      makeSnapshot(client, 'prepare', request, call),
      session.keep(`snapshots/${snapshotter}`, chainId, options),
    ])
    if (signal?.aborted) {
      await removeSnapshot(store, snapshotter, key)
      throw signal.reason
    }
    if (prepared.status === 'fulfilled') return {kind: 'active', key, mounts: prepared.value}
    const error = prepared.reason
    // A remote snapshotter that brings the layer itself says so in this way.
    if (!hasCode(error, 'already-exists')) throw error
    if (kept.status === 'rejected') throw kept.reason
    const present = await readLabels(store, snapshotter, chainId, options)
    if (present) return {kind: 'present', labels: present}
    if (attempt === MAX_PREPARE_ATTEMPTS) await forgetLost(store, work)
    if (attempt > MAX_PREPARE_ATTEMPTS) throw error
  }
}

/**
 * containerd says that a snapshot exists, and its snapshotter has none: its data were lost, and containerd would say so for
 * ever. Forgets the image's snapshots that are lost, from the top.
 */
async function forgetLost(store: ContainerdStore, {chainId, above, options}: LayerToUnpack): Promise<void> {
  const {snapshotter} = options
  const keys = [chainId, ...above]
  // What the collector takes meanwhile, it does not take off the list of its parent's children, which could then not go.
  for (const key of keys) await store.session.keep(`snapshots/${snapshotter}`, key, options)
  for (const key of keys.reverse()) {
    if (await readLabels(store, snapshotter, key, options)) continue
    try {
      const doing = `forget the snapshot ${key} of "${snapshotter}"`
      await store.client.call(Snapshots.method.remove, {snapshotter, key}, {...options, doing})
    } catch (cause) {
      if (hasCode(cause, 'not-found')) continue
      throw new CodedError(
        'failed-precondition',
        `Cannot unpack the image with "${snapshotter}": the snapshotter lost its data, and containers or other images are still based on them; remove these and the image, and pull again`,
        {cause},
      )
    }
  }
}

/**
 * Aborted a while after `signal`: a call that is abandoned at once may still make what nobody knows of, and could not be
 * told from one that makes it later.
 */
function lateSignal(signal: AbortSignal | undefined): Disposable & {readonly signal: AbortSignal} {
  const late = new AbortController()
  let timer: NodeJS.Timeout | undefined
  const start = () => {
    timer = setTimeout(() => late.abort(signal?.reason), PREPARE_GRACE_MS)
  }
  if (signal?.aborted) late.abort(signal.reason)
  else signal?.addEventListener('abort', start, {once: true})
  return {
    signal: late.signal,
    [Symbol.dispose]() {
      clearTimeout(timer)
      signal?.removeEventListener('abort', start)
    },
  }
}

/** What the snapshot of a layer gets of its annotations. */
export function inheritedLabels({annotations = {}}: Descriptor): Labels {
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
