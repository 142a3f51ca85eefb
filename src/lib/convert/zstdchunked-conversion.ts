// The layer conversion that makes zstd:chunked.

import {type ZstdChunkedDialect, zstdChunkedCompressor} from '../zstdchunked/compressor.ts'
import type {LayerConversion} from './convert-image.ts'
import {type LazyConversionOptions, lazyConversion} from './lazy-conversion.ts'

export interface ZstdChunkedConversionOptions extends LazyConversionOptions {
  /** 1–22. */
  readonly level: number
  /** Whose annotations the layers get. */
  readonly dialect: ZstdChunkedDialect
}

export function zstdChunkedConversion(options: ZstdChunkedConversionOptions): LayerConversion {
  const {level, dialect} = options
  const compressor = zstdChunkedCompressor(level, dialect)
  return lazyConversion(
    {compressor, key: ['zstdchunked', dialect, level], minChunkSize: 0, lossless: false},
    options,
  )
}
