// A TOC's JSON, cut where its entries end, so that it is parsed a little at a time: JSON.parse makes of each byte up to
// a hundred bytes of objects, and when memory runs out in it, V8 ends the whole process, not the thread.

import {CodedError} from '../errors/coded-error.ts'

export interface TocPieces {
  /** The TOC with an empty list of entries. */
  readonly frame: Uint8Array
  /** The list: some entries each, with the commas between them but not around them. Always at least one. */
  readonly pieces: readonly Uint8Array[]
}

/** A piece ends with the first entry that makes it this large. Bytes. */
const PIECE_SIZE = 256 << 10
/** A larger entry is not read: its extended attributes alone, which are what can be large, may have half of it. Bytes. */
const MAX_ENTRY_SIZE = 4 << 20
/** All besides the entries. Bytes. */
const MAX_FRAME_SIZE = 64 << 10

const [QUOTE, BACKSLASH, COMMA] = [0x22, 0x5c, 0x2c]
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d]
const KEY = new TextEncoder().encode('"entries"')

/**
 * Cuts the TOC. Whether it is JSON shows when frame and pieces are parsed, where a piece without entries is only right
 * when it is the only one. Throws `unsupported` for a TOC of which a part is too large, `corrupt` for one with two lists;
 * `where` names it.
 */
export function splitToc(json: Uint8Array, where: string): TocPieces {
  const pieces: Uint8Array[] = []
  /** Where the list starts and ends, and where what is not in a piece yet starts; -1: not seen. */
  let [start, end, from] = [-1, -1, -1]
  let isEntries = false
  let depth = 0
  const cut = (at: number): void => {
    if (at - from > PIECE_SIZE + MAX_ENTRY_SIZE) {
      throw new CodedError(
        'unsupported',
        `Cannot read ${where}: an entry has more than ${MAX_ENTRY_SIZE} bytes`,
      )
    }
    pieces.push(json.subarray(from, at))
    from = at + 1
  }
  for (let at = 0; at < json.length; at++) {
    const byte = json[at]
    if (byte === QUOTE) {
      const closing = endOfString(json, at)
      if (depth === 1) isEntries = equals(json.subarray(at, closing + 1), KEY)
      at = closing
    } else if (byte === OPEN_LIST || byte === OPEN_OBJECT) {
      if (depth++ !== 1 || !isEntries || byte === OPEN_OBJECT) continue
      if (start >= 0) throw new CodedError('corrupt', `Cannot read ${where}: it has two lists of entries`)
      start = from = at + 1
    } else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) {
      if (--depth !== 1 || start < 0 || end >= 0) continue
      cut(at)
      end = at
    } else if (byte === COMMA && depth === 2 && start >= 0 && end < 0 && at - from >= PIECE_SIZE) {
      cut(at)
    }
  }
  // A list that never ends leaves a frame that is no JSON.
  const frame = start < 0 ? json : without(json, start, end < 0 ? json.length : end)
  if (frame.length > MAX_FRAME_SIZE) {
    throw new CodedError('unsupported', `Cannot read ${where}: it has too much besides its entries`)
  }
  return {frame, pieces}
}

/** Where the string that starts at `at` has its closing quote; the end of `json` without one. */
function endOfString(json: Uint8Array, at: number): number {
  for (let next = at + 1; next < json.length; next++) {
    if (json[next] === BACKSLASH) next++
    else if (json[next] === QUOTE) return next
  }
  return json.length
}

function without(bytes: Uint8Array, start: number, end: number): Uint8Array {
  const rest = new Uint8Array(start + bytes.length - end)
  rest.set(bytes.subarray(0, start))
  rest.set(bytes.subarray(end), start)
  return rest
}

function equals(left: Uint8Array, right: Uint8Array): boolean {
  return left.length === right.length && left.every((byte, index) => byte === right[index])
}
