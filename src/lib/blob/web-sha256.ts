// SHA-256 through WebCrypto, which browsers and Node have.

import {CodedError} from '../errors/coded-error.ts'
import {type Digest, digestFromHash} from '../oci/digest.ts'

/** The digest of bytes in memory. Throws `unsupported` in pages that browsers give no WebCrypto: not HTTPS, not localhost. */
export async function webDigestOf(bytes: Uint8Array): Promise<Digest> {
  const subtle = (globalThis as {readonly crypto?: typeof crypto}).crypto?.subtle
  if (!subtle) {
    throw new CodedError(
      'unsupported',
      'Cannot verify a layer: this page has no WebCrypto, which browsers give to pages from HTTPS or localhost',
    )
  }
  return digestFromHash(new Uint8Array(await subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>)))
}
