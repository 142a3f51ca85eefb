// Reads lazily readable layers: footer -> TOC -> files, each checked before it is believed. Runs wherever JavaScript does.

import type {MemberKind} from '../compression/codec.ts'
import type {Decompressor, Footer} from '../compression/layer-format.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {TOC_DIGEST} from '../oci/annotations.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {ZSTD_DECOMPRESSORS} from '../zstdchunked/decompressor.ts'
import {EXTERNAL_TOC_ESTARGZ, GZIP_DECOMPRESSORS} from './decompressor.ts'
import {type Chunk, filesByPath, indexToc, type LayerFile} from './index-toc.ts'
import {isDescribing, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK} from './landmark.ts'
import {MAX_TOC_SIZE, MAX_TOC_TAR_SIZE, parseToc, type Toc} from './toc.ts'

export interface OpenLayerOptions extends CallOptions {
  /** For messages: the layer's digest, say. */
  readonly where: string
  /** What the TOC's digest must be; without it the TOC is believed, and nothing read by it is verified. */
  readonly tocDigest?: Digest | undefined
  /** The TOC's JSON of a layer that keeps it outside. */
  readonly externalToc?: Uint8Array | undefined
  /** Those of the layer's descriptor: some formats are found by them. */
  readonly annotations?: Descriptor['annotations'] | undefined
  /** The formats to try, in order; default: all. */
  readonly decompressors?: readonly Decompressor[]
}

/** An open layer. */
export interface OpenLayer {
  readonly blob: BlobSource
  readonly decompressor: Decompressor
  /** Where in the blob the members of files end. */
  readonly dataEnd: number
  readonly tocDigest: Digest
  readonly tocSize: number
  readonly toc: Toc
  /** Everything in it, in its order: landmarks too, and what a later entry replaces. */
  readonly allFiles: readonly LayerFile[]
  /** The layer's own files by path; of several with one path the last. */
  readonly files: ReadonlyMap<string, LayerFile>
  /** With landmarks. */
  readonly filesAndLandmarks: ReadonlyMap<string, LayerFile>
  /** `.prefetch.landmark` or `.no.prefetch.landmark`, where the layer has one. */
  readonly landmark: LayerFile | undefined
  /** Bytes of the blob to fetch before the container starts; 0 when the layer says so or does not say. */
  readonly prefetchSize: number
}

const ALL_DECOMPRESSORS = [...GZIP_DECOMPRESSORS, ...ZSTD_DECOMPRESSORS]
/** A larger one is not read, in bytes as compressed. */
export const MAX_COMPRESSED_TOC_SIZE = MAX_TOC_SIZE
/** Flushing and framing can make a chunk larger than its contents; by more than this, no encoder does. */
const compressedBound = (size: number) => size * 2 + (64 << 10)

/** Where decompression and hashing come from: Node has its own, browsers another. */
export interface ReadingPrimitives {
  /** The first `maxSize` bytes of what `bytes` decompress to, or all when they are fewer; throws `corrupt`. */
  readonly inflatePrefix: (kind: MemberKind, bytes: Uint8Array, maxSize: number) => Promise<Uint8Array>
  readonly digestOf: (bytes: Uint8Array) => Digest | Promise<Digest>
}

/** What is needed of a layer to read its chunks. */
export type ChunkSource = Pick<OpenLayer, 'blob' | 'decompressor'>

export interface LayerReader {
  /**
   * Opens a layer. Throws `unsupported` when the blob has no footer that leads to a TOC, `corrupt` when it has one that
   * cannot be true or does not have the digest `tocDigest`, `not-found` when the TOC is outside and was not given.
   */
  openLayer(blob: BlobSource, options: OpenLayerOptions): Promise<OpenLayer>
  /** The TOC's JSON out of what `readWrappedToc` gives. Throws `corrupt`. */
  unwrapToc(decompressor: Decompressor, bytes: Uint8Array, where: string): Promise<Uint8Array>
  /**
   * The TOC's JSON out of a layer of a TOC image: a gzip'ed tar with the TOC as its only file. `where` names it in the
   * `corrupt` error that anything else throws.
   */
  extractDetachedToc(bytes: Uint8Array, where: string): Promise<Uint8Array>
  /** The contents of one chunk. Throws `corrupt` unless they have their digest; a legacy chunk has none to check. */
  readChunk(layer: ChunkSource, chunk: Chunk, options?: CallOptions): Promise<Uint8Array>
  /** The contents of a file, chunk by chunk, each verified. */
  readFile(layer: ChunkSource, file: LayerFile, options?: CallOptions): AsyncGenerator<Uint8Array>
}

