// Writing to files at a place: everything, whatever one call takes; and zeros as holes, which take no room.

import type {FileHandle} from 'node:fs/promises'

/** Zeros are looked for in stretches of this many bytes of the file: a file system's block, or several. */
const HOLE_SIZE = 64 << 10
const ZEROS = Buffer.alloc(HOLE_SIZE)

/** Writes `pieces` one after the other from `position` on. Throws what the file system says, such as that it is full. */
export async function writeFully(
  file: FileHandle,
  pieces: readonly Uint8Array[],
  position: number,
): Promise<void> {
  const total = pieces.reduce((sum, {length}) => sum + length, 0)
  if (total === 0) return
  const {bytesWritten} = await file.writev(pieces, position)
  if (bytesWritten === total) return
  // A write that was cut short says why when the rest is tried.
  await writeFully(file, [Buffer.concat(pieces).subarray(bytesWritten)], position + bytesWritten)
}

/**
 * Writes `bytes` at `position` of a file that has nothing there, and leaves out what is only zeros. The caller sets the
 * file's size in the end, because the last bytes may be a hole too.
 */
export async function writeSparsely(file: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const start = at
    while (at < bytes.length && !isHoleAt(bytes, at, position)) at = nextBlock(at, position, bytes.length)
    if (at > start) await writeFully(file, [bytes.subarray(start, at)], position + start)
    while (at < bytes.length && isHoleAt(bytes, at, position)) at = nextBlock(at, position, bytes.length)
  }
}

function isHoleAt(bytes: Uint8Array, at: number, position: number): boolean {
  const end = nextBlock(at, position, bytes.length)
  return bytes[at] === 0 && ZEROS.subarray(0, end - at).equals(bytes.subarray(at, end))
}

/** Where in the bytes the file's next block begins. */
function nextBlock(at: number, position: number, end: number): number {
  return Math.min(end, at + HOLE_SIZE - ((position + at) % HOLE_SIZE))
}
