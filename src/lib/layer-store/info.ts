// The `info` of a stored layer: JSON that containers/storage reads as the beginning of its own record (its layers.go).

import {encodeJson} from '../oci/manifest.ts'
import type {StoredLayer} from './stored-layer.ts'

/** Of containers/storage, pkg/archive: how a blob is compressed. */
const GZIP = 2
const ZSTD = 4

/**
 * `diff-digest` is claimed only to those who asked by the layer's digest: they take the store's word for it, and derive
 * the layer's id from it. To those who asked by the TOC's it would mean that all of the layer has been verified.
 */
export function encodeInfo(layer: StoredLayer): Uint8Array {
  const {name, digest, tocDigest, diffId, compressedSize, uncompressedSize, mediaType} = layer
  return encodeJson({
    'compressed-diff-digest': digest,
    'compressed-size': compressedSize,
    ...(name === digest ? {'diff-digest': diffId} : {}),
    'diff-size': uncompressedSize ?? -1,
    compression: mediaType.endsWith('zstd') ? ZSTD : GZIP,
    // Whoever asked by the TOC's digest expects what he asked for.
    'toc-digest': name === digest ? tocDigest : name,
    flags: {'expected-layer-diffid': diffId},
  })
}
