// Converts one layer: source blob -> spool and index -> plan -> members compressed in parallel -> target blob.

import type {BulkCodec} from '../compression/codec.ts'
import type {Compressor} from '../compression/layer-format.ts'
import {CodedError} from '../errors/coded-error.ts'
import {DEFAULT_CHUNK_SIZE, type LayerPlan, planLayer} from '../estargz/plan-layer.ts'
import {digestOf} from '../io/sha256.ts'
import {CONTAINERD_UNCOMPRESSED, UNCOMPRESSED_SIZE, withoutLazyAnnotations} from '../oci/annotations.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import {type Descriptor, withAnnotations} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {layerMediaType} from '../oci/media-type.ts'
import {compressPlan} from './compress-plan.ts'
import {createLayerWriter, type WrittenLayer} from './layer-writer.ts'
import {movableMembers} from './reuse-members.ts'
import {spoolMembers} from './reuse-source.ts'
import {defaultMaxUncompressedSize, type LayerSource, type SpooledLayer, spoolLayer} from './spool-layer.ts'

export interface ConvertLayerOptions extends CallOptions {
  readonly codec: BulkCodec
  readonly compressor: Compressor
  readonly target: ContentStore
  /** The media-type family of the new descriptor. */
  readonly family: 'oci' | 'docker'
  /** For a layer that is too large for memory; see `SpoolOptions`. */
  readonly temporaryDirectory: string
  /** Paths to put first, in this order, or a choice among the layer's own; missing ones are reported. */
  readonly prioritizedPaths?: readonly string[] | ((layerPaths: readonly string[]) => readonly string[])
  /** Largest payload of a chunk, bytes. Default 4 MiB. */
  readonly chunkSize?: number
  /** Compressed bytes that a stream has at least; default 0: a stream per chunk. */
  readonly minChunkSize?: number
  /** Keep the tar, and so the DiffID, as it is. Only with a compressor that keeps the TOC outside. */
  readonly lossless?: boolean
  /** Bytes to which the source may decompress at most. Default: 64 times its size, at least 1 GiB. */
  readonly maxUncompressedSize?: number
  /** Compressed bytes of the source that have been worked on; the total is its descriptor's size. */
  readonly onBytes?: ((doneBytes: number) => void) | undefined
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
  /** Prioritised paths that the layer has, the compressed bytes to fetch for them, and paths that it does not have. */
  readonly prioritized: {readonly files: number; readonly bytes: number; readonly missing: readonly string[]}
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
    maxUncompressedSize: options.maxUncompressedSize ?? defaultMaxUncompressedSize(descriptor.size),
    onBytes: (doneBytes: number) => {
      // A source that cannot be taken apart after all is read again.
      readBytes = Math.max(readBytes, doneBytes)
      options.onBytes?.(Math.floor(readBytes * READING_SHARE))
    },
  }
  await using layer = (await spoolMembers(source, spooling)) ?? (await spoolLayer(source, spooling))
  const chunkSize = options.chunkSize || DEFAULT_CHUNK_SIZE
  const plan = planLayer(layer.entries, {
    prioritizedPaths: pathsToPrioritize(layer, options.prioritizedPaths ?? []),
    chunkSize,
    lossless: options.lossless ? {size: layer.spool.size} : undefined,
  })
  // Awaited, because the spool is closed on the way out.
  return await writeLayer(layer, plan, {...options, chunkSize, source: descriptor, diffId: source.diffId})
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
  await using finisher = compressor.begin({plan, chunkSize: options.chunkSize, spool, codec}, options)
  const writer = createLayerWriter({blob, codec, spool, plan})
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
    options.onBytes?.(progressAt(source.size, writer.tarSize() / Math.max(1, spool.size)))
  }
  const placed = writer.placedUnits()
  const ending = await finisher.finish(placed, writer.blobSize())
  const written = await writer.writeEnding(ending)
  if (options.lossless) checkUnchanged(written, {size: spool.size, diffId: options.diffId})
  options.signal?.throwIfAborted()
  await blob.commit(written, {...options, labels: {[CONTAINERD_UNCOMPRESSED]: written.diffId}})
  options.onBytes?.(source.size)
  const {prefetchLandmark, prioritized} = plan
  const landmark = prefetchLandmark === undefined ? undefined : plan.entries[prefetchLandmark]
  return {
    descriptor: withAnnotations(
      {...withoutLazyAnnotations(source), mediaType, digest: written.digest, size: written.size},
      {...ending.annotations, [UNCOMPRESSED_SIZE]: String(written.uncompressedSize)},
    ),
    diffId: written.diffId,
    tocDigest: digestOf(ending.toc),
    tocSize: ending.toc.length,
    uncompressedSize: written.uncompressedSize,
    counts: {
      entries: plan.entries.length,
      chunks: plan.entries.reduce((sum, entry) => sum + entry.unitCount, 0),
      members: writer.memberCount(),
      movedMembers: writer.movedCount(),
    },
    prioritized: {
      files: prioritized.found,
      bytes: landmark ? placed.offsets[landmark.firstUnit]! : 0,
      missing: prioritized.missing,
    },
    ...(ending.detachedToc ? {detachedToc: ending.detachedToc} : {}),
  }
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
