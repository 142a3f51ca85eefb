// Converts an image: every layer through a layer conversion, then configs, manifests and index rewritten to match.

import pLimit from 'p-limit'
import {copyBlob, writeDocument} from '../copy/copy-image.ts'
import {CodedError} from '../errors/coded-error.ts'
import {
  attestationsOf,
  type ImageTree,
  isAttestation,
  type ManifestNode,
  type PlatformSelection,
  readConfig,
  readImage,
  requireImage,
} from '../image/image-tree.ts'
import type {ProgressSink} from '../io/progress.ts'
import {settleAll} from '../io/settle-all.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import {type Descriptor, isRecord, withContent} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageSource, ImageTarget} from '../oci/image-store.ts'
import {type ImageConfig, type ImageManifest, toOciMediaType} from '../oci/manifest.ts'
import {
  DOCKER_CONFIG,
  isConfigMediaType,
  isDockerMediaType,
  isForeignLayer,
  layerCompressionOf,
  OCI_CONFIG,
  toOciLayerType,
} from '../oci/media-type.ts'
import {formatPlatform, type Platform} from '../oci/platform.ts'
import type {OrderedFiles} from './convert-layer.ts'

/** One layer on its way through a conversion. */
export interface LayerToConvert {
  readonly descriptor: Descriptor
  /** The DiffID that the image config claims; a conversion verifies it. */
  readonly diffId: Digest
  /** Digest of the source manifest, and the layer's place in it, bottom first. */
  readonly manifestDigest: Digest
  readonly layerIndex: number
  /** The media-type family that the new descriptor belongs to. */
  readonly family: 'oci' | 'docker'
  readonly content: ContentStore
  readonly target: ContentStore
  readonly signal: AbortSignal
  readonly onBytes: (doneBytes: number, totalBytes: number) => void
}

/** What a layer became. */
export interface LayerResult {
  readonly descriptor: Descriptor
  readonly diffId: Digest
  /** True when the source's own bytes serve (`--reuse`, or found converted before). */
  readonly reused: boolean
  /** Paths asked to come first, as counted in this layer; absent for a layer that was passed through. */
  readonly prioritized?: OrderedFiles
  /** The TOC of a layer that keeps it outside, as a layer of the TOC image (see toc-image.ts). */
  readonly detachedToc?: Uint8Array
}

/** Converts one layer into the target store. Two layers with the same `key` are converted once. */
export interface LayerConversion {
  key(layer: LayerToConvert): string
  convert(layer: LayerToConvert): Promise<LayerResult>
}

export interface ConvertImageOptions extends CallOptions {
  readonly platforms: PlatformSelection
  /** The image, where the caller has read it: what a name stands for may change in between. */
  readonly tree?: ImageTree | undefined
  /** Turns Docker media types into OCI ones; without it an image keeps its family. */
  readonly oci: boolean
  readonly layers: LayerConversion
  /** Layers converted at once; the caller knows the machine. */
  readonly parallelLayers: number
  readonly onProgress?: ProgressSink | undefined
  /** Called when everything is written and nothing is visible: publishes what the image needs beside it. */
  readonly beforePublish?: ((manifests: readonly ConvertedManifest[]) => Promise<void>) | undefined
}

/** One converted manifest. */
export interface ConvertedManifest {
  readonly source: Digest
  readonly descriptor: Descriptor
  readonly platform: Platform | undefined
  readonly layers: readonly ConvertedLayer[]
}

export interface ConvertedLayer extends LayerResult {
  readonly source: Descriptor
}

export interface ConvertedImage {
  readonly root: Descriptor
  readonly manifests: readonly ConvertedManifest[]
  /** Attestations of these manifests, which the new image does not have. */
  readonly droppedAttestations: readonly Descriptor[]
}

/**
 * Converts the selected platforms of an image and publishes the result. An index keeps only what was converted;
 * attestations are dropped, because they vouch for bytes that the new image does not have. Nothing is visible under
 * the target's name before everything is written.
 */
