// The bulk codec: native where the addon is built, node:zlib and node:crypto otherwise.

import type {BulkCodec, PieceLists, Spool} from '../compression/codec.ts'
import {CodedError, messageOf} from '../errors/coded-error.ts'
import {createInOrder} from '../io/in-order.ts'
import {type Addon, findAddon} from './addon.ts'
import {createNodeCodec} from './node-codec.ts'

/** The fastest codec that this machine has. */
export function createBulkCodec(): BulkCodec {
  const addon = findAddon()
  return addon ? createNativeCodec(addon) : createNodeCodec()
}

/** libdeflate, libzstd and OpenSSL on libuv's thread pool. */
export function createNativeCodec(addon: Addon): BulkCodec {
  return {
    name: 'native',
    compressMembers: async (kind, level, spool, members) => {
      try {
        return await addon.compressMembers(kindNumber(kind), level, spool.storage, ...argumentsOf(members))
      } catch (cause) {
        throw failed('compress a batch of a layer', cause)
      }
    },
    hashPieces: async (spool, lists) => {
      try {
        return await addon.hashPieces(spool.storage, ...argumentsOf(lists))
      } catch (cause) {
        throw failed('hash a batch of a layer', cause)
      }
    },
    checksumPieces: async (spool, lists) => {
      try {
        return await addon.checksumPieces(spool.storage, ...argumentsOf(lists))
      } catch (cause) {
        throw failed('checksum a batch of a layer', cause)
      }
    },
    readPieces: async (spool, lists) => {
      try {
        return await addon.readPieces(spool.storage, ...argumentsOf(lists))
      } catch (cause) {
        throw failed('read a batch of a layer', cause)
      }
    },
    unpackStreams: async (kind, bytes, {streams, chunks, hashes}, fd) => {
      try {
        return await addon.unpackStreams(kindNumber(kind), bytes, streams, chunks, hashes, fd)
      } catch (cause) {
        throw failed('unpack a batch of a layer', cause)
      }
    },
    createDigester: () => {
      const digester = addon.createDigester()
      const inOrder = createInOrder()
      return {
        update: bytes => inOrder(() => addon.digesterUpdate(digester, bytes)),
        updatePieces: (spool: Spool, pieces: PieceLists) =>
          inOrder(() => addon.digesterUpdatePieces(digester, spool.storage, ...argumentsOf(pieces))),
        digest: () => inOrder(() => addon.digesterFinal(digester)),
      }
    },
    inflateMember: async (kind, bytes, size) => {
      try {
        // Memory is taken before anything is decompressed, so what cannot be must not ask for it.
        if (size > bytes.length * MAX_RATIO[kind]) throw new Error(`it cannot hold ${size} bytes`)
        return await addon.inflateMember(kindNumber(kind), bytes, size)
      } catch (cause) {
        const what = `Cannot decompress a ${kind} member of ${bytes.length} bytes: ${messageOf(cause)}`
        throw new CodedError('corrupt', what, {cause})
      }
    },
  }
}

/** The most bytes that one byte can decompress to: deflate's 258 for 2 bits, and a zstd block of 128 KiB in 4 bytes. */
const MAX_RATIO = {gzip: 1032, zstd: 32_768} as const

function kindNumber(kind: 'gzip' | 'zstd'): 0 | 1 {
  return kind === 'gzip' ? 0 : 1
}

function argumentsOf(lists: PieceLists): [Uint8Array, Float64Array, Float64Array, Uint32Array] {
  return [lists.literals, lists.offsets, lists.sizes, lists.counts]
}

function failed(what: string, cause: unknown): CodedError {
  return new CodedError('internal', `Cannot ${what}: ${messageOf(cause)}`, {cause})
}
