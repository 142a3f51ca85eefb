// A TOC that is kept outside of its layer: a gzip'ed tar with the TOC as its only file.

import {CodedError} from '../errors/coded-error.ts'
import {inflatePrefix} from '../io/inflate.ts'
import {EXTERNAL_TOC_ESTARGZ} from './decompressor.ts'
import {MAX_TOC_SIZE, MAX_TOC_TAR_SIZE} from './toc.ts'

/** A larger one is not read, in bytes as compressed. */
export const MAX_DETACHED_TOC_SIZE = MAX_TOC_SIZE

/** The TOC's JSON. `where` names it in the `corrupt` error that anything else throws. */
export async function extractDetachedToc(bytes: Uint8Array, where: string): Promise<Uint8Array> {
  const {memberKind, unwrapToc} = EXTERNAL_TOC_ESTARGZ
  try {
    return unwrapToc(await inflatePrefix(memberKind, bytes, MAX_TOC_TAR_SIZE))
  } catch (cause) {
    throw new CodedError('corrupt', `Cannot read ${where}`, {cause})
  }
}