export async function convertImage(
  source: ImageSource,
  target: ImageTarget,
  options: ConvertImageOptions,
): Promise<ConvertedImage> {
  const tree = options.tree ?? (await readImage(source, options.platforms, options))
  const manifests = await convertManifests(source.content, target.content, tree, options)
  const root = await writeRoot(target.content, tree, manifests, options)
  await options.beforePublish?.(manifests)
  options.signal?.throwIfAborted()
  await target.publish(root, options)
  return {root, manifests, droppedAttestations: attestationsOf(tree)}
}

/** What the parts of one conversion share. */
interface Run {
  readonly from: ContentStore
  readonly to: ContentStore
  readonly options: ConvertImageOptions
  /** Stops every part when one fails; `signal` also follows the caller's. */
  readonly abort: AbortController
  readonly signal: AbortSignal
  readonly convertOnce: (layer: LayerToConvert) => Promise<LayerResult>
}

async function convertManifests(
  from: ContentStore,
  to: ContentStore,
  tree: ImageTree,
  options: ConvertImageOptions,
): Promise<ConvertedManifest[]> {
  const abort = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal
  const run: Run = {from, to, options, abort, signal, convertOnce: onceByKey(options, signal)}
  const images = tree.manifests.filter(node => !isAttestation(node.descriptor))
  requireImage(images, 'convert')
  return settleAll(
    images.map(node =>
      isConfigMediaType(node.manifest.config.mediaType)
        ? convertManifest(run, node)
        : passManifestThrough(run, node),
    ),
    abort,
  )
}

/** Single-flight by key, with a bound on how many run at once. */
function onceByKey(options: ConvertImageOptions, signal: AbortSignal): Run['convertOnce'] {
  const limit = pLimit(options.parallelLayers)
  const started = new Map<string, Promise<LayerResult>>()
  return layer => {
    const key = options.layers.key(layer)
    const running = started.get(key)
    if (running) return running
    const result = limit(() => {
      signal.throwIfAborted()
      return options.layers.convert(layer)
    })
    started.set(key, result)
    return result
  }
}

async function convertManifest(run: Run, node: ManifestNode): Promise<ConvertedManifest> {
  const {manifest} = node
  const config = await readConfig(run.from, manifest, run)
  const family = run.options.oci || !isDockerMediaType(manifest.mediaType) ? 'oci' : 'docker'
  const layers = await settleAll(
    manifest.layers.map((descriptor, layerIndex) => {
      const label = layerLabel(run, node, layerIndex)
      return convertLayerOf(run, label, {
        descriptor,
        diffId: config.rootfs.diff_ids[layerIndex]!,
        manifestDigest: node.descriptor.digest,
        layerIndex,
        family,
        content: run.from,
        target: run.to,
        signal: run.signal,
        onBytes: (doneBytes, totalBytes) => {
          run.options.onProgress?.({id: descriptor.digest, label, phase: 'running', doneBytes, totalBytes})
        },
      })
    }),
    run.abort,
  )
  const descriptor = await writeManifest(run, node, config, layers, family)
  return {source: node.descriptor.digest, descriptor, platform: node.platform, layers}
}

async function convertLayerOf(run: Run, label: string, layer: LayerToConvert): Promise<ConvertedLayer> {
  const {descriptor} = layer
  if (isForeignLayer(descriptor.mediaType) || layerCompressionOf(descriptor.mediaType) === undefined) {
    return passLayerThrough(layer)
  }
  const report: ProgressSink = event => run.options.onProgress?.(event)
  report({id: descriptor.digest, label, phase: 'waiting'})
  const result = await run.convertOnce(layer)
  report(
    result.reused
      ? {id: descriptor.digest, label, phase: 'skipped', note: 'reused without conversion'}
      : {id: descriptor.digest, label, phase: 'done', doneBytes: result.descriptor.size},
  )
  return {...result, source: descriptor}
}

