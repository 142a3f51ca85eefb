// What a member says of its size, which is worth a guess and no trust.

import {frameContentSize} from '../io/zstd-frames.ts'
import type {MemberKind} from './codec.ts'

/** RFC 1951: a byte of deflate stands for 1032 at most. */
const MAX_GZIP_RATIO = 1032
/** RFC 1952: header and trailer of the smallest member. */
const MIN_GZIP_SIZE = 18

/**
 * How large bytes say that they are when decompressed, if they are one member: a gzip member ends with its size, a zstd frame
 * begins with it. Undefined when they do not say, or nothing of their size can be so large.
 */
export function claimedSize(kind: MemberKind, bytes: Uint8Array): number | undefined {
  if (kind === 'zstd') return frameContentSize(bytes)
  if (bytes.length < MIN_GZIP_SIZE) return undefined
  const size = new DataView(bytes.buffer, bytes.byteOffset + bytes.length - 4).getUint32(0, true)
  return size > bytes.length * MAX_GZIP_RATIO ? undefined : size
}
