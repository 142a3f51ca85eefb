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
    compressMembers: (kind, level, spool, members) =>
      addon
        .compressMembers(kindNumber(kind), level, spool.storage, ...argumentsOf(members))
        .catch(failed('compress a batch of a layer')),
    hashPieces: (spool, lists) =>
      addon.hashPieces(spool.storage, ...argumentsOf(lists)).catch(failed('hash a batch of a layer')),
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
    inflateMember: (kind, bytes, size) =>
      addon.inflateMember(kindNumber(kind), bytes, size).catch(cause => {
        throw new CodedError(
          'corrupt',
          `Cannot decompress a ${kind} member of ${bytes.length} bytes: ${messageOf(cause)}`,
          {
            cause,
          },
        )
      }),
  }
}

function kindNumber(kind: 'gzip' | 'zstd'): 0 | 1 {
  return kind === 'gzip' ? 0 : 1
}

function argumentsOf(lists: PieceLists): [Uint8Array, Float64Array, Float64Array, Uint32Array] {
  return [lists.literals, lists.offsets, lists.sizes, lists.counts]
}

function failed(what: string): (cause: unknown) => never {
  return cause => {
    throw new CodedError('internal', `Cannot ${what}: ${messageOf(cause)}`, {cause})
  }
}
