// Whether a layer needs no conversion: it is eStargz, and its manifest vouches for its TOC.

import {hasCode} from '../errors/coded-error.ts'
import {TOC_DIGEST} from '../oci/annotations.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {isDigest} from '../oci/digest.ts'
import {ESTARGZ} from './decompressor.ts'
import {openLayer} from './open-layer.ts'

/**
 * True when the descriptor's TOC digest annotation is right for the blob, and the TOC makes sense. Chunks are not read:
 * their digests are in the TOC, so a reader will verify them. Errors of the blob's source pass.
 */
export async function isEstargzLayer(
  blob: BlobSource,
  descriptor: Descriptor,
  options: CallOptions = {},
): Promise<boolean> {
  const tocDigest = descriptor.annotations?.[TOC_DIGEST]
  if (!isDigest(tocDigest)) return false
  try {
    const {decompressor} = await openLayer(blob, {...options, where: descriptor.digest, tocDigest})
    return decompressor === ESTARGZ
  } catch (error) {
    if (hasCode(error, 'corrupt', 'unsupported', 'not-found')) return false
    throw error
  }
}
