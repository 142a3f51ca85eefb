// Compresses a planned layer's units into members, in parallel, and yields them in order. Which units share a member is
// decided here, from the plan and compressed sizes alone, never from what runs when.

import {availableParallelism} from 'node:os'
import type {BulkCodec, CompressedMembers, MemberKind, PieceLists, Spool} from '../compression/codec.ts'
import {HASH_SIZE} from '../estargz/toc-of-plan.ts'
import {chunksOfUnits, piecesOfUnits, type Units} from '../estargz/units.ts'
import {mapOrdered} from '../io/ordered-map.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {MovableMembers} from './reuse-members.ts'

export interface CompressPlanOptions extends CallOptions {
  readonly codec: BulkCodec
  readonly memberKind: MemberKind
  readonly level: number
  /** Compressed bytes that a stream has at least, where there are as many; 0: one unit per stream. */
  readonly minChunkSize: number
  /** Members of the source that need not be compressed. */
  readonly movable?: MovableMembers | undefined
}

/** Some consecutive members. Member `i` holds the units from `bounds[i]` to before `bounds[i + 1]`. */
export interface MemberBatch {
  readonly bounds: readonly number[]
  readonly pieces: PieceLists
  readonly bytes: Uint8Array
  readonly sizes: Uint32Array
  /** SHA-256 of the payload of each unit of the batch, 32 bytes after 32 bytes. */
  readonly chunkHashes: Uint8Array
  /** For each member: 1 when it was moved from the source as it was, 0 when it was compressed. */
  readonly moved: Uint8Array
}

/** Decompressed bytes of one call: enough to make its cost vanish, small enough that many fit in memory. */
const BATCH_SIZE = 1 << 20
/**
 * Decompressed bytes of the calls under way or waiting to be written: bounds the memory of one layer's conversion, of which
 * several may run. A chunk of the usual 4 MiB for each processor, and one that waits for every second.
 */
const WINDOW_SIZE = Math.min(48, Math.max(24, 6 * availableParallelism())) << 20
/** Members of one call: bounds its tables where members are tiny. */
const BATCH_MEMBERS = 4096
/** Decompressed bytes that one member may have with `minChunkSize`: readers inflate from its start. */
const MAX_MEMBER_SIZE = 64 << 20
/** Bytes of each chunk that are compressed to estimate how small it will be, and the level for that. */
const SAMPLE = {size: 32 << 10, level: 1}
/** Estimated sizes are taken to be this much too large, so that few streams turn out too small. */
const SAMPLE_MARGIN = 1.25

/** The members of a layer, in order. */
export async function* compressPlan(
  spool: Spool,
  units: Units,
  options: CompressPlanOptions,
): AsyncGenerator<MemberBatch> {
  const groups = options.minChunkSize > 0 ? await groupUnits(spool, units, options) : eachUnit(units)
  const batches = mapOrdered(
    batchesOf(units, groups),
    bounds => compressBatch(spool, units, bounds, options),
    {
      weightOf: bounds => sizeOfUnits(units, bounds),
      maxWeight: WINDOW_SIZE,
    },
  )
  yield* options.minChunkSize > 0 ? mergeSmallMembers(spool, units, batches, options) : batches
}

async function compressBatch(
  spool: Spool,
  units: Units,
  bounds: readonly number[],
  options: CompressPlanOptions,
): Promise<MemberBatch> {
  options.signal?.throwIfAborted()
  const pieces = piecesOfUnits(units, bounds)
  const [members, chunkHashes] = await Promise.all([
    makeMembers(spool, pieces, options),
    hashChunks(spool, units, bounds, options.codec),
  ])
  return {bounds, pieces, ...members, chunkHashes}
}

type MadeMembers = Pick<MemberBatch, 'bytes' | 'sizes' | 'moved'>

