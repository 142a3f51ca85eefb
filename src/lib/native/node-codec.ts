// The bulk codec on Node's own zlib and crypto: slower, and with other (equally valid) bytes than the native one.

import {createHash, hash} from 'node:crypto'
import {read as readFile} from 'node:fs'
import {promisify} from 'node:util'
import {constants, crc32, deflateRaw, gunzip, zstdCompress, zstdDecompress} from 'node:zlib'
import type {BulkCodec, MemberKind, PieceLists, Spool} from '../compression/codec.ts'
import {CodedError, messageOf} from '../errors/coded-error.ts'
import {createInOrder} from '../io/in-order.ts'
import {CHECKSUM_SIZE, createCrc64} from './crc64.ts'

const deflateRawAsync = promisify(deflateRaw)
const gunzipAsync = promisify(gunzip)
const zstdCompressAsync = promisify(zstdCompress)
const zstdDecompressAsync = promisify(zstdDecompress)
const readAsync = promisify(readFile)

/** RFC 1952: deflate, no name, MTIME 0, XFL 0, OS 255. */
const GZIP_HEADER = Buffer.from([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff])
/** zlib's highest level; libdeflate has three more. */
const MAX_ZLIB_LEVEL = 9
/** Pieces are hashed this much at a time. */
const READ_SIZE = 1 << 20

export function createNodeCodec(): BulkCodec {
  return {
    name: 'node',
    compressMembers: async (kind, level, spool, members) => {
      // One after the other: each stream of zlib takes 256 KiB, and calls run beside each other anyway.
      const compressed: Uint8Array[] = []
      for (const bytes of gatherLists(spool, members)) {
        compressed.push(await compressMember(kind, level, await bytes))
      }
      return {
        bytes: Buffer.concat(compressed),
        sizes: Uint32Array.from(compressed, member => member.length),
      }
    },
    hashPieces: async (spool, lists) => {
      const hashes: Uint8Array[] = []
      for (const bytes of gatherLists(spool, lists)) hashes.push(hash('sha256', await bytes, 'buffer'))
      return Buffer.concat(hashes)
    },
    checksumPieces: async (spool, lists) => {
      const checksums = new Uint8Array(CHECKSUM_SIZE * lists.counts.length)
      let piece = 0
      for (const [list, count] of lists.counts.entries()) {
        const crc = createCrc64()
        for (const end = piece + count; piece < end; piece++) {
          for await (const part of readInParts(spool, lists, piece)) crc.update(part)
        }
        checksums.set(crc.digest(), CHECKSUM_SIZE * list)
      }
      return checksums
    },
    readPieces: async (spool, lists) => {
      const read: Uint8Array[] = []
      for (const bytes of gatherLists(spool, lists)) read.push(await bytes)
      return Buffer.concat(read)
    },
    createDigester: () => {
      const state = createHash('sha256')
      const inOrder = createInOrder()
      return {
        update: bytes => inOrder(async () => void state.update(bytes)),
        updatePieces: (spool, pieces) =>
          inOrder(async () => {
            for (let piece = 0; piece < pieces.sizes.length; piece++) {
              for await (const part of readInParts(spool, pieces, piece)) state.update(part)
            }
          }),
        digest: () => inOrder(async () => state.digest()),
      }
    },
    inflateMember,
  }
}

function* gatherLists(spool: Spool, lists: PieceLists): Iterable<Promise<Uint8Array>> {
  let piece = 0
  for (const count of lists.counts) {
    const pieces = Array.from({length: count}, (_, index) => piece + index)
    piece += count
    yield Promise.all(pieces.map(index => readPiece(spool, lists, index, 0, lists.sizes[index]!))).then(
      parts => Buffer.concat(parts),
    )
  }
}

/** A piece, `READ_SIZE` bytes at a time. */
async function* readInParts(spool: Spool, lists: PieceLists, piece: number): AsyncGenerator<Uint8Array> {
  const size = lists.sizes[piece]!
  for (let done = 0; done < size; done += READ_SIZE) {
    yield await readPiece(spool, lists, piece, done, Math.min(READ_SIZE, size - done))
  }
}

async function readPiece(
  spool: Spool,
  lists: PieceLists,
  piece: number,
  skip: number,
  size: number,
): Promise<Uint8Array> {
  const offset = lists.offsets[piece]!
  if (offset < 0) return within(lists.literals, -1 - offset + skip, size)
  if (typeof spool.storage !== 'number') return within(spool.storage, offset + skip, size)
  const bytes = Buffer.allocUnsafe(size)
  for (let done = 0; done < size; ) {
    const {bytesRead} = await readAsync(spool.storage, bytes, done, size - done, offset + skip + done)
    if (bytesRead === 0) {
      throw new CodedError('internal', 'Cannot read a layer: the temporary file is shorter than it should be')
    }
    done += bytesRead
  }
  return bytes
}

function within(bytes: Uint8Array, offset: number, size: number): Uint8Array {
  if (offset + size > bytes.length) {
    throw new CodedError('internal', 'Cannot read a layer: a piece lies outside of its source')
  }
  return bytes.subarray(offset, offset + size)
}

async function compressMember(kind: MemberKind, level: number, bytes: Uint8Array): Promise<Uint8Array> {
  if (kind === 'zstd') {
    const params = {[constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_contentSizeFlag]: 1}
    return zstdCompressAsync(bytes, {params, pledgedSrcSize: bytes.length} as Parameters<
      typeof zstdCompressAsync
    >[1])
  }
  const body = await deflateRawAsync(bytes, {level: Math.min(level, MAX_ZLIB_LEVEL)})
  const trailer = Buffer.alloc(8)
  trailer.writeUInt32LE(crc32(bytes), 0)
  trailer.writeUInt32LE(bytes.length % 2 ** 32, 4)
  return Buffer.concat([GZIP_HEADER, body, trailer])
}

async function inflateMember(kind: MemberKind, bytes: Uint8Array, size: number): Promise<Uint8Array> {
  const broken = (problem: string, cause?: unknown) =>
    new CodedError('corrupt', `Cannot decompress a ${kind} member of ${bytes.length} bytes: ${problem}`, {
      cause,
    })
  let inflated: Uint8Array
  try {
    // A byte more than wanted, because zlib reads 0 as "no limit".
    const options = {maxOutputLength: size + 1}
    inflated = kind === 'gzip' ? await gunzipAsync(bytes, options) : await zstdDecompressAsync(bytes, options)
  } catch (cause) {
    throw broken(messageOf(cause), cause)
  }
  if (inflated.length !== size) throw broken(`it holds ${inflated.length} bytes instead of ${size}`)
  return inflated
}
