// Decompressing bytes that are already in memory and may be followed by more than is wanted.

import {constants, createGunzip, createZstdDecompress} from 'node:zlib'
import {CodedError, messageOf} from '../errors/coded-error.ts'

/** Output pieces, bytes. */
const CHUNK_SIZE = 256 << 10

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
  const zlib =
    kind === 'gzip'
      ? createGunzip({chunkSize: CHUNK_SIZE, finishFlush: constants.Z_SYNC_FLUSH})
      : createZstdDecompress({chunkSize: CHUNK_SIZE})
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
