// Converts one layer: source blob -> spool and index -> plan -> members compressed in parallel -> target blob.

import type {BulkCodec} from '../compression/codec.ts'
import {CodedError} from '../errors/coded-error.ts'
import {DEFAULT_CHUNK_SIZE, type LayerPlan, planLayer} from '../estargz/plan-layer.ts'
import type {PlacedUnits} from '../estargz/toc-of-plan.ts'
import {CONTAINERD_UNCOMPRESSED, UNCOMPRESSED_SIZE, withoutLazyAnnotations} from '../oci/annotations.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import {type Descriptor, withAnnotations, withContent} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {layerMediaType} from '../oci/media-type.ts'
import {encodePrefetchPlan, type PlannedRange, PREFETCH_PLAN} from '../prefetch/prefetch-plan.ts'
import type {LayerReads} from '../prefetch/read-ranges.ts'
import {MANY_FILES, type MemoryCare} from '../tar/memory-care.ts'
import {compressPlan} from './compress-plan.ts'
import {LayerWriter, type WrittenLayer} from './layer-writer.ts'
import type {LayerWriting} from './layer-writing.ts'
import {replacedFiles} from './replaced-files.ts'
import {movableMembers} from './reuse-members.ts'
import {spoolMembers} from './reuse-source.ts'
import {SpoolFile} from './spool-file.ts'
import {type LayerSource, type SpooledLayer, spoolLayer} from './spool-layer.ts'

export interface ConvertLayerOptions extends CallOptions, LayerWriting {
  readonly codec: BulkCodec
  readonly target: ContentStore
  /** The media-type family of the new descriptor. */
  readonly family: 'oci' | 'docker'
  /** For a layer that is too large for memory; see `SpoolOptions`. */
  readonly temporaryDirectory: string
  /** Paths to put first, in this order, or a choice among the layer's own; missing ones are reported. */
  readonly prioritizedPaths?: readonly string[] | ((layerPaths: readonly string[]) => readonly string[])
  /** What is read of files, where that is known: chunks end there, and the descriptor gets a plan of what to prefetch. */
  readonly reads?: LayerReads | undefined
  /** Bytes to which the source may decompress at most. Default: what `temporaryDirectory` has room for. */
  readonly maxUncompressedSize?: number | undefined
  readonly memoryCare?: MemoryCare | undefined
  /** Compressed bytes of the source that have been worked on; the total is its descriptor's size. */
  readonly onBytes?: ((doneBytes: number) => void) | undefined
}

/** What came of the wish for an order. */
export interface OrderedFiles {
  /** Prioritised paths that were moved, and the compressed bytes to fetch for them. */
  readonly files: number
  readonly bytes: number
  /** Paths that the layer does not have, and those that stay where they are so that it unpacks to the same. */
  readonly missing: readonly string[]
  readonly unmoved: readonly string[]
  /** Some of the names that readers who go by names alone, as stargz-snapshotter does, take for other places. */
  readonly misread: readonly string[]
  /** Files of the layer's own that are left out, because the format has files of these names. */
  readonly replaced: readonly string[]
}

/** A layer that was written to the target. */
export interface ConvertedBlob {
  /** With the annotations of the source and those of the format. */
  readonly descriptor: Descriptor
  readonly diffId: Digest
  readonly tocDigest: Digest
  /** Bytes of the TOC's JSON, and of the whole decompressed layer. */
  readonly tocSize: number
  readonly uncompressedSize: number
  readonly counts: {
    readonly entries: number
    readonly chunks: number
    readonly members: number
    /** Members of a source that could be read lazily which needed not be compressed again. */
    readonly movedMembers: number
  }
  readonly prioritized: OrderedFiles
  /** For compressors that keep the TOC outside: the blob for the TOC image. */
  readonly detachedToc?: Uint8Array
}

/** Of the progress: reading the source takes about a quarter of the time, compressing the rest. */
const READING_SHARE = 0.25

/**
 * Converts a layer into `options.target`. What it writes is a function of the source and the options, whatever the
 * machine. Throws `corrupt` or `unsupported` for a source that cannot be used, `unavailable` when the disk is full;
 * nothing is visible in the target then.
 */
export async function convertLayer(
  source: LayerSource,
  options: ConvertLayerOptions,
): Promise<ConvertedBlob> {
  const {descriptor} = source
  let readBytes = 0
  const spooling = {
    ...options,
    onBytes: (doneBytes: number) => {
      // A source that cannot be taken apart after all is read again.
      readBytes = Math.max(readBytes, doneBytes)
      options.onBytes?.(Math.floor(readBytes * READING_SHARE))
    },
  }
  await using layer = (await spoolMembers(source, spooling)) ?? (await spoolLayer(source, spooling))
  if (options.lossless && layer.sparseFile) {
    throw new CodedError(
      'failed-precondition',
      `Cannot keep the DiffID: ${JSON.stringify(layer.sparseFile.name)} is a sparse file, whose contents the layer does not have as they are`,
    )
  }
  const chunkSize = options.chunkSize || DEFAULT_CHUNK_SIZE
  const plan = planLayer(layer.entries, {
    prioritizedPaths: pathsToPrioritize(layer, options.prioritizedPaths ?? []),
    reads: options.reads,
    chunkSize,
    lossless: options.lossless ? {size: layer.spool.size} : undefined,
  })
  if (layer.entries.length >= MANY_FILES) options.memoryCare?.plannedManyFiles()
  // Awaited, because the spool is closed on the way out.
  return await writeLayer(layer, plan, {
    ...options,
    chunkSize,
    source: descriptor,
    diffId: source.diffId,
    replaced: options.lossless ? [] : await replacedFiles(layer, options.codec),
  })
}

