// Requests as the kernel writes them, for tests without a kernel.

import {type FuseRequest, parseRequest} from '../../src/lib/fuse/protocol.ts'

/** A number and its width in bits; anything else is bytes. */
export type Part = readonly [number | bigint, 16 | 32 | 64] | string | Uint8Array

/** Little-endian numbers and bytes, one after the other. */
export function bytesOf(...parts: Part[]): Buffer {
  return Buffer.concat(
    parts.map(part => {
      if (typeof part === 'string') return Buffer.from(part, 'latin1')
      if (part instanceof Uint8Array) return part
      const [value, bits] = part
      const bytes = Buffer.alloc(8)
      bytes.writeBigInt64LE(BigInt(value))
      return bytes.subarray(0, bits / 8)
    }),
  )
}

/** struct fuse_in_header and a body; `unique` is 7 and the waiting thread 4242. */
export function requestOf(opcode: number, nodeId: number | bigint, ...body: Part[]): FuseRequest {
  return requestWith(7n, opcode, nodeId, ...body)
}

export function requestWith(
  unique: bigint,
  opcode: number,
  nodeId: number | bigint,
  ...body: Part[]
): FuseRequest {
  const rest = bytesOf(...body)
  const start = bytesOf([40 + rest.length, 32], [opcode, 32], [BigInt.asIntN(64, unique), 64], [nodeId, 64])
  const end = bytesOf([1, 32], [2, 32], [4242, 32], [0, 32])
  return parseRequest(Buffer.concat([start, end, rest]))!
}
