// Decompression in plain JavaScript, for browsers and other places without node:zlib.

import {Gunzip} from 'fflate'
import {CodedError, messageOf} from '../errors/coded-error.ts'

/** Input is handed over this much at a time, bytes, so that a bomb stops soon after the limit. */
const STEP = 16 << 10

/**
 * The first `maxSize` bytes of what gzip members decompress to, or all when they are fewer; like `inflatePrefix` of
 * inflate.ts. Throws `corrupt` for damaged data; data that are cut short give what they have. Checksums of members are
 * not looked at: what is read from a layer has its digest checked.
 */
export function gunzipPrefix(bytes: Uint8Array, maxSize: number): Uint8Array {
  const parts: Uint8Array[] = []
  let size = 0
  const gunzip = new Gunzip(part => {
    parts.push(part)
    size += part.length
  })
  try {
    for (let at = 0; at < bytes.length && size < maxSize; at += STEP) {
      gunzip.push(bytes.subarray(at, at + STEP))
    }
  } catch (cause) {
    const problem = `Cannot decompress ${bytes.length} bytes of gzip: ${messageOf(cause)}`
    throw new CodedError('corrupt', problem, {cause})
  }
  return joined(parts, Math.min(size, maxSize))
}

function joined(parts: readonly Uint8Array[], size: number): Uint8Array {
  const bytes = new Uint8Array(size)
  let at = 0
  for (const part of parts) {
    bytes.set(part.subarray(0, size - at), at)
    at += Math.min(part.length, size - at)
  }
  return bytes
}