function layerLabel(run: Run, node: ManifestNode, layerIndex: number): string {
  const platform = run.options.platforms === 'all' && node.platform ? `${formatPlatform(node.platform)} ` : ''
  const {layers} = node.manifest
  return `${platform}layer ${layerIndex + 1}/${layers.length} ${layers[layerIndex]!.digest.slice(0, 19)}`
}

/** A layer that we must not or cannot convert; a foreign one may be elsewhere, and is kept where it is here. */
async function passLayerThrough(layer: LayerToConvert): Promise<ConvertedLayer> {
  const {descriptor, diffId, content, target, family, signal} = layer
  const isHere =
    !isForeignLayer(descriptor.mediaType) || (await content.info(descriptor, {signal})) !== undefined
  if (isHere) await copyBlob(content, target, descriptor, {signal})
  const mediaType = family === 'oci' ? toOciLayerType(descriptor.mediaType) : descriptor.mediaType
  return {descriptor: {...descriptor, mediaType}, diffId, reused: true, source: descriptor}
}

/** An artifact (its config is no image config) is copied as it is. */
async function passManifestThrough(run: Run, node: ManifestNode): Promise<ConvertedManifest> {
  const {manifest, descriptor} = node
  const {signal} = run
  for (const blob of [manifest.config, ...manifest.layers, descriptor]) {
    await copyBlob(run.from, run.to, blob, {signal})
  }
  return {source: descriptor.digest, descriptor, platform: node.platform, layers: []}
}

async function writeManifest(
  run: Run,
  node: ManifestNode,
  config: ImageConfig,
  layers: readonly LayerResult[],
  family: 'oci' | 'docker',
): Promise<Descriptor> {
  const configType = family === 'oci' ? OCI_CONFIG : DOCKER_CONFIG
  const diffIds = layers.map(layer => layer.diffId)
  const configDescriptor = await writeConfig(run, node.manifest.config, config, diffIds, configType)
  const mediaType = family === 'oci' ? toOciMediaType(node.manifest.mediaType) : node.manifest.mediaType
  const manifest: ImageManifest = {
    ...node.manifest,
    mediaType,
    config: configDescriptor,
    layers: layers.map(layer => layer.descriptor),
  }
  return withContent(node.descriptor, await writeDocument(run.to, manifest, mediaType, run))
}

/**
 * Writes the config for new layers; one whose layers kept their DiffIDs is copied byte for byte. `Image` (in `config`
 * and Docker's `container_config`) names the parent image's id: it is cleared when the layers are no longer that
 * image's, as containerd does.
 */
async function writeConfig(
  run: Run,
  source: Descriptor,
  config: ImageConfig,
  diffIds: readonly Digest[],
  mediaType: string,
): Promise<Descriptor> {
  if (diffIds.every((diffId, index) => diffId === config.rootfs.diff_ids[index])) {
    const descriptor = {...source, mediaType}
    await copyBlob(run.from, run.to, descriptor, {signal: run.signal})
    return descriptor
  }
  const changed: Record<string, unknown> = {...config, rootfs: {...config.rootfs, diff_ids: diffIds}}
  for (const key of ['config', 'container_config']) {
    const part = changed[key]
    if (isRecord(part) && 'Image' in part) changed[key] = {...part, Image: ''}
  }
  return withContent(source, await writeDocument(run.to, changed, mediaType, run))
}

async function writeRoot(
  to: ContentStore,
  tree: ImageTree,
  manifests: readonly ConvertedManifest[],
  options: ConvertImageOptions,
): Promise<Descriptor> {
  const first = manifests[0]
  if (!first) throw new CodedError('not-found', 'Cannot convert an index that holds no image')
  if (!tree.index) {
    const {mediaType, digest, size} = first.descriptor
    return {mediaType, digest, size}
  }
  const mediaType = options.oci ? toOciMediaType(tree.index.mediaType) : tree.index.mediaType
  const index = {...tree.index, mediaType, manifests: manifests.map(manifest => manifest.descriptor)}
  return writeDocument(to, index, mediaType, options)
}
