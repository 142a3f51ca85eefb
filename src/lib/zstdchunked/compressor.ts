// How zstd:chunked layers end: an end of the archive, then in skippable frames, which decompressors pass over, the TOC, the
// tar-split, and a footer. The blob is the same for readers of both dialects: stargz-snapshotter finds the TOC by the
// footer, Podman by annotations. But one layer cannot have the annotations that both verify by, because Podman 5 refuses
// it then: "both zstd:chunked and eStargz TOC found".

import {digestOf} from '../blob/sha256.ts'
import {compressPieces, joinPieces} from '../compression/joined-pieces.ts'
import type {Compressor} from '../compression/layer-format.ts'
import {spoolTexts} from '../compression/spooled-text.ts'
import {END_OF_ARCHIVE} from '../estargz/compressor.ts'
import type {LayerPlan} from '../estargz/plan-layer.ts'
import {OWN_TOC_DIGEST, TOC_DIGEST} from '../oci/annotations.ts'
import type {Digest} from '../oci/digest.ts'
import {encodeStargzFooter, type FramePosition} from './footer.ts'
import {type Annotations, encodeOldPositions, encodePositions, type Positions} from './positions.ts'
import {encodeSkippableHeader, SKIPPABLE_HEADER_SIZE} from './skippable-frame.ts'
import {buildTarSplit, type TarSplit} from './tar-split.ts'
import {zstdTocTexts} from './toc-of-plan.ts'

/** Who shall read a layer lazily, which annotations decide: Podman and CRI-O, or stargz-snapshotter. */
export type ZstdChunkedDialect = 'podman' | 'stargz'

/** `level` is 1–22. */
export function zstdChunkedCompressor(level: number, dialect: ZstdChunkedDialect): Compressor {
  return {
    memberKind: 'zstd',
    level,
    begin(layer, {signal} = {}) {
      const {codec} = layer
      const spool = layer.createSpool()
      const abort = new AbortController()
      const tarSplit = buildTarSplit(layer, level, {
        signal: signal ? AbortSignal.any([signal, abort.signal]) : abort.signal,
      })
      // A failure is thrown by `finish`; until then it must not count as unhandled.
      tarSplit.catch(() => {})
      return {
        async finish(placed, dataSize) {
          const split = await tarSplit
          const tarSplitDigest = digestOf(split.bytes)
          const texts = zstdTocTexts(layer, placed, {dataSize, tarSplitDigest})
          const toc = await spoolTexts(texts, spool, codec)
          const tocFrame = await compressPieces('zstd', level, joinPieces([toc.spool]), codec)
          const tar = joinPieces([END_OF_ARCHIVE])
          const end = await compressPieces('zstd', level, tar, codec)
          const positions = {
            ...placeFrames(dataSize + end.length, {tocFrame, tocSize: toc.size, split}),
            tocChecksum: digestOf(tocFrame),
          }
          const frames = [tocFrame, split.bytes, encodeStargzFooter(positions.toc)]
          return {
            toc,
            blobPieces: [end, ...frames.flatMap(frame => [encodeSkippableHeader(frame.length), frame])],
            tar,
            annotations: annotationsFor(dialect, layer.plan, positions, toc.digest),
          }
        },
        async [Symbol.asyncDispose]() {
          abort.abort()
          await tarSplit.catch(() => {})
          await spool.close()
        },
      }
    },
  }
}

/**
 * Podman 4 and stargz-snapshotter share some; what verifies the TOC tells Podman 5 and stargz-snapshotter apart. A name that
 * is not UTF-8 has no place in JSON: Podman would make another of it, or refuse the image, so it must fetch the layer whole.
 */
function annotationsFor(
  dialect: ZstdChunkedDialect,
  plan: LayerPlan,
  positions: Positions,
  digest: Digest,
): Annotations {
  const tocDigest = {[dialect === 'podman' ? OWN_TOC_DIGEST : TOC_DIGEST]: digest}
  if (!plan.entries.every(({entry}) => entry.name.isWellFormed() && entry.linkName.isWellFormed())) {
    return tocDigest
  }
  const own = dialect === 'podman' ? encodePositions(positions) : {}
  return {...own, ...tocDigest, ...encodeOldPositions(positions)}
}

/** Where TOC and tar-split are, one skippable frame after the other from `offset` on. */
function placeFrames(
  offset: number,
  frames: {readonly tocFrame: Uint8Array; readonly tocSize: number; readonly split: TarSplit},
): {readonly toc: FramePosition; readonly tarSplit: FramePosition} {
  const {tocFrame, tocSize, split} = frames
  const toc = {offset: offset + SKIPPABLE_HEADER_SIZE, size: tocFrame.length, rawSize: tocSize}
  const tarSplit = {
    offset: toc.offset + toc.size + SKIPPABLE_HEADER_SIZE,
    size: split.bytes.length,
    rawSize: split.rawSize,
  }
  return {toc, tarSplit}
}
