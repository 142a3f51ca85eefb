// How eStargz layers end: the TOC as the last file of the tar, in a gzip member of its own, then the footer.

import type {BulkCodec} from '../compression/codec.ts'
import type {Compressor, LayerEnding} from '../compression/layer-format.ts'
import {encodeHeaderBlock} from '../tar/header.ts'
import {BLOCK_SIZE, blockAligned} from '../tar/tar-entry.ts'
import {encodeExternalTocFooter, encodeFooter} from './footer.ts'
import {TOC_NAME} from './landmark.ts'

/** An archive ends with two zero blocks. */
const END_OF_ARCHIVE = new Uint8Array(2 * BLOCK_SIZE)

/** eStargz with its TOC in the layer. `level` is 0–12. */
export function estargzCompressor(level: number): Compressor {
  return {
    memberKind: 'gzip',
    level,
    async finish(toc, tocOffset, codec) {
      const tarBytes = tocTar(toc)
      const member = await compressWhole(tarBytes, level, codec)
      return {blobBytes: join([member, encodeFooter(tocOffset)]), tarBytes}
    },
  }
}

/**
 * eStargz whose TOC goes to another image. A layer that was reordered gets the zero blocks that end an archive (the
 * reference leaves them out); one whose DiffID must stay has its own already: `lossless`.
 */
export function externalTocCompressor(level: number, options: {readonly lossless: boolean}): Compressor {
  return {
    memberKind: 'gzip',
    level,
    async finish(toc, _tocOffset, codec): Promise<LayerEnding> {
      const detachedToc = await compressWhole(tocTar(toc), level, codec)
      const tarBytes = options.lossless ? new Uint8Array(0) : END_OF_ARCHIVE
      const end = options.lossless ? tarBytes : await compressWhole(tarBytes, level, codec)
      return {blobBytes: join([end, encodeExternalTocFooter()]), tarBytes, detachedToc}
    },
  }
}

/** An archive with the TOC as its only file. */
function tocTar(toc: Uint8Array): Uint8Array {
  const header = encodeHeaderBlock({name: TOC_NAME, typeflag: '0', size: toc.length})
  return join([header, toc, new Uint8Array(blockAligned(toc.length) - toc.length), END_OF_ARCHIVE])
}

async function compressWhole(bytes: Uint8Array, level: number, codec: BulkCodec): Promise<Uint8Array> {
  const members = {
    literals: bytes,
    offsets: Float64Array.of(-1),
    sizes: Float64Array.of(bytes.length),
    counts: Uint32Array.of(1),
  }
  const compressed = await codec.compressMembers(
    'gzip',
    level,
    {size: 0, storage: new Uint8Array(0)},
    members,
  )
  return compressed.bytes
}

function join(parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}
