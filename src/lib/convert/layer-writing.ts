// What a lazily read format comes down to when a layer is written.

import type {Compressor} from '../compression/layer-format.ts'
import {estargzCompressor, externalTocCompressor} from '../estargz/compressor.ts'
import {zstdChunkedCompressor} from '../zstdchunked/compressor.ts'
import type {LazyFormat} from './layer-format.ts'

export interface LayerWriting {
  readonly compressor: Compressor
  /** Largest payload of a chunk, bytes; absent or 0: 4 MiB. */
  readonly chunkSize?: number
  /** Compressed bytes that a stream has at least; absent or 0: a stream per chunk. */
  readonly minChunkSize?: number
  /** Keep the tar, and so the DiffID, as it is. Only with a compressor that keeps the TOC outside. */
  readonly lossless?: boolean
}

/**
 * libdeflate's level for each of zlib's: the lowest whose output is no larger. libdeflate 6 makes smaller output than
 * zlib or Go at 9, at four times the speed (docs/performance.md); its own levels above 9 stay what they are.
 */
const LIBDEFLATE_LEVELS = [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 10, 11, 12]

export function layerWriting(format: LazyFormat): LayerWriting {
  const {chunkSize} = format
  if (format.kind === 'zstdchunked') {
    return {compressor: zstdChunkedCompressor(format.level, format.dialect), chunkSize}
  }
  const {minChunkSize, toc} = format
  const level = libdeflateLevel(format.level)
  const lossless = toc === 'outside-lossless'
  const compressor = toc === 'inside' ? estargzCompressor(level) : externalTocCompressor(level, {lossless})
  return {compressor, chunkSize, minChunkSize, lossless}
}

/** What tells layers of this format and these options from others, apart from chunk sizes. */
export function formatKey(format: LazyFormat): readonly (string | number)[] {
  return format.kind === 'zstdchunked'
    ? [format.kind, format.dialect, format.level]
    : [format.kind, format.toc, libdeflateLevel(format.level)]
}

function libdeflateLevel(level: number): number {
  return LIBDEFLATE_LEVELS[level] ?? level
}