/** The reader on these primitives. */
export function createLayerReader(primitives: ReadingPrimitives): LayerReader {
  const readOneChunk: LayerReader['readChunk'] = (layer, chunk, options = {}) =>
    readChunk(layer, chunk, {...options, primitives})
  return {
    openLayer: (blob, options) => openLayer(blob, {...options, primitives}),
    unwrapToc: (decompressor, bytes, where) => unwrapToc(decompressor, bytes, {where, primitives}),
    extractDetachedToc: (bytes, where) => unwrapToc(EXTERNAL_TOC_ESTARGZ, bytes, {where, primitives}),
    readChunk: readOneChunk,
    async *readFile(layer, file, options = {}) {
      for (const chunk of file.chunks) yield await readOneChunk(layer, chunk, options)
    },
  }
}

interface WithPrimitives {
  readonly primitives: ReadingPrimitives
}

async function openLayer(blob: BlobSource, options: OpenLayerOptions & WithPrimitives): Promise<OpenLayer> {
  const {where} = options
  const footer = await readFooter(blob, options)
  const {decompressor, dataEnd} = footer
  const json =
    footer.tocOffset === undefined
      ? requireExternalToc(options)
      : await readToc(blob, {...footer, tocOffset: footer.tocOffset}, options)
  const tocDigest = await options.primitives.digestOf(json)
  if (options.tocDigest !== undefined && options.tocDigest !== tocDigest) {
    throw new CodedError(
      'corrupt',
      `Cannot use the TOC of ${where}: its digest is ${tocDigest}, not ${options.tocDigest}`,
    )
  }
  const toc = parseToc(json, `the TOC of ${where}`)
  const allFiles = indexToc(toc, dataEnd, `the TOC of ${where}`)
  const filesAndLandmarks = filesByPath(allFiles)
  const landmark = filesAndLandmarks.get(PREFETCH_LANDMARK) ?? filesAndLandmarks.get(NO_PREFETCH_LANDMARK)
  return {
    blob,
    decompressor,
    dataEnd,
    tocDigest,
    tocSize: json.length,
    toc,
    allFiles,
    files: new Map([...filesAndLandmarks].filter(([path]) => !isDescribing(path))),
    filesAndLandmarks,
    landmark,
    prefetchSize: landmark?.path === PREFETCH_LANDMARK ? (landmark.chunks[0]?.offset ?? 0) : 0,
  }
}

async function readChunk(
  layer: ChunkSource,
  chunk: Chunk,
  options: CallOptions & WithPrimitives,
): Promise<Uint8Array> {
  const {inflatePrefix, digestOf} = options.primitives
  const wanted = chunk.innerOffset + chunk.size
  const length = Math.min(chunk.end - chunk.offset, compressedBound(wanted))
  const compressed = await layer.blob.read(chunk.offset, length, options)
  const inflated = await inflatePrefix(layer.decompressor.memberKind, compressed, wanted)
  const bytes = inflated.subarray(chunk.innerOffset)
  if (
    bytes.length !== chunk.size ||
    (chunk.digest !== undefined && (await digestOf(bytes)) !== chunk.digest)
  ) {
    throw new CodedError(
      'corrupt',
      `Cannot use the chunk at byte ${chunk.offset} of the layer: its contents do not have their digest`,
    )
  }
  return bytes
}

/** Where footer or annotations lead in one blob. */
export interface FoundFooter {
  readonly decompressor: Decompressor
  /** Where the members of files end. */
  readonly dataEnd: number
  readonly tocOffset: number | undefined
  readonly tocEnd: number
  readonly tocChecksum?: Digest | undefined
}

/**
 * Finds the format that the annotations name, or whose footer the blob ends with, in one read. Throws `unsupported` when
 * there is none, `corrupt` when it leads out of the blob.
 */
export async function readFooter(blob: BlobSource, options: OpenLayerOptions): Promise<FoundFooter> {
  // Annotations of positions may be those of a zstd:chunked layer that this one was made of: the reference keeps them. Where
  // the manifest vouches for the TOC itself, whatever leads to it will do.
  const trustsFooter = options.annotations?.[TOC_DIGEST] !== undefined
  const found = trustsFooter
    ? ((await findFooter(blob, options)) ?? locateToc(blob, options))
    : (locateToc(blob, options) ?? (await findFooter(blob, options)))
  if (found) return found
  throw new CodedError(
    'unsupported',
    `Cannot read ${options.where} lazily: it does not end with a footer of eStargz or zstd:chunked`,
  )
}

