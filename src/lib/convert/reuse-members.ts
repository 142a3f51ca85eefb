// Moves compressed members of a lazily readable source into the converted layer as they are. Cutting the source where its
// TOC says that streams start also lets all cores decompress it.
//
// A member moves when it holds the very bytes of a member that is to be written, so only files whose neighbours change are
// compressed again. And only when our compressor made it, at this level: then compressing it again would give the same
// bytes, and the output stays a function of the tar and the options alone.

import {read as readFile} from 'node:fs'
import {promisify} from 'node:util'
import type {BulkCodec, MemberKind, PieceLists, Spool} from '../compression/codec.ts'
import type {Compressor} from '../compression/layer-format.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {type OpenLayerOptions, openLayer} from '../estargz/open-layer.ts'
import {TOC_DIGEST} from '../oci/annotations.ts'
import type {BlobSource} from '../oci/content-store.ts'
import {isDigest} from '../oci/digest.ts'
import {layerCompressionOf} from '../oci/media-type.ts'
import {inflateRange} from './inflate-range.ts'
import {
  countBytes,
  createSpoolStore,
  type LayerSource,
  type SpooledLayer,
  type SpoolOptions,
  spoolTar,
} from './spool-layer.ts'

/** The members of a source layer. Offsets and sizes are of its blob, `tar…` of what it decompresses to. */
export interface SourceMembers {
  readonly kind: MemberKind
  readonly offsets: readonly number[]
  readonly sizes: readonly number[]
  readonly tarOffsets: readonly number[]
  readonly tarSizes: readonly number[]
  /** The blob's bytes. */
  readonly blob: Spool
}

/** Members that may move. */
export interface MovableMembers {
  /** For each list: the index of the member that holds exactly its bytes, or -1. */
  match(lists: PieceLists): Int32Array
  /** The compressed bytes of a member. */
  read(index: number): Promise<Uint8Array>
}

/** Compressed bytes that are decompressed at once: enough for every core. */
const BATCH_SIZE = 1 << 20
/** A larger stretch without a start of a stream, which no writer makes, is not held in memory: bytes. */
const MAX_RANGE_SIZE = 32 << 20
/** Members that are compressed again to learn whether the compressor is ours, and how large they may be, bytes. */
const SAMPLES = {count: 8, size: 512 << 10}

/**
 * Spools a layer member by member, and keeps the members; undefined for a layer of which they are not known: no eStargz,
 * its TOC outside, or one that misleads. Whatever is wrong with such a layer, `spoolLayer` says.
 */
export async function spoolMembers(
  source: LayerSource,
  options: SpoolOptions,
): Promise<SpooledLayer | undefined> {
  const {descriptor, content} = source
  const tocDigest = descriptor.annotations?.[TOC_DIGEST]
  if (!isDigest(tocDigest) || layerCompressionOf(descriptor.mediaType) !== 'gzip') return undefined
  const store = createSpoolStore(options.temporaryDirectory)
  const found = {offsets: [], sizes: [], tarOffsets: [], tarSizes: []}
  try {
    await using blob = await content.open(descriptor, options)
    const {signal} = options
    const starts = await findStreamStarts(blob, {where: descriptor.digest, tocDigest, signal})
    const compressed = countBytes(blob.stream(options), options.onBytes)
    const ranges = cutAt(keepIn(compressed, store.write), starts)
    const layer = await spoolTar(inflateRanges(ranges, found, options.codec), source, options)
    return {
      ...layer,
      members: {kind: 'gzip', ...withoutEnding(found), blob: store.finish()},
      async [Symbol.asyncDispose]() {
        await layer[Symbol.asyncDispose]()
        await store.close()
      },
    }
  } catch (error) {
    await store.close()
    if (hasCode(error, 'corrupt', 'unsupported', 'not-found')) return undefined
    throw error
  }
}

/** All but the last two: TOC and footer are never moved. */
function withoutEnding({offsets, sizes, tarOffsets, tarSizes}: FoundMembers): FoundMembers {
  return {
    offsets: offsets.slice(0, -2),
    sizes: sizes.slice(0, -2),
    tarOffsets: tarOffsets.slice(0, -2),
    tarSizes: tarSizes.slice(0, -2),
  }
}

/** Where in the blob streams start, by a TOC that the manifest vouches for; then the starts of TOC and footer, and the end. */
async function findStreamStarts(blob: BlobSource, options: OpenLayerOptions): Promise<Float64Array> {
  const layer = await openLayer(blob, options)
  const starts = new Set([layer.dataEnd, blob.size - layer.decompressor.footerSize, blob.size])
  for (const {chunks} of layer.filesAndLandmarks.values()) {
    for (const {offset} of chunks) if (offset > 0) starts.add(offset)
  }
  return Float64Array.from(starts).sort()
}

async function* keepIn(
  chunks: AsyncIterable<Uint8Array>,
  keep: (bytes: Uint8Array) => Promise<void>,
): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    await keep(chunk)
    yield chunk
  }
}

/** The stream cut before each of `starts`, which ascend from above 0 to its end. */
async function* cutAt(chunks: AsyncIterable<Uint8Array>, starts: Float64Array): AsyncGenerator<Uint8Array> {
  let held: Uint8Array[] = []
  let heldSize = 0
  let position = 0
  let next = 0
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + (starts[next] ?? Number.POSITIVE_INFINITY) - position)
      held.push(part)
      heldSize += part.length
      position += part.length
      at += part.length
      if (heldSize > MAX_RANGE_SIZE) {
        throw new CodedError(
          'unsupported',
          `Cannot use a layer with a stream of more than ${MAX_RANGE_SIZE} bytes`,
        )
      }
      if (position !== starts[next]) continue
      yield held.length === 1 ? part : Buffer.concat(held)
      held = []
      heldSize = 0
      next++
    }
  }
}

