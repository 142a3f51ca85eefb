// Messages that carry a blob's bytes to containerd, made in place: the general encoder would copy every byte twice.

import {create, toBinary} from '@bufbuild/protobuf'
import {WriteContentRequestSchema} from './proto/content_pb.ts'

/** Bytes gathered in a message: fewer, larger messages cost both sides less. */
const DATA_SIZE = 1024 * 1024
/** Room before the bytes: action and offset (at most 2 + 11 bytes), then key and length of the data (1 + 5). */
const HEADER_SIZE = 32

const WRITE = 1
/** Key of the field `data` of `WriteContentRequest`: number 6, wire type 2 ("length-delimited"). */
const DATA_KEY = (6 << 3) | 2

export interface DataMessages {
  /** Copies what fits; resolves to how many bytes those were. */
  add(bytes: Uint8Array): number
  /** Bytes gathered. */
  size(): number
  isFull(): boolean
  /** The encoded message of what was gathered, which starts at `offset` of the blob; then gathers anew. */
  take(offset: number): Buffer
}

/** Gathers bytes in `count` buffers in turn: a message stays as it is until `count - 1` others have been taken. */
export function createDataMessages(count: number): DataMessages {
  const buffers: Buffer[] = []
  let index = 0
  let filled = 0
  const current = () => (buffers[index] ??= Buffer.allocUnsafeSlow(HEADER_SIZE + DATA_SIZE))
  return {
    add(bytes) {
      const part = bytes.subarray(0, DATA_SIZE - filled)
      current().set(part, HEADER_SIZE + filled)
      filled += part.length
      return part.length
    },
    size: () => filled,
    isFull: () => filled === DATA_SIZE,
    take(offset) {
      const fields = create(WriteContentRequestSchema, {action: WRITE, offset: BigInt(offset)})
      const header = [...toBinary(WriteContentRequestSchema, fields), DATA_KEY, ...varint(filled)]
      const start = HEADER_SIZE - header.length
      const message = current()
      message.set(header, start)
      const taken = message.subarray(start, HEADER_SIZE + filled)
      index = (index + 1) % count
      filled = 0
      return taken
    },
  }
}

/** A number as protobuf writes it: seven bits a byte, lowest first. */
function varint(value: number): number[] {
  const bytes: number[] = []
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return [...bytes, rest]
    bytes.push((rest & 0x7f) | 0x80)
  }
}
