// Formats of layers as tests ask for them, with the defaults of the command line.

import type {EstargzFormat, PlainFormat, ZstdChunkedFormat} from '../../src/lib/convert/layer-format.ts'

export const ESTARGZ: EstargzFormat = {
  kind: 'estargz',
  level: 9,
  chunkSize: 0,
  minChunkSize: 0,
  toc: 'inside',
}

export const ZSTD_CHUNKED: ZstdChunkedFormat = {
  kind: 'zstdchunked',
  level: 3,
  chunkSize: 0,
  dialect: 'podman',
}

export function plainFormat(compression: PlainFormat['compression']): PlainFormat {
  return {kind: 'plain', compression, level: 3}
}
