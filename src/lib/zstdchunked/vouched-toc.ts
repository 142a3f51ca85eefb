// The digest of a TOC of which the manifest gives only that of its compressed bytes, as layers that Podman pushes have it.

import {digestOf} from '../blob/sha256.ts'
import {CodedError} from '../errors/coded-error.ts'
import {readFooter, readWrappedToc, unwrapToc} from '../estargz/open-layer.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {ZSTD_DECOMPRESSORS} from './decompressor.ts'

/**
 * Reads the compressed TOC of a layer, and the digest of its JSON. Throws `corrupt` when the compressed bytes do not have
 * the digest `checksum`, `unsupported` when nothing leads to a TOC.
 */
export async function readVouchedTocDigest(
  blob: BlobSource,
  {digest, annotations}: Descriptor,
  checksum: Digest,
  call: CallOptions,
): Promise<Digest> {
  const where = `layer ${digest}`
  const options = {where, annotations, decompressors: ZSTD_DECOMPRESSORS, ...call}
  const {decompressor, tocOffset, tocEnd} = await readFooter(blob, options)
  if (tocOffset === undefined)
    throw new CodedError('unsupported', `Cannot read ${where} lazily: it has no TOC`)
  const wrapped = await readWrappedToc(blob, {tocOffset, tocEnd}, options)
  const found = digestOf(wrapped)
  if (found !== checksum) {
    throw new CodedError(
      'corrupt',
      `Cannot use the TOC of ${where}: the digest of its compressed bytes is ${found}, not ${checksum}`,
    )
  }
  return digestOf(await unwrapToc(decompressor, wrapped, `the TOC of ${where}`))
}
