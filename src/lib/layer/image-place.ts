// Where an image is, in the words by which failures are remembered: a host, and a repository on it.

import {isCid} from '../ipfs/cid.ts'
import {parseReference} from '../oci/reference.ts'

export interface ImagePlace {
  /** The registry's domain; for what is named by a CID, all of IPFS. */
  readonly host: string
  readonly repository: string
}

/** The place of an image by its name, a reference or a CID. Throws `invalid-argument`. */
export function placeOfImage(reference: string): ImagePlace {
  if (isCid(reference)) return {host: 'IPFS', repository: `ipfs://${reference}`}
  const {domain, path} = parseReference(reference)
  return {host: domain, repository: `${domain}/${path}`}
}
