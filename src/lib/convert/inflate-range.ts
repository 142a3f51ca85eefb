// Decompresses the bytes of a blob between the starts of two streams: one member in most layers, several in some.

import {claimedSize} from '../compression/claimed-size.ts'
import type {BulkCodec, MemberKind} from '../compression/codec.ts'
import {messageOf} from '../errors/coded-error.ts'
import {MAX_CHUNK_SIZE} from '../estargz/plan-layer.ts'
import {inflatePrefix} from '../io/inflate.ts'
import {frameContentSize, isSkippableFrame, splitZstdFrames} from '../io/zstd-frames.ts'

/** Bytes of a blob. */
export interface Range {
  readonly offset: number
  readonly size: number
}

/** A chunk, and as many headers behind it as anybody may have put there. */
const MAX_OUTPUT_SIZE = 4 * MAX_CHUNK_SIZE

/** What the members in `bytes` decompress to, or what is wrong with them. */
export async function inflateRange(
  kind: MemberKind,
  bytes: Uint8Array,
  codec: BulkCodec,
): Promise<Uint8Array | string> {
  try {
    if (kind === 'zstd') return await inflateFrames(bytes, codec)
    return (await inflateOne('gzip', bytes, codec)) ?? (await inflateAll('gzip', bytes))
  } catch (error) {
    return messageOf(error)
  }
}

/**
 * What a range decompresses to that is one member of the size that it says and nothing else, so that it can be put into
 * another blob as it is; undefined for any other. Only the native codec sees what follows a member.
 */
export async function inflateOne(
  kind: MemberKind,
  bytes: Uint8Array,
  codec: BulkCodec,
): Promise<Uint8Array | undefined> {
  const size = claimedSize(kind, bytes)
  if (size === undefined || size > MAX_OUTPUT_SIZE) return undefined
  return codec.inflateMember(kind, bytes, size).catch(() => undefined)
}

/** zstd frames one by one; skippable ones hold nothing. */
async function inflateFrames(bytes: Uint8Array, codec: BulkCodec): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const frame of splitZstdFrames(once(bytes), 'the stream')) {
    if (isSkippableFrame(frame)) continue
    const part = await inflateFrame(frame, codec)
    size += part.length
    checkOutputSize(size)
    parts.push(part)
  }
  return parts.length === 1 ? parts[0]! : Buffer.concat(parts)
}

async function inflateFrame(frame: Uint8Array, codec: BulkCodec): Promise<Uint8Array> {
  const size = frameContentSize(frame)
  if (size === undefined) return inflateAll('zstd', frame)
  checkOutputSize(size)
  return codec.inflateMember('zstd', frame, size)
}

async function inflateAll(kind: MemberKind, bytes: Uint8Array): Promise<Uint8Array> {
  const inflated = await inflatePrefix(kind, bytes, MAX_OUTPUT_SIZE + 1)
  checkOutputSize(inflated.length)
  return inflated
}

function checkOutputSize(size: number): void {
  if (size > MAX_OUTPUT_SIZE) throw new RangeError(`it decompresses to more than ${MAX_OUTPUT_SIZE} bytes`)
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
