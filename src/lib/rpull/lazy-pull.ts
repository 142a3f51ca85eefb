// Pulls an image without its layers: a remote snapshotter mounts them, and only those that it cannot mount are fetched.

import type {UnpackOptions} from '../containerd/unpack.ts'
import {copyBlob} from '../copy/copy-image.ts'
import {
  type ImageTree,
  isAttestation,
  type ManifestNode,
  type PlatformSelection,
  readConfig,
  readImageTree,
} from '../image/image-tree.ts'
import {rememberDocuments} from '../image/remember-documents.ts'
import type {ProgressSink} from '../io/progress.ts'
import {settleAll} from '../io/settle-all.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {isConfigMediaType} from '../oci/media-type.ts'
import {startCommandOf} from '../oci/start-command.ts'
import {createLayerFetch} from './layer-fetch.ts'
import {isLazySnapshot, lazyLabels, saysLazy} from './lazy-labels.ts'

/** An image for `LayerSnapshots.unpack`. */
export type UnpackRequest = Omit<UnpackOptions, 'snapshotter'>

/** A snapshotter of the target's containerd. */
export interface LayerSnapshots {
  readonly name: string
  /** False when it is known to mount nothing lazily. */
  readonly isRemote: boolean
  /** Brings the layers of one image into snapshots. */
  unpack(image: UnpackRequest): Promise<unknown>
  /** Says that layers will be asked for, where somebody listens: the first one has these labels. Never fails. */
  announce(labels: Readonly<Record<string, string>>, options: CallOptions): Promise<void>
  /** Why a layer was not mounted, where the snapshotter tells. */
  explain(layer: Descriptor, options: CallOptions): Promise<string | undefined>
}

export interface LazyPullOptions extends CallOptions {
  readonly platforms: PlatformSelection
  /** The image's name for the snapshotter, canonical. */
  readonly reference: string
  readonly skipContentVerify: boolean
  readonly snapshots: LayerSnapshots
  /** Told of everything that is going to be fetched. */
  readonly onFetch?: ((descriptor: Descriptor) => void) | undefined
  /** Told of each layer as soon as it is known whether it is lazy. */
  readonly onLayer?: ((layer: PulledLayer) => void) | undefined
  readonly onProgress?: ProgressSink | undefined
}

/** A layer: mounted lazily, unpacked already before, or fetched whole, and why. */
export interface PulledLayer {
  readonly descriptor: Descriptor
  /** Its place, bottom first, and how many there are. */
  readonly index: number
  readonly count: number
  readonly state: 'lazy' | 'present' | 'fetched'
  readonly reason?: string
}

export interface LazilyPulledImage {
  readonly root: Descriptor
  readonly layers: readonly PulledLayer[]
}

/**
 * Pulls an image and publishes it under the target's name. Manifests and configs are verified and kept; of the layers,
 * only those are fetched that the snapshotter does not mount by itself. What fails leaves no snapshot half made.
 */
export async function pullLazily(
  source: ImageSource,
  target: ImageTarget,
  options: LazyPullOptions,
): Promise<LazilyPulledImage> {
  const documents = rememberDocuments(source.content, options.onFetch)
  const root = await source.resolve(options)
  const tree = await readImageTree(documents, root, options.platforms, options)
  const abort = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal
  const copies = startCopies(documents, target.content, documentsOf(tree), signal)
  const layers: PulledLayer[] = []
  async function pullManifests(): Promise<void> {
    // One image after the other: a snapshotter's attention is better not shared.
    for (const node of tree.manifests.filter(isRunnable)) {
      const configReady = () => copies.get(node.manifest.config.digest)!
      layers.push(...(await pullLayers(documents, target.content, node, {...options, signal, configReady})))
    }
  }
  const link = async () => {
    await Promise.all(copies.values())
    await target.prepare?.(root, {signal})
  }
  await settleAll<unknown>([pullManifests(), link(), ...copies.values()], abort)
  await target.publish(root, options)
  return {root, layers}
}

