// Checks an image through and through: documents, and every layer with everything in it.

import type {BulkCodec} from '../compression/codec.ts'
import {describeError, hasCode} from '../errors/coded-error.ts'
import type {Finding} from '../estargz/finding.ts'
import {readFooter} from '../estargz/open-layer.ts'
import type {TocImage} from '../external-toc/toc-image.ts'
import {
  isAttestation,
  type ManifestNode,
  type PlatformSelection,
  readConfig,
  readImageTree,
  requireImage,
} from '../image/image-tree.ts'
import type {ProgressSink} from '../io/progress.ts'
import type {BlobSource, CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {isConfigMediaType, isForeignLayer, layerCompressionOf} from '../oci/media-type.ts'
import {matchesPlatform, type Platform} from '../oci/platform.ts'
import {checkEmbeddedData, checkMediaType} from './check-descriptor.ts'
import {compareLayers} from './compare-layers.ts'
import {verifyLayer} from './verify-layer.ts'

export interface VerifyImageOptions extends CallOptions {
  readonly codec: BulkCodec
  readonly platforms: PlatformSelection
  readonly onProgress?: ProgressSink | undefined
  /** The image beside this one that holds the TOCs of layers that keep theirs outside; asked when one does. */
  readonly tocs?: TocImage | undefined
  /** The image that this one was made of: whatever its layers unpack to otherwise is a finding. */
  readonly against?: {readonly source: ImageSource; readonly temporaryDirectory: string} | undefined
}

export interface VerifiedImage {
  readonly root: Descriptor
  readonly manifests: readonly VerifiedManifest[]
  /** True when nothing is wrong with anything. */
  readonly sound: boolean
}

export interface VerifiedManifest {
  readonly digest: Digest
  /** What is wrong with it besides its layers. */
  readonly findings: readonly Finding[]
  readonly platform: Platform | undefined
  readonly layers: readonly VerifiedImageLayer[]
}

export interface VerifiedImageLayer {
  readonly descriptor: Descriptor
  /** As its footer names it; undefined for a layer that cannot be read lazily. */
  readonly format: string | undefined
  readonly counts: {readonly files: number; readonly chunks: number}
  readonly findings: readonly Finding[]
}

/**
 * Verifies the selected platforms of an image. What is wrong with a layer is a finding; documents that cannot be used
 * are `corrupt`, because nothing below them can be checked.
 */
export async function verifyImage(source: ImageSource, options: VerifyImageOptions): Promise<VerifiedImage> {
  const {content} = source
  const tree = await readImageTree(content, await source.resolve(options), options.platforms, options)
  const manifests: VerifiedManifest[] = []
  const images = tree.manifests.filter(
    node => !isAttestation(node.descriptor) && isConfigMediaType(node.manifest.config.mediaType),
  )
  requireImage(tree.manifests, 'verify')
  const sourceOf = await readSources(options)
  for (const node of images) {
    const verified = await verifyManifest(content, node, options)
    manifests.push(
      sourceOf ? await withDifferences(verified, content, node, sourceOf(node), options) : verified,
    )
  }
  const sound = manifests.every(({findings, layers}) =>
    [findings, ...layers.map(layer => layer.findings)].every(found => found.length === 0),
  )
  return {root: tree.root, manifests, sound}
}

/** Finds the manifest of the source image for one of this one: that of its platform. */
async function readSources(
  options: VerifyImageOptions,
): Promise<((node: ManifestNode) => ManifestNode | undefined) | undefined> {
  const {against, platforms} = options
  if (!against) return undefined
  const {source} = against
  const {manifests} = await readImageTree(source.content, await source.resolve(options), platforms, options)
  const images = manifests.filter(node => !isAttestation(node.descriptor))
  return ({platform}) => {
    const same = images.find(node => platform && node.platform && matchesPlatform(platform, node.platform))
    return same ?? (images.length === 1 ? images[0] : undefined)
  }
}

/** Compares layer by layer with the source, if it has as many. */
async function withDifferences(
  verified: VerifiedManifest,
  content: ContentStore,
  node: ManifestNode,
  source: ManifestNode | undefined,
  options: VerifyImageOptions,
): Promise<VerifiedManifest> {
  const {source: from, temporaryDirectory} = options.against!
  const wrong = (message: string): VerifiedManifest => ({
    ...verified,
    findings: [...verified.findings, {kind: 'source', message}],
  })
  if (!source) return wrong('The source image has nothing for this platform')
  const [count, wanted] = [node.manifest.layers.length, source.manifest.layers.length]
  if (count !== wanted) return wrong(`The image has ${count} layers, its source ${wanted}`)
  const config = await readConfig(content, node.manifest, options)
  const sourceConfig = await readConfig(from.content, source.manifest, options)
  const layers: VerifiedImageLayer[] = []
  for (const [index, layer] of verified.layers.entries()) {
    const differences = await compareLayers(
      {
        content: from.content,
        layer: source.manifest.layers[index]!,
        diffId: sourceConfig.rootfs.diff_ids[index]!,
      },
      {content, layer: layer.descriptor, diffId: config.rootfs.diff_ids[index]!},
      {temporaryDirectory, signal: options.signal},
    )
    layers.push({...layer, findings: [...layer.findings, ...differences]})
  }
  return {...verified, layers}
}

async function verifyManifest(
  content: ContentStore,
  node: ManifestNode,
  options: VerifyImageOptions,
): Promise<VerifiedManifest> {
  const {manifest} = node
  const config = await readConfig(content, manifest, options)
  const layers: VerifiedImageLayer[] = []
  for (const [index, descriptor] of manifest.layers.entries()) {
    const label = `layer ${index + 1}/${manifest.layers.length} ${descriptor.digest.slice(0, 19)}`
    layers.push(await verifyOneLayer(content, descriptor, config.rootfs.diff_ids[index]!, label, options))
  }
  const findings = [node.descriptor, manifest.config].flatMap(checkEmbeddedData)
  return {digest: node.descriptor.digest, platform: node.platform, findings, layers}
}

async function verifyOneLayer(
  content: ContentStore,
  descriptor: Descriptor,
  diffId: Digest,
  label: string,
  options: VerifyImageOptions,
): Promise<VerifiedImageLayer> {
  const {codec, signal} = options
  const {digest: id, size: totalBytes} = descriptor
  const onBytes = (doneBytes: number) =>
    options.onProgress?.({id, label, phase: 'running', doneBytes, totalBytes})
  if (isForeignLayer(descriptor.mediaType)) return verifyForeignLayer(content, descriptor, options)
  if (layerCompressionOf(descriptor.mediaType) === undefined) {
    const message = `The media type ${JSON.stringify(descriptor.mediaType)} is not that of a layer`
    return {descriptor, format: undefined, counts: {files: 0, chunks: 0}, findings: [{kind: 'blob', message}]}
  }
  onBytes(0)
  const verified = await openAndVerify(content, descriptor, options.tocs, {codec, diffId, signal, onBytes})
  const problems = verified.findings.length
  const note = problems === 0 ? {} : {note: `${problems} problems`}
  options.onProgress?.({id, label, phase: 'done', doneBytes: totalBytes, ...note})
  return {descriptor, ...verified}
}

/** A layer that must not be distributed is elsewhere as a rule; where it says no such place, it must be here. */
async function verifyForeignLayer(
  content: ContentStore,
  descriptor: Descriptor,
  {signal}: CallOptions,
): Promise<VerifiedImageLayer> {
  const findings = checkEmbeddedData(descriptor)
  const isElsewhere = (descriptor.urls ?? []).length > 0
  try {
    if (!isElsewhere || (await content.info(descriptor, {signal}))) {
      await using blob = await content.open(descriptor, {signal})
      // Digest and size are checked while it is read.
      for await (const _ of blob.stream({signal}));
    }
  } catch (error) {
    if (!hasCode(error, 'not-found', 'corrupt')) throw error
    findings.push({kind: 'blob', message: describeError(error)})
  }
  return {descriptor, format: undefined, counts: {files: 0, chunks: 0}, findings}
}

/** A layer that is missing, or not what its descriptor says, is a finding too: the others are still worth a look. */
async function openAndVerify(
  content: ContentStore,
  descriptor: Descriptor,
  tocs: TocImage | undefined,
  options: Parameters<typeof verifyLayer>[2],
): ReturnType<typeof verifyLayer> {
  try {
    await using blob = await content.open(descriptor, options)
    const isOutside = tocs && (await keepsTocOutside(blob, descriptor, options))
    const externalToc = isOutside ? await findToc(tocs, descriptor, options) : undefined
    const verified = await verifyLayer(blob, descriptor, {...options, externalToc})
    const besides = [...checkEmbeddedData(descriptor), ...(await checkMediaType(blob, descriptor, options))]
    return {...verified, findings: [...besides, ...verified.findings]}
  } catch (error) {
    if (!hasCode(error, 'not-found', 'corrupt')) throw error
    const findings: Finding[] = [{kind: 'blob', message: describeError(error)}]
    return {findings, format: undefined, counts: {files: 0, chunks: 0}}
  }
}

/** What else is wrong with a footer is for the verification to say. */
async function keepsTocOutside(
  blob: BlobSource,
  {digest}: Descriptor,
  {signal}: CallOptions,
): Promise<boolean> {
  try {
    return (await readFooter(blob, {where: digest, signal})).tocOffset === undefined
  } catch (error) {
    if (hasCode(error, 'corrupt', 'unsupported')) return false
    throw error
  }
}

/** Undefined when it is nowhere, which the verification of the layer reports. */
async function findToc(tocs: TocImage, {digest}: Descriptor, {signal}: CallOptions) {
  return tocs.tocOf(digest, {signal}).catch(error => {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  })
}