interface FoundMembers {
  readonly offsets: number[]
  readonly sizes: number[]
  readonly tarOffsets: number[]
  readonly tarSizes: number[]
}

/** What ranges decompress to, in order; notes in `found` where each was. One batch is under way while one is consumed. */
async function* inflateRanges(
  ranges: AsyncIterable<Uint8Array>,
  found: FoundMembers,
  codec: BulkCodec,
): AsyncGenerator<Uint8Array> {
  let offset = 0
  let tarOffset = 0
  /** In one piece: hashing and keeping many small ones would cost more than decompressing them. */
  function note(batch: readonly Uint8Array[], inflated: readonly Uint8Array[]): Uint8Array {
    for (const [index, bytes] of inflated.entries()) {
      const size = batch[index]!.length
      found.offsets.push(offset)
      found.sizes.push(size)
      found.tarOffsets.push(tarOffset)
      found.tarSizes.push(bytes.length)
      offset += size
      tarOffset += bytes.length
    }
    return Buffer.concat(inflated)
  }
  let last: {readonly batch: readonly Uint8Array[]; readonly inflated: Promise<Uint8Array[]>} | undefined
  for await (const batch of batchesOf(ranges)) {
    const inflated = Promise.all(batch.map(range => inflate(range, codec)))
    // A failure is thrown in its turn; until then it must not count as unhandled.
    inflated.catch(() => {})
    if (last) yield note(last.batch, await last.inflated)
    last = {batch, inflated}
  }
  if (last) yield note(last.batch, await last.inflated)
}

async function inflate(range: Uint8Array, codec: BulkCodec): Promise<Uint8Array> {
  const inflated = await inflateRange('gzip', range, codec)
  if (typeof inflated !== 'string') return inflated
  throw new CodedError('corrupt', `Cannot decompress a stream of a layer: ${inflated}`)
}

async function* batchesOf(ranges: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array[]> {
  let batch: Uint8Array[] = []
  let size = 0
  for await (const range of ranges) {
    batch.push(range)
    size += range.length
    if (size < BATCH_SIZE) continue
    yield batch
    batch = []
    size = 0
  }
  if (batch.length > 0) yield batch
}

/** The members that may move into what `compressor` writes; undefined when another one made them. */
export async function movableMembers(
  {members, spool}: Pick<SpooledLayer, 'members' | 'spool'>,
  compressor: Pick<Compressor, 'memberKind' | 'level'>,
  codec: BulkCodec,
): Promise<MovableMembers | undefined> {
  if (members?.kind !== compressor.memberKind) return undefined
  for (const index of sampleOf(members)) {
    const [original, {bytes}] = await Promise.all([
      readRange(members.blob, members.offsets[index]!, members.sizes[index]!),
      codec.compressMembers(members.kind, compressor.level, spool, {
        literals: new Uint8Array(0),
        offsets: Float64Array.of(members.tarOffsets[index]!),
        sizes: Float64Array.of(members.tarSizes[index]!),
        counts: Uint32Array.of(1),
      }),
    ])
    if (Buffer.compare(original, bytes) !== 0) return undefined
  }
  const {offsets, sizes, tarOffsets, tarSizes, blob} = members
  const byTarOffset = new Map<number, number>()
  for (const [index, tarOffset] of tarOffsets.entries())
    if (tarSizes[index]! > 0) byTarOffset.set(tarOffset, index)
  return {
    match: lists => matchLists(lists, byTarOffset, tarSizes),
    read: index => readRange(blob, offsets[index]!, sizes[index]!),
  }
}

/** Some members from all over the layer, not too large. */
function sampleOf({tarSizes}: SourceMembers): number[] {
  const candidates = [...tarSizes.keys()].filter(
    index => tarSizes[index]! > 0 && tarSizes[index]! <= SAMPLES.size,
  )
  const step = Math.max(1, Math.floor(candidates.length / SAMPLES.count))
  return candidates.filter((_, index) => index % step === 0).slice(0, SAMPLES.count)
}

/** A list is a member's bytes when its pieces follow each other in the tar from the member's start to its end. */
function matchLists(
  {offsets, sizes, counts}: PieceLists,
  byTarOffset: ReadonlyMap<number, number>,
  tarSizes: readonly number[],
): Int32Array {
  const matches = new Int32Array(counts.length).fill(-1)
  let piece = 0
  for (const [list, count] of counts.entries()) {
    const start = offsets[piece] ?? -1
    let end = start
    for (const last = piece + count; piece < last; piece++) {
      end = offsets[piece] === end ? end + sizes[piece]! : Number.NaN
    }
    const index = start >= 0 ? byTarOffset.get(start) : undefined
    if (index !== undefined && end - start === tarSizes[index]) matches[list] = index
  }
  return matches
}

const readAsync = promisify(readFile)

async function readRange({storage}: Spool, offset: number, size: number): Promise<Uint8Array> {
  if (typeof storage !== 'number') return storage.subarray(offset, offset + size)
  const bytes = Buffer.allocUnsafe(size)
  for (let filled = 0; filled < size; ) {
    const {bytesRead} = await readAsync(storage, bytes, filled, size - filled, offset + filled)
    if (bytesRead === 0) throw new CodedError('internal', 'Cannot read a member: its spool is cut short')
    filled += bytesRead
  }
  return bytes
}
