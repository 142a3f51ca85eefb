// The formats in which the daemon reads layers, in the order in which their footers are tried.

import type {Decompressor} from '../../lib/compression/layer-format.ts'
import {GZIP_DECOMPRESSORS} from '../../lib/estargz/decompressor.ts'
import {ZSTD_DECOMPRESSORS} from '../../lib/zstdchunked/decompressor.ts'

export const LAYER_FORMATS: readonly Decompressor[] = [...GZIP_DECOMPRESSORS, ...ZSTD_DECOMPRESSORS]
