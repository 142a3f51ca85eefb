// Opens and reads lazily readable layers with Node's own decompression and hashing.

import {inflatePrefix} from '../io/inflate.ts'
import {digestOf} from '../io/sha256.ts'
import {createLayerReader} from './layer-reader.ts'

export {
  type ChunkSource,
  type FoundFooter,
  MAX_COMPRESSED_TOC_SIZE,
  type OpenLayer,
  type OpenLayerOptions,
  readFooter,
} from './layer-reader.ts'

/** See `LayerReader`. */
export const {openLayer, extractDetachedToc, readChunk, readFile} = createLayerReader({
  inflatePrefix,
  digestOf,
})
