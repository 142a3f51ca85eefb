// Moves compressed members of a lazily readable source into the converted layer as they are.
//
// A member moves when it holds the very bytes of a member that is to be written, so only files whose neighbours change are
// compressed again. And only when our compressor made it, at this level: then compressing it again would give the same
// bytes, and the output stays a function of the tar and the options alone.

import type {BulkCodec, PieceLists} from '../compression/codec.ts'
import type {Compressor} from '../compression/layer-format.ts'
import type {SourceMembers} from './source-members.ts'
import type {SpooledLayer} from './spool-layer.ts'

/** Members that may move. */
export interface MovableMembers {
  /** For each list: the index of the member that holds exactly its bytes, or -1. */
  match(lists: PieceLists): Int32Array
  /** The compressed bytes of these members. */
  read(indexes: readonly number[]): Promise<Uint8Array[]>
}

/** Members that are compressed again to learn whether the compressor is ours, and how large they may be, bytes. */
const SAMPLES = {count: 8, size: 512 << 10}

/** The members that may move into what `compressor` writes; undefined when another one made them. */
export async function movableMembers(
  {members, spool}: Pick<SpooledLayer, 'members' | 'spool'>,
  compressor: Pick<Compressor, 'memberKind' | 'level'>,
  codec: BulkCodec,
): Promise<MovableMembers | undefined> {
  if (members?.kind !== compressor.memberKind) return undefined
  const {kind, offsets, sizes, tarOffsets, tarSizes, blob} = members
  const samples = sampleOf(members)
  const [originals, anew] = [
    await codec.readPieces(blob, rangesOf(offsets, sizes, samples)),
    await codec.compressMembers(kind, compressor.level, spool, rangesOf(tarOffsets, tarSizes, samples)),
  ]
  if (Buffer.compare(originals, anew.bytes) !== 0) return undefined
  const byTarOffset = new Map<number, number>()
  for (const [index, tarOffset] of tarOffsets.entries()) byTarOffset.set(tarOffset, index)
  return {
    match: lists => matchLists(lists, byTarOffset, tarSizes),
    async read(indexes) {
      const bytes = await codec.readPieces(blob, rangesOf(offsets, sizes, indexes))
      let at = 0
      return indexes.map(index => bytes.subarray(at, (at += sizes[index]!)))
    },
  }
}

/** Some of many ranges of a spool, each a list of its own. */
function rangesOf(
  offsets: readonly number[],
  sizes: readonly number[],
  indexes: readonly number[],
): PieceLists {
  return {
    literals: new Uint8Array(0),
    offsets: Float64Array.from(indexes, index => offsets[index]!),
    sizes: Float64Array.from(indexes, index => sizes[index]!),
    counts: new Uint32Array(indexes.length).fill(1),
  }
}

/** Some members from all over the layer, not too large. */
function sampleOf({tarSizes}: SourceMembers): number[] {
  const candidates = [...tarSizes.keys()].filter(index => tarSizes[index]! <= SAMPLES.size)
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
