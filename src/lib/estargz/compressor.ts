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
      const tarPieces = tocTar(toc)
      const member = await compressPieces(tarPieces, level, codec)
      return {blobPieces: [member, encodeFooter(tocOffset)], tarPieces}
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
      const detachedToc = await compressPieces(tocTar(toc), level, codec)
      const footer = encodeExternalTocFooter()
      if (options.lossless) return {blobPieces: [footer], tarPieces: [], detachedToc}
      const end = await compressPieces([END_OF_ARCHIVE], level, codec)
      return {blobPieces: [end, footer], tarPieces: [END_OF_ARCHIVE], detachedToc}
    },
  }
}

/** An archive with the TOC as its only file. In pieces, because a TOC may have a hundred MB. */
function tocTar(toc: Uint8Array): Uint8Array[] {
  const header = encodeHeaderBlock({name: TOC_NAME, typeflag: '0', size: toc.length})
  const padding = new Uint8Array(blockAligned(toc.length) - toc.length)
  return [header, toc, padding, END_OF_ARCHIVE]
}

/** One member of all pieces; the largest is handed over without a copy, as if it were a spool. */
async function compressPieces(
  pieces: readonly Uint8Array[],
  level: number,
  codec: BulkCodec,
): Promise<Uint8Array> {
  const largest = pieces.reduce((left, right) => (right.length > left.length ? right : left))
  const literals = join(pieces.filter(piece => piece !== largest))
  let literalsAt = 0
  const offsets = pieces.map(piece => {
    if (piece === largest) return 0
    literalsAt += piece.length
    return -1 - (literalsAt - piece.length)
  })
  const members = {
    literals,
    offsets: Float64Array.from(offsets),
    sizes: Float64Array.from(pieces, piece => piece.length),
    counts: Uint32Array.of(pieces.length),
  }
  const spool = {size: largest.length, storage: largest}
  return (await codec.compressMembers('gzip', level, spool, members)).bytes
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