/** Moves what can be moved, and compresses the rest. */
async function makeMembers(
  spool: Spool,
  pieces: PieceLists,
  {codec, memberKind, level, movable}: CompressPlanOptions,
): Promise<MadeMembers> {
  const sources = movable?.match(pieces)
  if (!movable || !sources?.some(index => index >= 0)) {
    const moved = new Uint8Array(pieces.counts.length)
    return {...(await codec.compressMembers(memberKind, level, spool, pieces)), moved}
  }
  const rest = selectLists(pieces, list => sources[list]! < 0)
  const [compressed, originals] = await Promise.all([
    rest.counts.length > 0 ? codec.compressMembers(memberKind, level, spool, rest) : NO_MEMBERS,
    movable.read(Array.from(sources).filter(index => index >= 0)),
  ])
  const parts: Uint8Array[] = []
  let bytesAt = 0
  let [made, moved] = [0, 0]
  for (const index of sources) {
    if (index >= 0) {
      parts.push(originals[moved++]!)
    } else {
      const size = compressed.sizes[made++]!
      parts.push(compressed.bytes.subarray(bytesAt, bytesAt + size))
      bytesAt += size
    }
  }
  return {
    bytes: Buffer.concat(parts),
    sizes: Uint32Array.from(parts, part => part.length),
    moved: Uint8Array.from(sources, index => (index < 0 ? 0 : 1)),
  }
}

const NO_MEMBERS: CompressedMembers = {bytes: new Uint8Array(0), sizes: new Uint32Array(0)}

/** The lists that are wanted, in their order. */
function selectLists(lists: PieceLists, isWanted: (list: number) => boolean): PieceLists {
  const selected: number[] = []
  const counts: number[] = []
  let piece = 0
  for (const [list, count] of lists.counts.entries()) {
    if (isWanted(list)) {
      counts.push(count)
      for (let index = piece; index < piece + count; index++) selected.push(index)
    }
    piece += count
  }
  return {
    literals: lists.literals,
    offsets: Float64Array.from(selected, index => lists.offsets[index]!),
    sizes: Float64Array.from(selected, index => lists.sizes[index]!),
    counts: Uint32Array.from(counts),
  }
}

async function hashChunks(
  spool: Spool,
  units: Units,
  bounds: readonly number[],
  codec: BulkCodec,
): Promise<Uint8Array> {
  return codec.hashPieces(spool, chunksOfUnits(units, range(bounds[0]!, bounds.at(-1)!)))
}

/** Member bounds, cut into batches. */
function* batchesOf(units: Units, groups: Iterable<number>): Generator<number[]> {
  let bounds = [0]
  let size = 0
  for (const end of groups) {
    for (let unit = bounds.at(-1)!; unit < end; unit++) size += units.sizes[unit]!
    bounds.push(end)
    if (size >= BATCH_SIZE || bounds.length > BATCH_MEMBERS) {
      yield bounds
      bounds = [end]
      size = 0
    }
  }
  if (bounds.length > 1) yield bounds
}

/** One member per unit: where each ends. */
function eachUnit(units: Units): number[] {
  return range(1, units.count + 1)
}

/** Where each member ends so that, by estimate, all reach the minimum. */
async function groupUnits(spool: Spool, units: Units, options: CompressPlanOptions): Promise<number[]> {
  const estimates = await estimateSizes(spool, units, options)
  const ends: number[] = []
  let estimated = 0
  let size = 0
  for (let unit = 0; unit < units.count; unit++) {
    const isFull = estimated >= options.minChunkSize || size + units.sizes[unit]! > MAX_MEMBER_SIZE
    if (unit > 0 && (isFull || units.ownStream.has(unit))) {
      ends.push(unit)
      estimated = 0
      size = 0
    }
    estimated += estimates[unit]!
    size += units.sizes[unit]!
  }
  ends.push(units.count)
  return ends
}

/** What each unit will compress to, from a sample of its start; a little low rather than high. */
async function estimateSizes(
  spool: Spool,
  units: Units,
  options: CompressPlanOptions,
): Promise<Float64Array> {
  const {codec, memberKind, signal} = options
  const estimates = new Float64Array(units.count)
  const sample = async (bounds: readonly number[]) => {
    signal?.throwIfAborted()
    const indexes = range(bounds[0]!, bounds.at(-1)!)
    const samples = chunksOfUnits(units, indexes, SAMPLE.size)
    return {indexes, samples, ...(await codec.compressMembers(memberKind, SAMPLE.level, spool, samples))}
  }
  const batches = mapOrdered(batchesOf(units, eachUnit(units)), sample, {
    weightOf: bounds => sizeOfUnits(units, bounds),
    maxWeight: WINDOW_SIZE,
  })
  for await (const {indexes, samples, sizes} of batches) {
    for (const [index, unit] of indexes.entries()) {
      // Headers alone compress to next to nothing beside similar ones.
      const ratio = samples.sizes[index]! > 0 ? sizes[index]! / samples.sizes[index]! : 0
      estimates[unit] = (ratio * units.chunkSizes[unit]!) / SAMPLE_MARGIN
    }
  }
  return estimates
}

