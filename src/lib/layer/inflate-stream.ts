// What a stream of a layer decompresses to.

import {claimedSize} from '../compression/claimed-size.ts'
import type {BulkCodec, MemberKind} from '../compression/codec.ts'
import {inflatePrefix} from '../io/inflate.ts'

/** Behind a chunk there are the headers of what comes next; a stream with more behind it is decompressed only so far. */
const MAX_EXCESS = 1 << 20

/**
 * At least the first `wanted` bytes of what `bytes` decompress to, or all when they are fewer. `bytes` start with the
 * stream's member and may run on beyond it. Throws `corrupt`.
 */
export async function inflateStream(
  kind: MemberKind,
  bytes: Uint8Array,
  wanted: number,
  codec: BulkCodec,
): Promise<Uint8Array> {
  const size = claimedSize(kind, bytes)
  if (size !== undefined && size >= wanted && size <= wanted + MAX_EXCESS) {
    try {
      return await codec.inflateMember(kind, bytes, size)
    } catch {
      // More than one member, or not all of one: the slow way finds out.
    }
  }
  return inflatePrefix(kind, bytes, wanted)
}
