// Opens and reads lazily readable layers with Node's own decompression and hashing.

import {digestOf} from '../blob/sha256.ts'
import {inflatePrefix} from '../io/inflate.ts'
import {createLayerReader} from './layer-reader.ts'

export {
  type ChunkSource,
  type FoundFooter,
  MAX_COMPRESSED_TOC_SIZE,
  type OpenLayer,
  type OpenLayerOptions,
  readFooter,
  readWrappedToc,
  requireExternalToc,
} from './layer-reader.ts'

/** See `LayerReader`. */
export const {openLayer, unwrapToc, extractDetachedToc, readChunk, readFile} = createLayerReader({
  inflatePrefix,
  digestOf,
})
