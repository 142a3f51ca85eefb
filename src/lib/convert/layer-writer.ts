// Writes a converted layer's members in order, keeping the books: where each unit came to be, and all digests.

import type {BulkCodec, Spool, StreamDigester} from '../compression/codec.ts'
import type {LayerEnding} from '../compression/layer-format.ts'
import type {LayerPlan, PlannedEntry} from '../estargz/plan-layer.ts'
import {HASH_SIZE, type PlacedUnits} from '../estargz/toc-of-plan.ts'
import {chunksOfUnits, type Units} from '../estargz/units.ts'
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

export interface LayerWriterOptions {
  readonly blob: BlobWriter
  readonly codec: BulkCodec
  readonly spool: Spool
  readonly plan: LayerPlan
}

export class LayerWriter {
  readonly #blob: BlobWriter
  readonly #spool: Spool
  readonly #units: Units
  readonly #offsets: Float64Array
  readonly #innerOffsets: Float64Array
  readonly #chunkHashes: Uint8Array
  readonly #blobDigester: StreamDigester
  readonly #diffIdDigester: StreamDigester
  readonly #files: FileDigester
  #blobSize = 0
  #tarSize = 0
  #memberCount = 0
  #movedCount = 0

  constructor({blob, codec, spool, plan}: LayerWriterOptions) {
    this.#blob = blob
    this.#spool = spool
    this.#units = plan.units
    this.#offsets = new Float64Array(plan.units.count)
    this.#innerOffsets = new Float64Array(plan.units.count)
    this.#chunkHashes = new Uint8Array(plan.units.count * HASH_SIZE)
    this.#blobDigester = codec.createDigester()
    this.#diffIdDigester = codec.createDigester()
    this.#files = new FileDigester({codec, spool, plan})
  }

  /** Bytes so far, of the blob and of what it decompresses to. */
  get blobSize(): number {
    return this.#blobSize
  }
  get tarSize(): number {
    return this.#tarSize
  }

  get memberCount(): number {
    return this.#memberCount
  }

  /** Members that were the source's own. */
  get movedCount(): number {
    return this.#movedCount
  }

  async writeMembers(batch: MemberBatch): Promise<void> {
    this.#place(batch)
    await Promise.all([
      this.#blob.write(batch.bytes),
      this.#blobDigester.update(batch.bytes),
      this.#diffIdDigester.updatePieces(this.#spool, batch.pieces),
      this.#files.hashUnits(batch.bounds[0]!, batch.bounds.at(-1)!),
    ])
  }

  #place(batch: MemberBatch): void {
    this.#chunkHashes.set(batch.chunkHashes, batch.bounds[0]! * HASH_SIZE)
    for (const [index, size] of batch.sizes.entries()) {
      let innerOffset = 0
      for (let unit = batch.bounds[index]!; unit < batch.bounds[index + 1]!; unit++) {
        this.#offsets[unit] = this.#blobSize
        this.#innerOffsets[unit] = innerOffset
        innerOffset += this.#units.sizes[unit]!
      }
      this.#blobSize += size
      this.#tarSize += innerOffset
      this.#memberCount++
      this.#movedCount += batch.moved[index]!
    }
  }

  /** After all members. */
  placedUnits(): PlacedUnits {
    return {
      offsets: this.#offsets,
      innerOffsets: this.#innerOffsets,
      chunkHashes: this.#chunkHashes,
      fileDigests: this.#files.digests,
    }
  }

  /** Writes what follows the members. The caller commits the blob. */
  async writeEnding({blobPieces, tar}: LayerEnding): Promise<WrittenLayer> {
    for (const piece of blobPieces) {
      await Promise.all([this.#blob.write(piece), this.#blobDigester.update(piece)])
    }
    await this.#diffIdDigester.updatePieces(tar.spool, tar.pieces)
    return {
      digest: digestFromHash(await this.#blobDigester.digest()),
      size: this.#blobSize + sumOfSizes(blobPieces),
      diffId: digestFromHash(await this.#diffIdDigester.digest()),
      uncompressedSize: this.#tarSize + tar.size,
    }
  }
}

function sumOfSizes(pieces: readonly Uint8Array[]): number {
  return pieces.reduce((sum, piece) => sum + piece.length, 0)
}

/** Digests of files of several chunks; one of a single chunk has its chunk's. */
class FileDigester {
  readonly #codec: BulkCodec
  readonly #spool: Spool
  readonly #units: Units
  readonly #large: readonly PlannedEntry[]
  readonly #digests = new Map<number, Digest>()
  /** The one of the large files that is under way. */
  #index = 0
  #digester: StreamDigester

  constructor({codec, spool, plan}: Pick<LayerWriterOptions, 'codec' | 'spool' | 'plan'>) {
    this.#codec = codec
    this.#spool = spool
    this.#units = plan.units
    this.#large = plan.entries.filter(entry => entry.unitCount > 1)
    this.#digester = codec.createDigester()
  }

  /** By the first unit of each file. */
  get digests(): ReadonlyMap<number, Digest> {
    return this.#digests
  }

  /** Hashes what the units before `endUnit` add to files of several chunks. */
  async hashUnits(startUnit: number, endUnit: number): Promise<void> {
    for (; this.#index < this.#large.length; this.#index++) {
      const {firstUnit, unitCount} = this.#large[this.#index]!
      const first = Math.max(startUnit, firstUnit)
      const end = Math.min(endUnit, firstUnit + unitCount)
      if (first >= end) return
      const chunks = Array.from({length: end - first}, (_, offset) => first + offset)
      await this.#digester.updatePieces(this.#spool, chunksOfUnits(this.#units, chunks))
      if (end < firstUnit + unitCount) return
      this.#digests.set(firstUnit, digestFromHash(await this.#digester.digest()))
      this.#digester = this.#codec.createDigester()
    }
  }
}