function pathsToPrioritize(
  {entries}: SpooledLayer,
  wanted: NonNullable<ConvertLayerOptions['prioritizedPaths']>,
): readonly string[] {
  return typeof wanted === 'function' ? wanted(entries.map(entry => entry.path)) : wanted
}

interface WriteOptions extends ConvertLayerOptions {
  readonly chunkSize: number
  readonly source: Descriptor
  readonly diffId: Digest | undefined
  readonly replaced: readonly string[]
}

async function writeLayer(
  layer: SpooledLayer,
  plan: LayerPlan,
  options: WriteOptions,
): Promise<ConvertedBlob> {
  const {codec, compressor, target, source} = options
  const {spool} = layer
  const mediaType = layerMediaType(compressor.memberKind, options.family)
  await using blob = await target.write({mediaType}, options)
  const createSpool = () => new SpoolFile(options.temporaryDirectory)
  await using finisher = compressor.begin(
    {plan, chunkSize: options.chunkSize, spool, codec, createSpool},
    options,
  )
  const writer = new LayerWriter({blob, codec, spool, plan})
  const members = compressPlan(spool, plan.units, {
    codec,
    signal: options.signal,
    memberKind: compressor.memberKind,
    level: compressor.level,
    minChunkSize: options.minChunkSize ?? 0,
    movable: await movableMembers(layer, compressor, codec),
  })
  for await (const batch of members) {
    await writer.writeMembers(batch)
    options.onBytes?.(progressAt(source.size, writer.tarSize / Math.max(1, spool.size)))
  }
  const placed = writer.placedUnits()
  const dataSize = writer.blobSize
  const ending = await finisher.finish(placed, dataSize)
  const written = await writer.writeEnding(ending)
  if (options.lossless) checkUnchanged(written, {size: spool.size, diffId: options.diffId})
  options.signal?.throwIfAborted()
  await blob.commit(written, {...options, labels: {[CONTAINERD_UNCOMPRESSED]: written.diffId}})
  options.onBytes?.(source.size)
  const {prefetchLandmark, prioritized} = plan
  const landmark = prefetchLandmark === undefined ? undefined : plan.entries[prefetchLandmark]
  return {
    descriptor: withAnnotations(withContent(withoutLazyAnnotations(source), {...written, mediaType}), {
      ...ending.annotations,
      ...(options.reads ? {[PREFETCH_PLAN]: encodePrefetchPlan(rangesRead(plan, placed, dataSize))} : {}),
      [UNCOMPRESSED_SIZE]: String(written.uncompressedSize),
    }),
    diffId: written.diffId,
    tocDigest: ending.toc.digest,
    tocSize: ending.toc.size,
    uncompressedSize: written.uncompressedSize,
    counts: {
      entries: plan.entries.length,
      chunks: plan.entries.reduce((sum, entry) => sum + entry.unitCount, 0),
      members: writer.memberCount,
      movedMembers: writer.movedCount,
    },
    prioritized: {
      files: prioritized.found,
      bytes: landmark ? placed.offsets[landmark.firstUnit]! : 0,
      missing: prioritized.missing,
      unmoved: prioritized.unmoved,
      misread: plan.misread,
      replaced: options.replaced,
    },
    ...(ending.detachedToc ? {detachedToc: ending.detachedToc} : {}),
  }
}

/** The streams of the blob, up to `dataSize`, of which something is read. */
function rangesRead(
  {readUnits}: LayerPlan,
  {offsets}: PlacedUnits,
  dataSize: number,
): readonly PlannedRange[] {
  return readUnits.map(({unit, atMs}) => {
    const offset = offsets[unit]!
    let next = unit + 1
    while (next < offsets.length && offsets[next] === offset) next++
    return {offset, end: offsets[next] ?? dataSize, atMs}
  })
}

/** A lossless conversion must decompress to what its source does. */
function checkUnchanged(
  written: WrittenLayer,
  source: {readonly size: number; readonly diffId: Digest | undefined},
): void {
  const {diffId, uncompressedSize} = written
  if (uncompressedSize === source.size && diffId === (source.diffId ?? diffId)) return
  throw new CodedError(
    'internal',
    `Cannot keep the DiffID: the converted layer is ${diffId} of ${uncompressedSize} bytes, the source ${source.diffId} of ${source.size}`,
  )
}

function progressAt(totalBytes: number, writtenShare: number): number {
  return Math.floor(totalBytes * (READING_SHARE + (1 - READING_SHARE) * Math.min(1, writtenShare)))
}
