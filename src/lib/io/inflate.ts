// Decompressing bytes that are already in memory and may be followed by more than is wanted.

import {constants, createGunzip, createZstdDecompress} from 'node:zlib'
import {CodedError, messageOf} from '../errors/coded-error.ts'

/** Output pieces, bytes: what may come of the input, so that a small one does not take a large buffer. */
const MAX_CHUNK_SIZE = 256 << 10
const MIN_CHUNK_SIZE = 1 << 10
const USUAL_MOST_RATIO = 16

/**
 * The first `maxSize` bytes of what `bytes` decompress to, or all when they are fewer. What comes after them is not
 * looked at, so that a chunk can be had from a member that goes on, and so that a bomb stops at the limit. Throws
 * `corrupt` for damaged data; gzip data that are cut short give what they have, so the caller checks the size.
 */
export async function inflatePrefix(
  kind: 'gzip' | 'zstd',
  bytes: Uint8Array,
  maxSize: number,
): Promise<Uint8Array> {
  const likelySize = Math.min(maxSize, bytes.length * USUAL_MOST_RATIO)
  const chunkSize = Math.min(MAX_CHUNK_SIZE, Math.max(MIN_CHUNK_SIZE, likelySize))
  const zlib =
    kind === 'gzip'
      ? createGunzip({chunkSize, finishFlush: constants.Z_SYNC_FLUSH})
      : createZstdDecompress({chunkSize})
  const parts: Uint8Array[] = []
  let size = 0
  try {
    zlib.end(bytes)
    for await (const part of zlib as AsyncIterable<Uint8Array>) {
      parts.push(part)
      size += part.length
      if (size >= maxSize) break
    }
  } catch (cause) {
    throw new CodedError(
      'corrupt',
      `Cannot decompress ${bytes.length} bytes of ${kind}: ${messageOf(cause)}`,
      {cause},
    )
  } finally {
    zlib.destroy()
  }
  return Buffer.concat(parts, Math.min(size, maxSize))
}
