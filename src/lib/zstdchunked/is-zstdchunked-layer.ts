// Whether a layer needs no conversion: it is zstd:chunked, and its manifest vouches for its TOC to those who shall read it.

import {hasCode} from '../errors/coded-error.ts'
import {openLayer} from '../estargz/open-layer.ts'
import {TOC_DIGEST} from '../oci/annotations.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {isDigest} from '../oci/digest.ts'
import type {ZstdChunkedDialect} from './compressor.ts'
import {STARGZ_ZSTD_CHUNKED, ZSTD_DECOMPRESSORS} from './decompressor.ts'
import {parsePositions} from './positions.ts'

/**
 * True when the annotations of `dialect` are there and right for the blob, and the TOC makes sense. Podman's layers need a
 * tar-split too. Chunks are not read: a reader will verify them. Errors of the blob's source pass.
 */
export async function isZstdChunkedLayer(
  blob: BlobSource,
  descriptor: Descriptor,
  {dialect, signal}: CallOptions & {readonly dialect: ZstdChunkedDialect},
): Promise<boolean> {
  const {annotations = {}, digest: where} = descriptor
  const tocDigest = annotations[TOC_DIGEST]
  // Podman refuses a layer for both, and stargz-snapshotter finds the TOC by its own footer only.
  try {
    if (dialect === 'stargz') {
      if (!isDigest(tocDigest)) return false
      await openLayer(blob, {where, tocDigest, decompressors: [STARGZ_ZSTD_CHUNKED], signal})
    } else {
      if (tocDigest !== undefined || !parsePositions(annotations)?.tarSplit) return false
      await openLayer(blob, {where, annotations, decompressors: ZSTD_DECOMPRESSORS, signal})
    }
    return true
  } catch (error) {
    if (hasCode(error, 'corrupt', 'unsupported', 'not-found')) return false
    throw error
  }
}
