// How eStargz layers end: the TOC as the last file of the tar, in a gzip member of its own, then the footer.

import type {BulkCodec, MemberKind} from '../compression/codec.ts'
import type {Compressor, LayerEnding} from '../compression/layer-format.ts'
import {digestOf} from '../io/sha256.ts'
import {TOC_DIGEST} from '../oci/annotations.ts'
import {encodeHeaderBlock} from '../tar/header.ts'
import {BLOCK_SIZE, blockAligned} from '../tar/tar-entry.ts'
import {encodeExternalTocFooter, encodeFooter} from './footer.ts'
import {TOC_NAME} from './landmark.ts'
import {encodeToc} from './toc.ts'
import {tocOfPlan} from './toc-of-plan.ts'

/** An archive ends with two zero blocks. */
export const END_OF_ARCHIVE = new Uint8Array(2 * BLOCK_SIZE)

/** eStargz with its TOC in the layer. `level` is 0–12. */
export function estargzCompressor(level: number): Compressor {
  return gzipCompressor(level, (toc, tocOffset, codec) => embeddedToc(toc, tocOffset, {level, codec}))
}

/**
 * eStargz whose TOC goes to another image. A layer that was reordered gets the zero blocks that end an archive (the
 * reference leaves them out); one whose DiffID must stay has its own already: `lossless`.
 */
export function externalTocCompressor(level: number, options: {readonly lossless: boolean}): Compressor {
  return gzipCompressor(level, async (toc, _tocOffset, codec) => {
    const detachedToc = await compressPieces('gzip', level, tocTar(toc), codec)
    const footer = encodeExternalTocFooter()
    if (options.lossless) return {blobPieces: [footer], tarPieces: [], detachedToc}
    const end = await compressPieces('gzip', level, [END_OF_ARCHIVE], codec)
    return {blobPieces: [end, footer], tarPieces: [END_OF_ARCHIVE], detachedToc}
  })
}

/** What follows the members of an eStargz layer whose TOC is in it. */
export async function embeddedToc(
  toc: Uint8Array,
  tocOffset: number,
  {level, codec}: {readonly level: number; readonly codec: BulkCodec},
): Promise<Pick<LayerEnding, 'blobPieces' | 'tarPieces'>> {
  const tarPieces = tocTar(toc)
  const member = await compressPieces('gzip', level, tarPieces, codec)
  return {blobPieces: [member, encodeFooter(tocOffset)], tarPieces}
}

/** eStargz's TOC, with an ending of its own. */
function gzipCompressor(
  level: number,
  end: (
    toc: Uint8Array,
    tocOffset: number,
    codec: BulkCodec,
  ) => Promise<Omit<LayerEnding, 'toc' | 'annotations'>>,
): Compressor {
  return {
    memberKind: 'gzip',
    level,
    begin: ({codec, ...layer}) => ({
      async finish(placed, dataSize) {
        const toc = encodeToc(tocOfPlan(layer.plan, layer.chunkSize, placed))
        const ending = await end(toc, dataSize, codec)
        return {...ending, toc, annotations: {[TOC_DIGEST]: digestOf(toc)}}
      },
      [Symbol.asyncDispose]: async () => {},
    }),
  }
}

/** An archive with the TOC as its only file. In pieces, because a TOC may have a hundred MB. */
function tocTar(toc: Uint8Array): Uint8Array[] {
  const header = encodeHeaderBlock({name: TOC_NAME, typeflag: '0', size: toc.length})
  const padding = new Uint8Array(blockAligned(toc.length) - toc.length)
  return [header, toc, padding, END_OF_ARCHIVE]
}

/** One member of all pieces, which are not all empty; the largest is handed over without a copy, as if it were a spool. */
export async function compressPieces(
  kind: MemberKind,
  level: number,
  pieces: readonly Uint8Array[],
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
  return (await codec.compressMembers(kind, level, spool, members)).bytes
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
