// Spools a lazily readable layer member by member: cut where its TOC says that streams start, so that all cores decompress
// it, and with its compressed bytes kept, because members that stay as they are will be moved (reuse-members.ts).

import {claimedSize} from '../compression/claimed-size.ts'
import type {BulkCodec, MemberKind} from '../compression/codec.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {type OpenLayerOptions, openLayer} from '../estargz/open-layer.ts'
import {MAX_CHUNK_SIZE} from '../estargz/plan-layer.ts'
import {isLazyAnnotation} from '../oci/annotations.ts'
import type {BlobSource} from '../oci/content-store.ts'
import {layerCompressionOf} from '../oci/media-type.ts'
import {inflateOne, inflateRange} from './inflate-range.ts'
import {SpoolFile} from './spool-file.ts'
import {countBytes, type LayerSource, type SpooledLayer, type SpoolOptions, spoolTar} from './spool-layer.ts'

/** Bytes, compressed and not, that are decompressed at once: enough for every core. Two batches are in memory. */
const BATCH_SIZE = 4 << 20
/** A larger stretch without a start of a stream is not held in memory: a chunk that does not compress, and headers. */
const MAX_RANGE_SIZE = MAX_CHUNK_SIZE + (16 << 20)

/**
 * Spools a layer member by member, and keeps the members; undefined for a layer of which they are not known: no eStargz,
 * its TOC outside, or one that misleads. Whatever is wrong with such a layer, `spoolLayer` says.
 */