/**
 * Joins every member that turned out smaller than the minimum with the one after it, and compresses it again, unless
 * that one must start a stream, both together would be too large, or there is none. A fold over the members in order:
 * batches do not matter.
 */
async function* mergeSmallMembers(
  spool: Spool,
  units: Units,
  batches: AsyncIterable<MemberBatch>,
  options: CompressPlanOptions,
): AsyncGenerator<MemberBatch> {
  let small: MemberBatch | undefined
  for await (const batch of batches) {
    const kept: MemberBatch[] = []
    for (const member of splitBatch(batch)) {
      let grown: MemberBatch = member
      if (small && canJoin(units, small, member)) {
        grown = await compressBatch(spool, units, [small.bounds[0]!, member.bounds[1]!], options)
      } else if (small) {
        kept.push(small)
      }
      const isSmall = grown.sizes[0]! < options.minChunkSize
      if (!isSmall) kept.push(grown)
      small = isSmall ? grown : undefined
    }
    if (kept.length > 0) yield joinBatches(units, kept)
  }
  if (small) yield small
}

function canJoin(units: Units, left: MemberBatch, right: MemberBatch): boolean {
  const joined = sizeOfUnits(units, [left.bounds[0]!, right.bounds[1]!])
  return !units.ownStream.has(right.bounds[0]!) && joined <= MAX_MEMBER_SIZE
}

/** Each member of a batch as a batch of its own. */
function* splitBatch(batch: MemberBatch): Generator<MemberBatch> {
  const first = batch.bounds[0]!
  let bytesAt = 0
  let pieceAt = 0
  for (const [index, size] of batch.sizes.entries()) {
    const bounds = [batch.bounds[index]!, batch.bounds[index + 1]!]
    const pieceEnd = pieceAt + batch.pieces.counts[index]!
    yield {
      bounds,
      pieces: {
        literals: batch.pieces.literals,
        offsets: batch.pieces.offsets.subarray(pieceAt, pieceEnd),
        sizes: batch.pieces.sizes.subarray(pieceAt, pieceEnd),
        counts: batch.pieces.counts.subarray(index, index + 1),
      },
      bytes: batch.bytes.subarray(bytesAt, bytesAt + size),
      sizes: batch.sizes.subarray(index, index + 1),
      moved: batch.moved.subarray(index, index + 1),
      chunkHashes: batch.chunkHashes.subarray(
        (bounds[0]! - first) * HASH_SIZE,
        (bounds[1]! - first) * HASH_SIZE,
      ),
    }
    bytesAt += size
    pieceAt = pieceEnd
  }
}

/** Consecutive members as one batch. */
function joinBatches(units: Units, members: readonly MemberBatch[]): MemberBatch {
  const bounds = [members[0]!.bounds[0]!, ...members.map(member => member.bounds[1]!)]
  return {
    bounds,
    pieces: piecesOfUnits(units, bounds),
    bytes: Buffer.concat(members.map(member => member.bytes)),
    sizes: Uint32Array.from(members, member => member.sizes[0]!),
    moved: Uint8Array.from(members, member => member.moved[0]!),
    chunkHashes: Buffer.concat(members.map(member => member.chunkHashes)),
  }
}

function sizeOfUnits(units: Units, bounds: readonly number[]): number {
  let size = 0
  for (let unit = bounds[0]!; unit < bounds.at(-1)!; unit++) size += units.sizes[unit]!
  return size
}

function range(start: number, end: number): number[] {
  return Array.from({length: end - start}, (_, index) => start + index)
}
