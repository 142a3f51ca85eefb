// The layer conversion that makes eStargz, with the TOC inside or outside of the layer.

import {estargzCompressor, externalTocCompressor} from '../estargz/compressor.ts'
import type {LayerConversion} from './convert-image.ts'
import {type LazyConversionOptions, lazyConversion} from './lazy-conversion.ts'

export interface EstargzConversionOptions extends LazyConversionOptions {
  /** On zlib's scale, 0–9, or libdeflate's own 10–12. */
  readonly level: number
  /** Least compressed size of a stream, in bytes; 0: a stream per chunk. */
  readonly minChunkSize: number
  /**
   * Where the TOC goes: into the layer, or outside, where the caller must put what `detachedToc` of each result holds;
   * `outside-lossless` keeps the tar, and so the DiffID, as it is, with nothing prioritised. Default: inside.
   */
  readonly toc?: 'inside' | 'outside' | 'outside-lossless'
}

/**
 * libdeflate's level for each of zlib's: the lowest whose output is no larger. libdeflate 6 makes smaller output than
 * zlib or Go at 9, at four times the speed (docs/performance.md); its own levels above 9 stay what they are.
 */
const LIBDEFLATE_LEVELS = [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 10, 11, 12]

export function estargzConversion(options: EstargzConversionOptions): LayerConversion {
  const {toc = 'inside', minChunkSize} = options
  const level = LIBDEFLATE_LEVELS[options.level] ?? options.level
  const lossless = toc === 'outside-lossless'
  const compressor = toc === 'inside' ? estargzCompressor(level) : externalTocCompressor(level, {lossless})
  return lazyConversion({compressor, key: ['estargz', toc, level], minChunkSize, lossless}, options)
}
