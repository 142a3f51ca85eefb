// How eStargz layers end: the TOC as the last file of the tar, in a gzip member of its own, then the footer.

import type {BulkCodec, Spool} from '../compression/codec.ts'
import {compressPieces, type JoinedPieces, joinPieces} from '../compression/joined-pieces.ts'
import type {Compressor, LayerEnding} from '../compression/layer-format.ts'
import {spoolTexts} from '../compression/spooled-text.ts'
import {TOC_DIGEST} from '../oci/annotations.ts'
import {encodeHeaderBlock} from '../tar/header.ts'
import {BLOCK_SIZE, blockAligned} from '../tar/tar-entry.ts'
import {encodeExternalTocFooter, encodeFooter} from './footer.ts'
import {TOC_NAME} from './landmark.ts'
import {tocTexts} from './toc.ts'
import {tocOfPlan} from './toc-of-plan.ts'

/** An archive ends with two zero blocks. */
export const END_OF_ARCHIVE = new Uint8Array(2 * BLOCK_SIZE)

/** eStargz with its TOC in the layer. `level` is 0–12. */
export function estargzCompressor(level: number): Compressor {
  return gzipCompressor(level, async (tocTar, tocOffset, codec) => ({
    blobPieces: [await compressPieces('gzip', level, tocTar, codec), encodeFooter(tocOffset)],
    tar: tocTar,
  }))
}

/**
 * eStargz whose TOC goes to another image. A layer that was reordered gets the zero blocks that end an archive (the
 * reference leaves them out); one whose DiffID must stay has its own already: `lossless`.
 */
export function externalTocCompressor(level: number, options: {readonly lossless: boolean}): Compressor {
  return gzipCompressor(level, async (tocTar, _tocOffset, codec) => {
    const detachedToc = await compressPieces('gzip', level, tocTar, codec)
    const footer = encodeExternalTocFooter()
    if (options.lossless) return {blobPieces: [footer], tar: joinPieces([]), detachedToc}
    const tar = joinPieces([END_OF_ARCHIVE])
    return {blobPieces: [await compressPieces('gzip', level, tar, codec), footer], tar, detachedToc}
  })
}

/** eStargz's TOC, with an ending of its own. */
function gzipCompressor(
  level: number,
  end: (
    tocTar: JoinedPieces,
    tocOffset: number,
    codec: BulkCodec,
  ) => Promise<Omit<LayerEnding, 'toc' | 'annotations'>>,
): Compressor {
  return {
    memberKind: 'gzip',
    level,
    begin: ({plan, chunkSize, codec, createSpool}) => {
      const spool = createSpool()
      return {
        async finish(placed, dataSize) {
          const toc = await spoolTexts(tocTexts(tocOfPlan(plan, chunkSize, placed)), spool, codec)
          const ending = await end(tocTarOf(toc.spool), dataSize, codec)
          return {...ending, toc, annotations: {[TOC_DIGEST]: toc.digest}}
        },
        [Symbol.asyncDispose]: () => spool.close(),
      }
    },
  }
}

/** An archive with the TOC as its only file. */
export function tocTarOf(toc: Spool): JoinedPieces {
  const header = encodeHeaderBlock({name: TOC_NAME, typeflag: '0', size: toc.size})
  const padding = new Uint8Array(blockAligned(toc.size) - toc.size)
  return joinPieces([header, toc, padding, END_OF_ARCHIVE])
}