/** Where the annotations of the descriptor lead. */
function locateToc(blob: BlobSource, options: OpenLayerOptions): FoundFooter | undefined {
  const {annotations, decompressors = ALL_DECOMPRESSORS} = options
  for (const decompressor of annotations ? decompressors : []) {
    const footer = decompressor.locateToc?.(annotations!)
    if (footer) return placeFooter(decompressor, footer, blob.size, options)
  }
  return undefined
}

/** Where the end of the blob leads. */
async function findFooter(blob: BlobSource, options: OpenLayerOptions): Promise<FoundFooter | undefined> {
  const {decompressors = ALL_DECOMPRESSORS} = options
  const tailSize = Math.min(blob.size, Math.max(...decompressors.map(({footerSize}) => footerSize)))
  const tail = await blob.read(blob.size - tailSize, tailSize, options)
  for (const decompressor of decompressors) {
    if (decompressor.footerSize > tailSize) continue
    const footer = decompressor.parseFooter(tail.subarray(tailSize - decompressor.footerSize))
    if (footer) return placeFooter(decompressor, footer, blob.size - decompressor.footerSize, options)
  }
  return undefined
}

/** A footer in a blob in which a TOC can be up to `end`. */
function placeFooter(
  decompressor: Decompressor,
  footer: Footer,
  end: number,
  {where}: OpenLayerOptions,
): FoundFooter {
  const {tocOffset, tocChecksum} = footer
  if (tocOffset === undefined) return {decompressor, dataEnd: end, tocOffset, tocEnd: end}
  const dataEnd = tocOffset - (footer.tocHeaderSize ?? 0)
  const tocEnd = footer.tocSize === undefined ? end : tocOffset + footer.tocSize
  if (dataEnd < 0 || tocOffset >= tocEnd || tocEnd > end) {
    throw new CodedError(
      'corrupt',
      `Cannot use the footer of ${where}: it says that the TOC is at ${tocOffset} to ${tocEnd}, of ${end} bytes`,
    )
  }
  return {decompressor, dataEnd, tocOffset, tocEnd, tocChecksum}
}

async function readToc(
  blob: BlobSource,
  footer: FoundFooter & {readonly tocOffset: number},
  options: OpenLayerOptions & WithPrimitives,
): Promise<Uint8Array> {
  const {where, primitives} = options
  const {decompressor, tocChecksum} = footer
  const compressed = await readWrappedToc(blob, footer, options)
  if (tocChecksum !== undefined && (await primitives.digestOf(compressed)) !== tocChecksum) {
    throw new CodedError('corrupt', `Cannot use the TOC of ${where}: it is not ${tocChecksum}`)
  }
  return unwrapToc(decompressor, compressed, {where: `the TOC of ${where}`, primitives})
}

/** The TOC as it is in the blob: compressed, and in a tar where the format has one. Throws `unsupported` for a huge one. */
export async function readWrappedToc(
  blob: BlobSource,
  {tocOffset, tocEnd}: {readonly tocOffset: number; readonly tocEnd: number},
  options: OpenLayerOptions,
): Promise<Uint8Array> {
  const size = tocEnd - tocOffset
  if (size > MAX_COMPRESSED_TOC_SIZE) {
    throw new CodedError(
      'unsupported',
      `Cannot read the TOC of ${options.where}: it has ${size} compressed bytes`,
    )
  }
  return blob.read(tocOffset, size, options)
}

async function unwrapToc(
  decompressor: Decompressor,
  compressed: Uint8Array,
  {where, primitives}: WithPrimitives & {readonly where: string},
): Promise<Uint8Array> {
  try {
    return decompressor.unwrapToc(
      await primitives.inflatePrefix(decompressor.memberKind, compressed, MAX_TOC_TAR_SIZE),
    )
  } catch (cause) {
    // Only the reader for everywhere lacks a decompressor.
    const code = hasCode(cause, 'unsupported') ? 'unsupported' : 'corrupt'
    throw new CodedError(code, `Cannot read ${where}`, {cause})
  }
}

/** The TOC of a layer that keeps it in another image; throws `not-found` where it was not given. */
export function requireExternalToc({
  externalToc,
  where,
}: Pick<OpenLayerOptions, 'externalToc' | 'where'>): Uint8Array {
  if (externalToc) return externalToc
  throw new CodedError('not-found', `Cannot read ${where} lazily: its TOC is kept in another image`)
}
