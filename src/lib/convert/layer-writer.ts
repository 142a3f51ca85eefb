// Writes a converted layer's members in order, keeping the books: where each unit came to be, and all digests.

import type {BulkCodec, Spool} from '../compression/codec.ts'
import type {LayerEnding} from '../compression/layer-format.ts'
import type {LayerPlan} from '../estargz/plan-layer.ts'
import {HASH_SIZE, type PlacedUnits} from '../estargz/toc-of-plan.ts'
import {chunksOfUnits} from '../estargz/units.ts'
import type {BlobWriter} from '../oci/content-store.ts'
import {type Digest, digestFromHash} from '../oci/digest.ts'
import type {MemberBatch} from './compress-plan.ts'

/** What was written, all in all. */
export interface WrittenLayer {
  readonly digest: Digest
  readonly size: number
  readonly diffId: Digest
  readonly uncompressedSize: number
}

export interface LayerWriter {
  writeMembers(batch: MemberBatch): Promise<void>
  /** After all members. */
  placedUnits(): PlacedUnits
  /** Writes what follows the members. The caller commits the blob. */
  writeEnding(ending: LayerEnding): Promise<WrittenLayer>
  /** Bytes so far, of the blob and of what it decompresses to. */
  blobSize(): number
  tarSize(): number
  memberCount(): number
  /** Members that were the source's own. */
  movedCount(): number
}

export interface LayerWriterOptions {
  readonly blob: BlobWriter
  readonly codec: BulkCodec
  readonly spool: Spool
  readonly plan: LayerPlan
}

export function createLayerWriter({blob, codec, spool, plan}: LayerWriterOptions): LayerWriter {
  const {units} = plan
  const offsets = new Float64Array(units.count)
  const innerOffsets = new Float64Array(units.count)
  const chunkHashes = new Uint8Array(units.count * HASH_SIZE)
  const blobDigester = codec.createDigester()
  const diffIdDigester = codec.createDigester()
  const files = createFileDigester({codec, spool, plan})
  let blobSize = 0
  let tarSize = 0
  let memberCount = 0
  let movedCount = 0

  async function writeMembers(batch: MemberBatch): Promise<void> {
    chunkHashes.set(batch.chunkHashes, batch.bounds[0]! * HASH_SIZE)
    for (const [index, size] of batch.sizes.entries()) {
      let innerOffset = 0
      for (let unit = batch.bounds[index]!; unit < batch.bounds[index + 1]!; unit++) {
        offsets[unit] = blobSize
        innerOffsets[unit] = innerOffset
        innerOffset += units.sizes[unit]!
      }
      blobSize += size
      tarSize += innerOffset
      memberCount++
      movedCount += batch.moved[index]!
    }
    await Promise.all([
      blob.write(batch.bytes),
      blobDigester.update(batch.bytes),
      diffIdDigester.updatePieces(spool, batch.pieces),
      files.hashUnits(batch.bounds[0]!, batch.bounds.at(-1)!),
    ])
  }

  async function writeEnding({blobPieces, tarPieces}: LayerEnding): Promise<WrittenLayer> {
    for (const piece of blobPieces) {
      await Promise.all([blob.write(piece), blobDigester.update(piece)])
    }
    for (const piece of tarPieces) await diffIdDigester.update(piece)
    return {
      digest: digestFromHash(await blobDigester.digest()),
      size: blobSize + sumOfSizes(blobPieces),
      diffId: digestFromHash(await diffIdDigester.digest()),
      uncompressedSize: tarSize + sumOfSizes(tarPieces),
    }
  }

  return {
    writeMembers,
    placedUnits: () => ({offsets, innerOffsets, chunkHashes, fileDigests: files.digests()}),
    writeEnding,
    blobSize: () => blobSize,
    tarSize: () => tarSize,
    memberCount: () => memberCount,
    movedCount: () => movedCount,
  }
}

function sumOfSizes(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0)
}

interface FileDigester {
  /** Hashes what the units before `endUnit` add to files of several chunks. */
  hashUnits(startUnit: number, endUnit: number): Promise<void>
  digests(): ReadonlyMap<number, Digest>
}

/** Digests of files of several chunks; one of a single chunk has its chunk's. */
function createFileDigester({
  codec,
  spool,
  plan,
}: Pick<LayerWriterOptions, 'codec' | 'spool' | 'plan'>): FileDigester {
  const large = plan.entries.filter(entry => entry.unitCount > 1)
  const digests = new Map<number, Digest>()
  let index = 0
  let digester = codec.createDigester()

  async function hashUnits(startUnit: number, endUnit: number): Promise<void> {
    for (; index < large.length; index++) {
      const {firstUnit, unitCount} = large[index]!
      const first = Math.max(startUnit, firstUnit)
      const end = Math.min(endUnit, firstUnit + unitCount)
      if (first >= end) return
      const chunks = Array.from({length: end - first}, (_, offset) => first + offset)
      await digester.updatePieces(spool, chunksOfUnits(plan.units, chunks))
      if (end < firstUnit + unitCount) return
      digests.set(firstUnit, digestFromHash(await digester.digest()))
      digester = codec.createDigester()
    }
  }

  return {hashUnits, digests: () => digests}
}