export async function spoolMembers(
  source: LayerSource,
  options: SpoolOptions,
): Promise<SpooledLayer | undefined> {
  const {descriptor, content} = source
  const {annotations = {}} = descriptor
  const kind = layerCompressionOf(descriptor.mediaType) ?? 'none'
  if (kind === 'none' || !Object.keys(annotations).some(isLazyAnnotation)) return undefined
  // The DiffID shows that the cuts were right, and the codec that nothing is hidden between members.
  if (!source.diffId || options.codec.name !== 'native') return undefined
  const store = new SpoolFile(options.temporaryDirectory)
  const found = {offsets: [], sizes: [], tarOffsets: [], tarSizes: []}
  try {
    await using blob = await content.open(descriptor, options)
    const opening = {where: descriptor.digest, annotations, signal: options.signal}
    const {starts, dataEnd} = await findStreamStarts(blob, kind, opening)
    const compressed = countBytes(blob.stream(options), options.onBytes)
    const ranges = cutAt(
      keepIn(compressed, bytes => store.write(bytes)),
      starts,
    )
    const layer = await spoolTar(
      inflateRanges(ranges, {kind, dataEnd, found, codec: options.codec}),
      source,
      options,
    )
    // Places in a tar that was made anew are not those of its members.
    if (layer.sparseFile) {
      await store.close()
      return layer
    }
    return {
      ...layer,
      members: {kind, ...found, blob: await store.finish()},
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

interface StreamStarts {
  /** Where to cut the blob: ascending, its end included. */
  readonly starts: Float64Array
  /** Where the members of files end. */
  readonly dataEnd: number
}

/** Where streams start, by the layer's TOC, which is checked by what comes out. */
async function findStreamStarts(
  blob: BlobSource,
  kind: MemberKind,
  options: OpenLayerOptions,
): Promise<StreamStarts> {
  const {decompressor, dataEnd, allFiles} = await openLayer(blob, options)
  if (decompressor.memberKind !== kind) throw unusable('the TOC of another layer')
  const starts = new Set([dataEnd, blob.size])
  for (const {chunks} of allFiles) {
    for (const {offset} of chunks) if (offset > 0) starts.add(offset)
  }
  return {starts: Float64Array.from(starts).sort(), dataEnd}
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

interface Cut {
  readonly offset: number
  readonly bytes: Uint8Array
}

/** The stream cut before each of `starts`, which ascend from above 0 to its end. */
async function* cutAt(chunks: AsyncIterable<Uint8Array>, starts: Float64Array): AsyncGenerator<Cut> {
  let held: Uint8Array[] = []
  let offset = 0
  let position = 0
  let next = 0
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + (starts[next] ?? Number.POSITIVE_INFINITY) - position)
      held.push(part)
      position += part.length
      at += part.length
      if (position - offset > MAX_RANGE_SIZE) throw unusable(`a stream of more than ${MAX_RANGE_SIZE} bytes`)
      if (position !== starts[next]) continue
      yield {offset, bytes: held.length === 1 ? part : Buffer.concat(held)}
      held = []
      offset = position
      next++
    }
  }
}

function unusable(what: string): CodedError {
  return new CodedError('unsupported', `Cannot take a layer apart that has ${what}`)
}

interface FoundMembers {
  readonly offsets: number[]
  readonly sizes: number[]
  readonly tarOffsets: number[]
  readonly tarSizes: number[]
}

interface InflateOptions {
  readonly kind: MemberKind
  readonly dataEnd: number
  readonly found: FoundMembers
  readonly codec: BulkCodec
}

/**
 * What ranges decompress to, in order; notes in `found` those that can move. One batch is under way while one is consumed.
 */
async function* inflateRanges(
  ranges: AsyncIterable<Cut>,
  options: InflateOptions,
): AsyncGenerator<Uint8Array> {
  const {found} = options
  let tarOffset = 0
  /** In one piece: hashing and keeping many small ones would cost more than decompressing them. */
  function note(inflated: readonly InflatedRange[]): Uint8Array {
    for (const {range, tar, isMovable} of inflated) {
      if (isMovable && tar.length > 0) {
        found.offsets.push(range.offset)
        found.sizes.push(range.bytes.length)
        found.tarOffsets.push(tarOffset)
        found.tarSizes.push(tar.length)
      }
      tarOffset += tar.length
    }
    return Buffer.concat(inflated.map(({tar}) => tar))
  }
  let last: Promise<InflatedRange[]> | undefined
  try {
    for await (const batch of batchesOf(ranges, options.kind)) {
      const inflated = Promise.all(batch.map(range => inflate(range, options)))
      // A failure is thrown in its turn; until then it must not count as unhandled.
      inflated.catch(() => {})
      const before = last
      last = inflated
      if (before) yield note(await before)
    }
    if (last) yield note(await last)
  } finally {
    await last?.catch(() => {})
  }
}

interface InflatedRange {
  readonly range: Cut
  readonly tar: Uint8Array
  /** It is one member and nothing else. */
  readonly isMovable: boolean
}

/** Only the last files' range and what follows may be of several members, which nothing bounds but their number. */
async function inflate(range: Cut, {kind, dataEnd, codec}: InflateOptions): Promise<InflatedRange> {
  const {offset, bytes} = range
  const one = await inflateOne(kind, bytes, codec)
  if (one) return {range, tar: one, isMovable: offset < dataEnd}
  if (offset + bytes.length < dataEnd) throw unusable('several members where one file is')
  const several = await inflateRange(kind, bytes, codec)
  if (typeof several !== 'string') return {range, tar: several, isMovable: false}
  throw new CodedError('corrupt', `Cannot decompress a stream of a layer: ${several}`)
}

async function* batchesOf(ranges: AsyncIterable<Cut>, kind: MemberKind): AsyncGenerator<Cut[]> {
  let batch: Cut[] = []
  let size = 0
  for await (const range of ranges) {
    const claimed = claimedSize(kind, range.bytes) ?? 0
    if (claimed > MAX_RANGE_SIZE)
      throw unusable(`a stream that decompresses to more than ${MAX_RANGE_SIZE} bytes`)
    batch.push(range)
    size += range.bytes.length + claimed
    if (size < BATCH_SIZE) continue
    yield batch
    batch = []
    size = 0
  }
  if (batch.length > 0) yield batch
}
