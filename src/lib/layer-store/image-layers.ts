// Which layer of an image somebody means who gives its reference and a digest.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import {type ManifestNode, type PlatformSelection, readConfig, readImageTree} from '../image/image-tree.ts'
import {raceAbort} from '../io/race-abort.ts'
import {encodeLabels, type LayerRequest} from '../layer/layer-request.ts'
import {tocDigestOf, UNCOMPRESSED_SIZE, ZSTD_CHUNKED_CHECKSUM} from '../oci/annotations.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {hostPlatform} from '../oci/platform.ts'
import {PREFETCH_PLAN} from '../prefetch/prefetch-plan.ts'
import {readVouchedTocDigest} from '../zstdchunked/vouched-toc.ts'
import type {StoredLayer, StoredLayerName} from './stored-layer.ts'

export interface ImageLayersOptions {
  /** Opens an image by its reference. */
  readonly openImage: (reference: string) => ImageSource
  /** A clock, milliseconds. */
  readonly now: () => number
}

export interface ImageLayers {
  /**
   * The layer. Throws `not-found` when the image has none of this digest, `unsupported` when nothing says what its TOC is,
   * `corrupt` when that is not true.
   */
  find(name: StoredLayerName, options: CallOptions): Promise<StoredLayer>
}

/** Within which an image's documents must have come, milliseconds. */
const TIMEOUT_MS = 30_000
/** How long an image is taken for what it was: its layers are asked for within moments, and a tag may move later. */
const KEEP_MS = 60_000

/** Manifests of a multi-platform image that are looked at. */
const MAX_MANIFESTS = 64

/** A layer of an image, with what is known of it. */
interface FoundLayer extends Omit<StoredLayer, 'name' | 'tocDigest' | 'labels'> {
  readonly descriptor: Descriptor
  /** What it is to be mounted by. */
  readonly request: LayerRequest
  /** Of the compressed TOC, by which Podman looks for layers of zstd:chunked. */
  readonly checksum: Digest | undefined
}

interface KnownLayers {
  readonly since: number
  readonly layers: Promise<readonly FoundLayer[]>
}

/** The platform of this machine, which is nearly always meant, or all others too. */
type Extent = 'host' | 'all'

export function createImageLayers(options: ImageLayersOptions): ImageLayers {
  const known = new Map<string, KnownLayers>()

  function layersOf(reference: string, extent: Extent, notBefore: number): KnownLayers {
    for (const [key, {since}] of known) if (options.now() - since > KEEP_MS) known.delete(key)
    const key = `${extent} ${reference}`
    const found = known.get(key)
    if (found && found.since >= notBefore) return found
    const fresh = {since: options.now(), layers: readLayers(reference, extent, options)}
    known.set(key, fresh)
    fresh.layers.catch(() => known.get(key) === fresh && known.delete(key))
    return fresh
  }

  async function search(
    {reference, name}: StoredLayerName,
    notBefore: number,
    {signal}: CallOptions,
  ): Promise<FoundLayer | undefined> {
    for (const extent of ['host', 'all'] as const) {
      const {layers} = layersOf(reference, extent, notBefore)
      const found = (await raceAbort(layers, signal)).find(({digest, request, checksum}) =>
        [digest, request.tocDigest, checksum].includes(name),
      )
      if (found) return found
    }
    return undefined
  }

  return {
    find: async (wanted, call) => {
      const {reference, name} = wanted
      const started = options.now()
      // If there is none the tag may have moved, and whoever asks has seen where to.
      const layer = (await search(wanted, 0, call)) ?? (await search(wanted, started, call))
      if (!layer) throw new CodedError('not-found', `Cannot serve ${name}: ${reference} has no such layer`)
      const {request, checksum: _, descriptor: __, ...known} = layer
      const tocDigest = await requireTocDigest(layer, options, call)
      return {...known, tocDigest, name, labels: encodeLabels({...request, tocDigest})}
    },
  }
}

/** What the manifest says, or what it vouches for by its checksum of the compressed TOC. */
async function requireTocDigest(
  {request, checksum, descriptor}: FoundLayer,
  {openImage}: ImageLayersOptions,
  {signal}: CallOptions,
): Promise<Digest> {
  if (request.tocDigest) return request.tocDigest
  if (checksum === undefined) {
    throw new CodedError(
      'unsupported',
      `Cannot serve layer ${descriptor.digest} lazily: it has no TOC whose digest its manifest gives; convert the image with "ctr-remote image convert"`,
    )
  }
  const limit = AbortSignal.timeout(TIMEOUT_MS)
  const call = {signal: signal ? AbortSignal.any([signal, limit]) : limit}
  await using image = openImage(request.reference)
  await using blob = await image.content.open(descriptor, call)
  return await readVouchedTocDigest(blob, descriptor, checksum, call)
}

async function readLayers(
  reference: string,
  extent: Extent,
  {openImage}: ImageLayersOptions,
): Promise<readonly FoundLayer[]> {
  const signal = AbortSignal.timeout(TIMEOUT_MS)
  await using image = openImage(reference)
  const selection = extent === 'host' ? [hostPlatform()] : 'all'
  const root = await image.resolve({signal})
  const manifests = await manifestsOf(image, root, selection, {signal})
  const found = await Promise.all(
    manifests.slice(0, MAX_MANIFESTS).map(node => layersOfManifest(reference, node, image, {signal})),
  )
  return found.flat()
}

/** None, when the image has none for the platform. */
async function manifestsOf(
  {content}: ImageSource,
  root: Descriptor,
  selection: PlatformSelection,
  call: CallOptions,
): Promise<readonly ManifestNode[]> {
  try {
    return (await readImageTree(content, root, selection, call)).manifests
  } catch (error) {
    if (selection !== 'all' && hasCode(error, 'not-found')) return []
    throw error
  }
}

async function layersOfManifest(
  reference: string,
  {manifest}: ManifestNode,
  {content}: ImageSource,
  call: CallOptions,
): Promise<FoundLayer[]> {
  const config = await readConfig(content, manifest, call)
  const neighbours = manifest.layers.map(layer => ({
    digest: layer.digest,
    tocDigest: tocDigestIn(layer),
    size: layer.size,
    prefetchPlan: layer.annotations?.[PREFETCH_PLAN],
    urls: layer.urls ?? [],
  }))
  return manifest.layers.map((layer, index) => {
    const {digest, mediaType, size, urls = []} = layer
    const request: LayerRequest = {
      reference,
      digest,
      tocDigest: tocDigestIn(layer),
      size,
      urls,
      neighbours,
      prefetchSize: undefined,
      prefetchPlan: layer.annotations?.[PREFETCH_PLAN],
      isPlanAwaited: false,
      skipVerify: false,
      command: undefined,
    }
    return {
      descriptor: layer,
      request,
      reference,
      digest,
      checksum: digestIn(layer, ZSTD_CHUNKED_CHECKSUM),
      diffId: config.rootfs.diff_ids[index]!,
      compressedSize: size,
      uncompressedSize: uncompressedSizeOf(layer),
      mediaType,
    }
  })
}

function digestIn({annotations}: Descriptor, key: string): Digest | undefined {
  const digest = annotations?.[key]
  return isDigest(digest) ? digest : undefined
}

function tocDigestIn({annotations}: Descriptor): Digest | undefined {
  const digest = tocDigestOf(annotations)
  return isDigest(digest) ? digest : undefined
}

function uncompressedSizeOf({annotations}: Descriptor): number | undefined {
  const text = annotations?.[UNCOMPRESSED_SIZE] ?? ''
  return /^\d{1,15}$/.test(text) ? Number(text) : undefined
}
