// What a lazy start of an image fetches, and why: by layer and file, from its documents and TOCs alone.

import {describeError, hasCode} from '../errors/coded-error.ts'
import type {LayerFile} from '../estargz/index-toc.ts'
import {type OpenLayer, openLayer, readFooter} from '../estargz/open-layer.ts'
import type {TocImage} from '../external-toc/toc-image.ts'
import {
  isAttestation,
  type ManifestNode,
  type PlatformSelection,
  readImageTree,
  requireImage,
} from '../image/image-tree.ts'
import {tocDigestOf} from '../oci/annotations.ts'
import type {BlobSource, CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import type {ImageSource} from '../oci/image-store.ts'
import {hostPlatform, matchesPlatform, type Platform} from '../oci/platform.ts'
import {PREFETCH_PLAN, type PrefetchPlan, parsePrefetchPlan} from '../prefetch/prefetch-plan.ts'
import type {LayerReads} from '../prefetch/read-ranges.ts'
import {profiledFiles} from '../record/profile-file.ts'
import type {RecordEntry} from '../record/record-file.ts'

export interface ExplainOptions extends CallOptions {
  readonly platforms: PlatformSelection
  /** The image beside this one that holds the TOCs of layers that keep theirs outside. */
  readonly tocs?: TocImage | undefined
  /** What is read in fact, to compare with what is prefetched. */
  readonly profile?: readonly RecordEntry[] | undefined
}

export interface ExplainedImage {
  readonly digest: Digest
  readonly platform: Platform | undefined
  /** Bottom first. */
  readonly layers: readonly ExplainedLayer[]
  /** Whether a profile was given, so that what is wasted and missed is known. */
  readonly isCompared: boolean
}

/** Sizes are compressed bytes, of whole streams. */
export interface ExplainedLayer {
  readonly digest: Digest
  readonly size: number
  /** As its footer names it; undefined for a layer that cannot be read lazily, for this reason. */
  readonly format: string | undefined
  readonly problem: string | undefined
  /** What is fetched to open it. */
  readonly tocBytes: number
  /** What readers fetch before a start who go by the landmark, and who go by the plan. */
  readonly landmarkBytes: number
  readonly plan: PrefetchPlan | undefined
  readonly planBytes: number
  /** What our own reader prefetches. */
  readonly prefetchBytes: number
  /** With a profile: what it reads, how much of that is not prefetched, and what is prefetched for nothing. */
  readonly readBytes: number
  readonly missedBytes: number
  readonly wastedBytes: number
  /** Files of which something is prefetched or read, those with most of it first. */
  readonly files: readonly ExplainedFile[]
}

export interface ExplainedFile {
  readonly path: string
  /** Uncompressed, and compressed with what is stored with it. */
  readonly size: number
  readonly storedBytes: number
  readonly prefetchBytes: number
  /** When it is read first, milliseconds after the start, where a plan or a profile says. */
  readonly firstMs: number | undefined
  readonly readBytes: number
  readonly missedBytes: number
}

/** A stream of the blob. */
interface Stream {
  readonly offset: number
  readonly bytes: number
  readonly isPrefetched: boolean
  isRead: boolean
}

/** Explains one platform of an image: this machine's, if it is among those selected, else the first. */
export async function explainImage(source: ImageSource, options: ExplainOptions): Promise<ExplainedImage> {
  const {content} = source
  const tree = await readImageTree(content, await source.resolve(options), options.platforms, options)
  requireImage(tree.manifests, 'explain')
  const images = tree.manifests.filter(({descriptor}) => !isAttestation(descriptor))
  const node = images.find(isOurs) ?? images[0]!
  const {descriptor, platform, manifest} = node
  const layers: ExplainedLayer[] = []
  for (const [layerIndex, layer] of manifest.layers.entries()) {
    const image = {manifestDigest: descriptor.digest, layerIndex}
    const reads = options.profile && profiledFiles(options.profile, image)
    // Of what a record names everything is read.
    const read = reads && (reads.reads ?? new Map(reads.paths.map(path => [path, [WHOLE]])))
    layers.push(await explainLayer(content, layer, read, options))
  }
  return {digest: descriptor.digest, platform, layers, isCompared: options.profile !== undefined}
}

const WHOLE = {offset: 0, end: Number.MAX_SAFE_INTEGER, atMs: 0}

function isOurs({platform}: ManifestNode): boolean {
  return platform !== undefined && matchesPlatform(hostPlatform(), platform)
}

async function explainLayer(
  content: ContentStore,
  descriptor: Descriptor,
  reads: LayerReads | undefined,
  options: ExplainOptions,
): Promise<ExplainedLayer> {
  try {
    await using blob = await content.open(descriptor, options)
    return explainOpenLayer(await open(blob, descriptor, options), descriptor, reads)
  } catch (error) {
    if (!hasCode(error, 'corrupt', 'unsupported', 'not-found')) throw error
    const {digest, size} = descriptor
    return {...NOTHING, digest, size, problem: describeError(error)}
  }
}

const NOTHING = {
  format: undefined,
  tocBytes: 0,
  landmarkBytes: 0,
  plan: undefined,
  planBytes: 0,
  prefetchBytes: 0,
  readBytes: 0,
  missedBytes: 0,
  wastedBytes: 0,
  files: [],
}

async function open(
  blob: BlobSource,
  {digest, annotations}: Descriptor,
  {tocs, signal}: ExplainOptions,
): Promise<OpenLayer> {
  const where = `layer ${digest}`
  const {tocOffset} = await readFooter(blob, {where, annotations, signal})
  const externalToc = tocOffset === undefined ? await tocs?.tocOf(digest, {signal}) : undefined
  const tocDigest = tocDigestOf(annotations)
  return await openLayer(blob, {
    where,
    annotations,
    externalToc,
    tocDigest: isDigest(tocDigest) ? tocDigest : undefined,
    signal,
  })
}

function explainOpenLayer(
  layer: OpenLayer,
  {digest, size, annotations}: Descriptor,
  reads: LayerReads | undefined,
): ExplainedLayer {
  const {dataEnd, prefetchSize, decompressor} = layer
  const plan = planIn(annotations?.[PREFETCH_PLAN])
  const streams = new Map<number, Stream>()
  const isPlanned = (offset: number) => plan?.some(range => range.offset <= offset && offset < range.end)
  for (const {chunks} of layer.files.values()) {
    for (const {offset, end} of chunks) {
      if (streams.has(offset)) continue
      const isPrefetched = plan ? isPlanned(offset) === true : offset < prefetchSize
      streams.set(offset, {offset, bytes: end - offset, isPrefetched, isRead: false})
    }
  }
  for (const [path, ranges] of reads ?? []) {
    for (const {chunkOffset, size: chunkSize, offset} of layer.files.get(path)?.chunks ?? []) {
      const isRead = ranges.some(range => range.offset < chunkOffset + chunkSize && range.end > chunkOffset)
      if (isRead) streams.get(offset)!.isRead = true
    }
  }
  const sum = (isWanted: (stream: Stream) => boolean) =>
    [...streams.values()].filter(isWanted).reduce((bytes, stream) => bytes + stream.bytes, 0)
  const files = [...layer.files.values()].flatMap(file => explainFile(file, streams, plan, reads) ?? [])
  return {
    digest,
    size,
    format: decompressor.name,
    problem: undefined,
    tocBytes: size - dataEnd,
    landmarkBytes: prefetchSize,
    plan,
    planBytes: plan?.reduce((bytes, range) => bytes + range.end - range.offset, 0) ?? 0,
    prefetchBytes: plan ? sum(({isPrefetched}) => isPrefetched) : prefetchSize,
    readBytes: sum(({isRead}) => isRead),
    missedBytes: sum(({isRead, isPrefetched}) => isRead && !isPrefetched),
    wastedBytes: reads ? sum(({isRead, isPrefetched}) => isPrefetched && !isRead) : 0,
    files: files.sort(
      (a, b) =>
        b.prefetchBytes + b.missedBytes - a.prefetchBytes - a.missedBytes || (a.path < b.path ? -1 : 1),
    ),
  }
}

/** A damaged plan is none: readers go by the landmark then. */
function planIn(text: string | undefined): PrefetchPlan | undefined {
  try {
    return text === undefined ? undefined : parsePrefetchPlan(text)
  } catch (error) {
    if (hasCode(error, 'corrupt', 'unsupported')) return undefined
    throw error
  }
}

/** Undefined for a file of which nothing is prefetched or read. */
function explainFile(
  {path, entry, chunks}: LayerFile,
  streams: ReadonlyMap<number, Stream>,
  plan: PrefetchPlan | undefined,
  reads: LayerReads | undefined,
): ExplainedFile | undefined {
  const own = [...new Set(chunks.map(({offset}) => offset))].map(offset => streams.get(offset)!)
  if (!own.some(({isPrefetched, isRead}) => isPrefetched || isRead)) return undefined
  const sum = (isWanted: (stream: Stream) => boolean) =>
    own.filter(isWanted).reduce((bytes, stream) => bytes + stream.bytes, 0)
  const planned = (plan ?? []).filter(range =>
    own.some(({offset}) => range.offset <= offset && offset < range.end),
  )
  const times = [...planned, ...(reads?.get(path) ?? [])].map(({atMs}) => atMs)
  return {
    path,
    size: entry.size ?? 0,
    storedBytes: sum(() => true),
    prefetchBytes: sum(({isPrefetched}) => isPrefetched),
    firstMs: times.length > 0 ? Math.min(...times) : undefined,
    readBytes: sum(({isRead}) => isRead),
    missedBytes: sum(({isRead, isPrefetched}) => isRead && !isPrefetched),
  }
}
