// The reader for everywhere: lists and reads lazily pullable layers in browsers, workers and Node, with nothing of Node.
// Imported as `ctr-remote/reader`.

import {webDigestOf} from './lib/blob/web-sha256.ts'
import {CodedError} from './lib/errors/coded-error.ts'
import {createLayerReader, type LayerReader} from './lib/estargz/layer-reader.ts'
import {gunzipPrefix} from './lib/io/web-inflate.ts'

export {openBytesBlob} from './lib/blob/bytes-blob.ts'
export {windowedBlob} from './lib/blob/windowed-blob.ts'
export {CodedError, codeOf, describeError, type ErrorCode} from './lib/errors/coded-error.ts'
export {findFile} from './lib/estargz/find-file.ts'
export type {Chunk, LayerFile} from './lib/estargz/index-toc.ts'
export type {ChunkSource, LayerReader, OpenLayer, OpenLayerOptions} from './lib/estargz/layer-reader.ts'
export type {Toc, TocEntry} from './lib/estargz/toc.ts'
export {TOC_DIGEST} from './lib/oci/annotations.ts'
export type {BlobSource, CallOptions} from './lib/oci/content-store.ts'
export {type Digest, isDigest, parseDigest} from './lib/oci/digest.ts'
export {type HttpBlobOptions, openHttpBlob} from './lib/registry/http-blob.ts'

export interface ReaderOptions {
  /**
   * The first `maxSize` bytes, or more, of what zstd frames decompress to, for zstd:chunked layers; throws for damaged
   * data. JavaScript has none of its own.
   */
  readonly decompressZstd?: (bytes: Uint8Array, maxSize: number) => Uint8Array | Promise<Uint8Array>
}

/** A reader; without options it reads the formats that are made of gzip. */
export function createReader({decompressZstd}: ReaderOptions = {}): LayerReader {
  return createLayerReader({
    digestOf: webDigestOf,
    async inflatePrefix(kind, bytes, maxSize) {
      if (kind === 'gzip') return gunzipPrefix(bytes, maxSize)
      if (!decompressZstd) {
        throw new CodedError(
          'unsupported',
          'Cannot read a zstd layer: give `createReader` a `decompressZstd`',
        )
      }
      const inflate = async () => (await decompressZstd(bytes, maxSize)).subarray(0, maxSize)
      return await inflate().catch(cause => {
        throw new CodedError('corrupt', `Cannot decompress ${bytes.length} bytes of zstd`, {cause})
      })
    },
  })
}

/** The reader of the formats that are made of gzip; see `LayerReader`. */
export const {openLayer, extractDetachedToc, readChunk, readFile} = createReader()
