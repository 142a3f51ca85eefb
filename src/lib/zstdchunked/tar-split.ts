// tar-split: what is needed besides the files to make the tar of a layer again, byte for byte. Podman keeps it
// with a layer that it fetched in parts, and checks by it that layer, TOC and DiffID agree.
//
// One JSON object a line (github.com/vbatts/tar-split, tar/storage): type 2 is a stretch of the tar ("segment") in base64,
// type 1 a file's contents, given by size and CRC-64. A segment holds the padding of the file before, and all headers of
// the one after; the last holds the end of the archive.

import type {BulkCodec, PieceLists, Spool} from '../compression/codec.ts'
import {compressPieces, joinPieces} from '../compression/joined-pieces.ts'
import type {LayerToWrite} from '../compression/layer-format.ts'
import {END_OF_ARCHIVE} from '../estargz/compressor.ts'
import {isLandmark, LANDMARK_CONTENTS} from '../estargz/landmark.ts'
import type {PlannedEntry} from '../estargz/plan-layer.ts'
import {encodeBase64} from '../io/base64.ts'
import {encodeByteText} from '../io/byte-text.ts'
import {mapOrdered} from '../io/ordered-map.ts'
import {Utf8Buffer} from '../io/utf8-buffer.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {blockAligned, payloadOffsetOf, type TarEntry} from '../tar/tar-entry.ts'

/** A layer's tar-split. */
export interface TarSplit {
  /** zstd frames, one after the other. */
  readonly bytes: Uint8Array
  /** Bytes of what they decompress to. */
  readonly rawSize: number
}

const CHECKSUM_SIZE = 8
/** Bytes of contents, and entries, that one call reads. */
const BATCH_SIZE = 8 << 20
const BATCH_ENTRIES = 1024
/** Calls under way. */
const BATCHES_AHEAD = 4
/** Bytes of JSON in one zstd frame, or a little more. */
const FRAME_SIZE = 4 << 20

/** The tar-split of a planned layer whose archive ends with two zero blocks. */
export async function buildTarSplit(
  {plan, spool, codec}: Pick<LayerToWrite, 'plan' | 'spool' | 'codec'>,
  level: number,
  options: CallOptions = {},
): Promise<TarSplit> {
  const frames: Uint8Array[] = []
  let rawSize = 0
  const text = new Utf8Buffer()
  const endFrame = async () => {
    const raw = text.take()
    rawSize += raw.length
    frames.push(await compressPieces('zstd', level, joinPieces([raw]), codec))
  }
  const read = async (batch: readonly PlannedEntry[]) => {
    options.signal?.throwIfAborted()
    return {batch, ...(await readBatch(batch, spool, codec))}
  }
  const batches = mapOrdered(batchesOf(plan.entries), read, {
    weightOf: () => 1,
    maxWeight: BATCHES_AHEAD,
  })
  let position = 0
  let padding: Uint8Array = new Uint8Array(0)
  for await (const {batch, around, checksums} of batches) {
    let at = 0
    for (const [index, {entry}] of batch.entries()) {
      // What is between the contents of two files is in one piece already, unless batches meet there.
      const paddingSize = index === 0 ? 0 : paddingOf(batch[index - 1]!.entry)
      const segment = around.subarray(at, at + paddingSize + headerSizeOf(entry))
      at += segment.length
      text.append(segmentLine(index === 0 ? Buffer.concat([padding, segment]) : segment, position++))
      const checksum = checksums.subarray(index * CHECKSUM_SIZE, (index + 1) * CHECKSUM_SIZE)
      text.append(fileLine(entry, checksum, position++))
    }
    padding = around.slice(at)
    if (text.size >= FRAME_SIZE) await endFrame()
  }
  text.append(segmentLine(Buffer.concat([padding, END_OF_ARCHIVE]), position))
  await endFrame()
  return {bytes: Buffer.concat(frames), rawSize}
}

function* batchesOf(entries: readonly PlannedEntry[]): Generator<PlannedEntry[]> {
  let batch: PlannedEntry[] = []
  let size = 0
  for (const planned of entries) {
    batch.push(planned)
    size += planned.entry.size
    if (size < BATCH_SIZE && batch.length < BATCH_ENTRIES) continue
    yield batch
    batch = []
    size = 0
  }
  if (batch.length > 0) yield batch
}

/** Each entry's header and the padding after its contents, one after the other, and the checksums of these. */
async function readBatch(batch: readonly PlannedEntry[], spool: Spool, codec: BulkCodec) {
  const lists = piecesOf(batch)
  const [around, checksums] = await Promise.all([
    codec.readPieces(spool, lists.around),
    codec.checksumPieces(spool, lists.contents),
  ])
  return {around, checksums}
}

function headerSizeOf({foldedHeader, headerSize}: TarEntry): number {
  return foldedHeader?.length ?? headerSize
}

function paddingOf({size}: TarEntry): number {
  return blockAligned(size) - size
}

/** Where in the spool the bytes are; folded headers and our own landmark are literals. */
function piecesOf(batch: readonly PlannedEntry[]): {
  readonly around: PieceLists
  readonly contents: PieceLists
} {
  const literals: Uint8Array[] = []
  let literalsSize = 0
  const around: Piece[] = []
  const contents: Piece[] = []
  const addLiteral = (bytes: Uint8Array): number => {
    literals.push(bytes)
    literalsSize += bytes.length
    return -1 - (literalsSize - bytes.length)
  }
  for (const {entry} of batch) {
    const {foldedHeader, size} = entry
    const paddingSize = paddingOf(entry)
    if (foldedHeader) around.push([addLiteral(foldedHeader), foldedHeader.length])
    else around.push([entry.headerOffset, entry.headerSize])
    if (isLandmark(entry.path)) {
      contents.push([addLiteral(Uint8Array.of(LANDMARK_CONTENTS)), size])
      around.push([addLiteral(new Uint8Array(paddingSize)), paddingSize])
    } else {
      contents.push([payloadOffsetOf(entry), size])
      around.push([payloadOffsetOf(entry) + size, paddingSize])
    }
  }
  const joined = Buffer.concat(literals)
  return {around: oneListEach(around, joined), contents: oneListEach(contents, joined)}
}

/** Offset and size, as in `PieceLists`. */
type Piece = readonly [number, number]

function oneListEach(pieces: readonly Piece[], literals: Uint8Array): PieceLists {
  return {
    literals,
    offsets: Float64Array.from(pieces, ([offset]) => offset),
    sizes: Float64Array.from(pieces, ([, size]) => size),
    counts: new Uint32Array(pieces.length).fill(1),
  }
}

function segmentLine(bytes: Uint8Array, position: number): string {
  return `{"type":2,"payload":"${encodeBase64(bytes)}","position":${position}}\n`
}

/** Names that are no UTF-8 have a field of their own; an empty file has no checksum. */
function fileLine({name, size}: TarEntry, checksum: Uint8Array, position: number): string {
  const named = name.isWellFormed()
    ? `"name":${JSON.stringify(name)}`
    : `"name_raw":"${encodeBase64(encodeByteText(name))}"`
  const sized = size > 0 ? `,"size":${size},"payload":"${encodeBase64(checksum)}"` : ',"payload":null'
  return `{"type":1,${named}${sized},"position":${position}}\n`
}
