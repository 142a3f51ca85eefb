// The library: lazily pullable layers built, opened, listed, read and verified, from any bytes. `ctr-remote/reader` is the
// part that runs in browsers too.

import {tmpdir} from 'node:os'
import type {BulkCodec} from './lib/compression/codec.ts'
import type {Compressor} from './lib/compression/layer-format.ts'
import {buildLayer as buildWith} from './lib/convert/build-layer.ts'
import type {ConvertedBlob} from './lib/convert/convert-layer.ts'
import {CodedError} from './lib/errors/coded-error.ts'
import {estargzCompressor, externalTocCompressor} from './lib/estargz/compressor.ts'
import {createBulkCodec} from './lib/native/bulk-codec.ts'
import type {BlobSource, CallOptions} from './lib/oci/content-store.ts'
import type {Descriptor} from './lib/oci/descriptor.ts'
import type {Digest} from './lib/oci/digest.ts'
import {type VerifiedLayer, verifyLayer as verifyWith} from './lib/verify/verify-layer.ts'
import {zstdChunkedCompressor} from './lib/zstdchunked/compressor.ts'

export {openBytesBlob} from './lib/blob/bytes-blob.ts'
export {openFile} from './lib/blob/file-blob.ts'
export {windowedBlob} from './lib/blob/windowed-blob.ts'
export type {ConvertedBlob} from './lib/convert/convert-layer.ts'
export {CodedError, codeOf, describeError, type ErrorCode} from './lib/errors/coded-error.ts'
export {findFile} from './lib/estargz/find-file.ts'
export type {Finding, FindingKind} from './lib/estargz/finding.ts'
export type {Chunk, LayerFile} from './lib/estargz/index-toc.ts'
export {
  type ChunkSource,
  extractDetachedToc,
  type OpenLayer,
  type OpenLayerOptions,
  openLayer,
  readChunk,
  readFile,
} from './lib/estargz/open-layer.ts'
export type {Toc, TocEntry} from './lib/estargz/toc.ts'
export {TOC_DIGEST} from './lib/oci/annotations.ts'
export type {BlobSource, CallOptions} from './lib/oci/content-store.ts'
export type {Descriptor} from './lib/oci/descriptor.ts'
export {type Digest, isDigest, parseDigest} from './lib/oci/digest.ts'
export type {LayerCompression} from './lib/oci/media-type.ts'
export {type HttpBlobOptions, openHttpBlob} from './lib/registry/http-blob.ts'
export type {VerifiedLayer} from './lib/verify/verify-layer.ts'

export interface BuildLayerOptions extends CallOptions {
  /**
   * Takes the layer piece by piece, in order; each call is waited for. What it got is a layer only when `buildLayer`
   * has resolved.
   */
  readonly write: (bytes: Uint8Array) => void | Promise<void>
  /** Default: eStargz. `zstd:chunked-stargz` is the dialect of stargz-snapshotter, the other that of Podman and CRI-O. */
  readonly format?: 'estargz' | 'zstd:chunked' | 'zstd:chunked-stargz'
  /**
   * Of eStargz: where the TOC goes. Into the layer, or outside, where the result's `detachedToc` must be put;
   * `outside-lossless` keeps the tar as it is, with nothing prioritised. Default: inside.
   */
  readonly toc?: 'inside' | 'outside' | 'outside-lossless'
  /** Of eStargz 0–12; the default, 6, makes smaller layers than 9 of zlib or Go. Of zstd:chunked 1–22, by default 3. */
  readonly level?: number
  /** Largest payload of one chunk, bytes. Default 4 MiB. */
  readonly chunkSize?: number
  /** Compressed bytes that a stream has at least. Default 0: a stream for each chunk. */
  readonly minChunkSize?: number
  /** Paths to put first, in this order; those that the source does not have are reported. */
  readonly prioritizedPaths?: readonly string[]
  /** Where a source too large for memory waits. Default: the system's. */
  readonly temporaryDirectory?: string
}

/**
 * Builds a lazily readable layer from a tar, which is read twice. The same input and options give the same bytes. Throws
 * `corrupt` or `unsupported` for a source that cannot be used, `unavailable` when the disk is full.
 */
export async function buildLayer(source: BlobSource, options: BuildLayerOptions): Promise<ConvertedBlob> {
  const {format, toc, level, temporaryDirectory = tmpdir(), ...others} = options
  return buildWith(source, {
    ...others,
    temporaryDirectory,
    lossless: toc === 'outside-lossless',
    compressor: compressorOf(options),
    codec: sharedCodec(),
  })
}

export interface VerifyLayerOptions extends CallOptions {
  /** What the image config says the decompressed layer's digest is. */
  readonly diffId?: Digest | undefined
  /** The TOC of a layer that keeps it outside. */
  readonly externalToc?: Uint8Array | undefined
}

/**
 * Checks a layer through and through, which reads it once: blob digest and size, TOC digest, every chunk, every file, the
 * tar against the TOC, DiffID. What is wrong with it is a finding; only errors of the blob's source are thrown.
 */
export async function verifyLayer(
  blob: BlobSource,
  descriptor: Descriptor,
  options: VerifyLayerOptions = {},
): Promise<VerifiedLayer> {
  return verifyWith(blob, descriptor, {...options, codec: sharedCodec()})
}

function compressorOf({
  format = 'estargz',
  toc = 'inside',
  level = format === 'estargz' ? 6 : 3,
}: BuildLayerOptions): Compressor {
  const [lowest, highest] = format === 'estargz' ? [0, 12] : [1, 22]
  if (!Number.isInteger(level) || level < lowest || level > highest) {
    const problem = `Cannot compress ${format} at level ${level}: levels are ${lowest} to ${highest}`
    throw new CodedError('invalid-argument', problem)
  }
  if (format !== 'estargz') {
    if (toc !== 'inside') throw new CodedError('invalid-argument', `Cannot keep the TOC of ${format} outside`)
    return zstdChunkedCompressor(level, format === 'zstd:chunked' ? 'podman' : 'stargz')
  }
  return toc === 'inside'
    ? estargzCompressor(level)
    : externalTocCompressor(level, {lossless: toc === 'outside-lossless'})
}

let codec: BulkCodec | undefined

/** Made when it is first needed: an importer that only reads loads no native code. */
function sharedCodec(): BulkCodec {
  codec ??= createBulkCodec()
  return codec
}