/** What is kept of an image besides its layers. */
function documentsOf({root, nestedIndexes, manifests}: ImageTree): Descriptor[] {
  return [
    root,
    ...nestedIndexes,
    ...manifests.flatMap(({descriptor, manifest}) => [descriptor, manifest.config]),
  ]
}

function startCopies(
  from: ContentStore,
  to: ContentStore,
  documents: readonly Descriptor[],
  signal: AbortSignal,
): ReadonlyMap<Digest, Promise<unknown>> {
  const copies = new Map<Digest, Promise<unknown>>()
  for (const document of documents) {
    if (!copies.has(document.digest)) copies.set(document.digest, copyBlob(from, to, document, {signal}))
  }
  return copies
}

/** Images for Linux: containerd here could mount nothing else. */
export function isRunnable({descriptor, manifest, platform}: ManifestNode): boolean {
  return (
    isConfigMediaType(manifest.config.mediaType) && !isAttestation(descriptor) && platform?.os === 'linux'
  )
}

async function pullLayers(
  from: ContentStore,
  to: ContentStore,
  {descriptor, manifest}: ManifestNode,
  options: LazyPullOptions & {
    readonly signal: AbortSignal
    /** Resolves when the config is in `to`. */
    readonly configReady: () => Promise<unknown>
  },
): Promise<PulledLayer[]> {
  const {snapshots, skipContentVerify, signal} = options
  const {layers} = manifest
  const canBeLazy = (layer: Descriptor) => mayBeLazy(layer, {snapshots, skipContentVerify})
  const config = await readConfig(from, manifest, {signal})
  const {reference} = options
  const command = startCommandOf(config)
  const image = {reference, manifestDigest: descriptor.digest, layers, skipContentVerify, command}
  await using fetch = createLayerFetch(from, to, {...options, layers, mayBeLazy: canBeLazy})
  const pulled: PulledLayer[] = []
  const settle = (index: number, state: PulledLayer['state'], reason?: string) => {
    // An attempt that is made again finds present what the last one fetched.
    if (pulled[index]) return
    const layer = {descriptor: layers[index]!, index, count: layers.length, state}
    pulled[index] = reason === undefined ? layer : {...layer, reason}
    options.onLayer?.(pulled[index])
  }
  await snapshots.unpack({
    manifest,
    config,
    layerLabels: index => lazyLabels(image, index),
    async contentReady(content, place) {
      if (place === 'config') return void (await options.configReady())
      const explained = whyNotLazy(content, canBeLazy(content), options)
      await Promise.all([fetch.need(place), explained.then(reason => settle(place, 'fetched', reason))])
    },
    onLayer(index, fate) {
      if (fate.kind === 'applied') return
      fetch.drop(index)
      settle(index, isLazySnapshot(fate.labels) ? 'lazy' : 'present')
    },
    onProgress(event) {
      // Nothing is done for a layer that is there.
      if (event.phase !== 'skipped') options.onProgress?.(event)
    },
    signal,
  })
  return pulled
}

/** Whether a snapshotter may mount a layer by itself. */
export function mayBeLazy(
  layer: Descriptor,
  {snapshots, skipContentVerify}: Pick<LazyPullOptions, 'snapshots' | 'skipContentVerify'>,
): boolean {
  return snapshots.isRemote && (saysLazy(layer) || skipContentVerify)
}

async function whyNotLazy(
  layer: Descriptor,
  canBeLazy: boolean,
  {snapshots, signal}: LazyPullOptions,
): Promise<string> {
  if (!snapshots.isRemote) return `the snapshotter "${snapshots.name}" mounts no layers by itself`
  if (!canBeLazy) return 'it is neither eStargz nor zstd:chunked, or lost the annotation that says so'
  const told = await snapshots.explain(layer, {signal})
  return told ?? `the snapshotter "${snapshots.name}" did not mount it; its log says why`
}
