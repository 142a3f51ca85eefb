// An archive with its sparse files made plain: whole, as every runtime unpacks them, so that they can be read from the archive.

import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import {blockAligned, payloadOffsetOf, type TarEntry} from './tar-entry.ts'

/** Bytes read or made at once. */
const CHUNK_SIZE = 1 << 20
const ZEROS = new Uint8Array(CHUNK_SIZE)

/**
 * The bytes of `tar` with the sparse files among `entries`, which are all in it, made plain. How much that is only the
 * consumer bounds: a hole may be of any size. It must not change the chunks.
 */
export async function* plainTar(
  tar: BlobSource,
  entries: readonly TarEntry[],
  options: CallOptions = {},
): AsyncGenerator<Uint8Array> {
  let end = 0
  for (const entry of entries) {
    if (!entry.sparse) continue
    const {map, header} = entry.sparse
    yield* stretch(tar, end, entry.headerOffset, options)
    yield header
    let at = payloadOffsetOf(entry)
    let position = 0
    for (const [index, offset] of map.offsets.entries()) {
      yield* zeros(offset - position)
      const size = map.sizes[index]!
      yield* stretch(tar, at, at + size, options)
      at += size
      position = offset + size
    }
    yield* zeros(blockAligned(map.realSize) - position)
    end = payloadOffsetOf(entry) + blockAligned(at - payloadOffsetOf(entry))
  }
  // Of an archive that is cut off after the last payload, its padding may be missing.
  yield* stretch(tar, Math.min(end, tar.size), tar.size, options)
}

async function* stretch(
  tar: BlobSource,
  start: number,
  end: number,
  options: CallOptions,
): AsyncGenerator<Uint8Array> {
  for (let at = start; at < end; at += CHUNK_SIZE)
    yield await tar.read(at, Math.min(CHUNK_SIZE, end - at), options)
}

function* zeros(size: number): Generator<Uint8Array> {
  for (let left = size; left > 0; left -= CHUNK_SIZE) yield ZEROS.subarray(0, Math.min(CHUNK_SIZE, left))
}
