// Where the frames of a zstd stream end (RFC 8878 section 3.1), found from block headers alone.

import {CodedError} from '../errors/coded-error.ts'

/** Little-endian magic numbers of section 3.1.1 and 3.1.2; the low four bits of a skippable frame's are free. */
const FRAME_MAGIC = 0xfd2fb528
const SKIPPABLE_MAGIC = 0x184d2a50
/** Magic, descriptor, window, dictionary and content size; with a block behind it, no frame is shorter. */
const MAX_FRAME_HEADER_SIZE = 18

/** What the next bytes are: collected in whole (`need` bytes), or passed over (`skip` bytes). */
type Part = 'magic' | 'skippable-size' | 'descriptor' | 'block-header'

/**
 * Passes bytes on unchanged, cut so that no chunk spans the end of a frame. Throws `corrupt`, naming `where`, when
 * something that is no frame follows one, or the stream ends inside a frame.
 */
export async function* splitZstdFrames(
  chunks: AsyncIterable<Uint8Array>,
  where: string,
): AsyncGenerator<Uint8Array> {
  let part: Part = 'magic'
  let need = 4
  let skip = 0
  let held: number[] = []
  let hasChecksum = false
  let isLastBlock = false
  let isOpen = false
  for await (const chunk of chunks) {
    let start = 0
    for (let at = 0; at < chunk.length; ) {
      if (skip > 0) {
        const passed = Math.min(skip, chunk.length - at)
        skip -= passed
        at += passed
      } else {
        isOpen = true
        held.push(chunk[at++]!)
        if (held.length < need) continue
        const value = littleEndian(held)
        held = []
        if (part === 'magic') {
          if (value === FRAME_MAGIC) [part, need] = ['descriptor', 1]
          else if ((value & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC) [part, need] = ['skippable-size', 4]
          else
            throw new CodedError(
              'corrupt',
              `Cannot decompress ${where}: there is no zstd frame where one must start`,
            )
        } else if (part === 'skippable-size') {
          skip = value
          isLastBlock = true
          hasChecksum = false
        } else if (part === 'descriptor') {
          hasChecksum = (value & 4) !== 0
          skip = headerRestSize(value)
          ;[part, need] = ['block-header', 3]
          isLastBlock = false
        } else {
          isLastBlock = (value & 1) !== 0
          const type = (value >> 1) & 3
          // An RLE block (type 1) holds one byte, whatever size it stands for.
          skip = (type === 1 ? 1 : value >> 3) + (isLastBlock && hasChecksum ? 4 : 0)
        }
      }
      if (skip === 0 && held.length === 0 && isLastBlock) {
        yield chunk.subarray(start, at)
        start = at
        ;[part, need, isLastBlock, isOpen] = ['magic', 4, false, false]
      }
    }
    if (start < chunk.length) yield chunk.subarray(start)
  }
  if (isOpen) throw new CodedError('corrupt', `Cannot decompress ${where}: it ends inside a zstd frame`)
}

/** Bytes of a frame header after its descriptor: window, dictionary id and content size (section 3.1.1.1). */
function headerRestSize(descriptor: number): number {
  const isSingleSegment = (descriptor & 0x20) !== 0
  const contentSizeFlag = descriptor >> 6
  const contentSize = contentSizeFlag === 0 ? (isSingleSegment ? 1 : 0) : 1 << contentSizeFlag
  const dictionaryId = [0, 1, 2, 4][descriptor & 3]!
  return (isSingleSegment ? 0 : 1) + dictionaryId + contentSize
}

function littleEndian(bytes: readonly number[]): number {
  return bytes.reduceRight((value, byte) => value * 256 + byte, 0)
}

/** Whether a frame is one that decompressors pass over (section 3.1.2). */
export function isSkippableFrame(frame: Uint8Array): boolean {
  return frame.length >= 4 && (littleEndian([...frame.subarray(0, 4)]) & 0xfffffff0) >>> 0 === SKIPPABLE_MAGIC
}

/** The size that a frame's header gives for its contents (section 3.1.1.1.4), bytes; undefined when it gives none. */
export function frameContentSize(frame: Uint8Array): number | undefined {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength)
  if (frame.length < MAX_FRAME_HEADER_SIZE || view.getUint32(0, true) !== FRAME_MAGIC) return undefined
  const descriptor = frame[4]!
  const isSingleSegment = (descriptor & 0x20) !== 0
  const at = 5 + (isSingleSegment ? 0 : 1) + [0, 1, 2, 4][descriptor & 3]!
  switch (descriptor >> 6) {
    case 0:
      return isSingleSegment ? frame[at] : undefined
    case 1:
      return view.getUint16(at, true) + 256
    case 2:
      return view.getUint32(at, true)
    default:
      return Number(view.getBigUint64(at, true))
  }
}
