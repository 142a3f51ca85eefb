// `ipfs://CID` among the `urls` of a descriptor: where the reference's ipfs-push says that a blob is.

import type {Descriptor} from '../oci/descriptor.ts'
import {isCid} from './cid.ts'

const SCHEME = 'ipfs://'

/** The CID that the first usable one of `urls` names; undefined when none does. */
export function ipfsCidIn(urls: readonly string[] | undefined): string | undefined {
  const url = urls?.find(candidate => candidate.startsWith(SCHEME) && isCid(candidate.slice(SCHEME.length)))
  return url?.slice(SCHEME.length)
}

/** `descriptor`, which says that its bytes are at `cid`, and nowhere else. */
export function withIpfsUrl<D extends Descriptor>(descriptor: D, cid: string): D {
  return {...descriptor, urls: [`${SCHEME}${cid}`]}
}
