// How gzip layers are read: where each kind of footer leads, and how the TOC is wrapped there.

import type {Decompressor} from '../compression/layer-format.ts'
import {CodedError} from '../errors/coded-error.ts'
import {parseHeaderBlock} from '../tar/header.ts'
import {BLOCK_SIZE} from '../tar/tar-entry.ts'
import {
  EXTERNAL_TOC_FOOTER_SIZE,
  FOOTER_SIZE,
  LEGACY_FOOTER_SIZE,
  parseExternalTocFooter,
  parseFooter,
  parseLegacyFooter,
} from './footer.ts'
import {TOC_NAME} from './landmark.ts'

export const ESTARGZ: Decompressor = {
  name: 'eStargz',
  memberKind: 'gzip',
  footerSize: FOOTER_SIZE,
  parseFooter,
  unwrapToc,
}

/** The stargz of CRFS: no landmarks, and often no digests, so that its files cannot be verified. */
export const LEGACY_STARGZ: Decompressor = {
  name: 'legacy stargz',
  memberKind: 'gzip',
  footerSize: LEGACY_FOOTER_SIZE,
  parseFooter: parseLegacyFooter,
  unwrapToc,
}

/** eStargz with the TOC in another image: `unwrapToc` takes what that image's layer decompresses to. */
export const EXTERNAL_TOC_ESTARGZ: Decompressor = {
  name: 'eStargz with an external TOC',
  memberKind: 'gzip',
  footerSize: EXTERNAL_TOC_FOOTER_SIZE,
  parseFooter: parseExternalTocFooter,
  unwrapToc,
}

/** In the order in which footers are tried; none can be taken for another. */
export const GZIP_DECOMPRESSORS: readonly Decompressor[] = [ESTARGZ, LEGACY_STARGZ, EXTERNAL_TOC_ESTARGZ]

/** The payload of a tar whose first entry is `stargz.index.json`. */
function unwrapToc(tar: Uint8Array): Uint8Array {
  const where = 'the TOC entry'
  if (tar.length < BLOCK_SIZE) throw new CodedError('corrupt', `Cannot read ${where}: it is cut short`)
  const header = parseHeaderBlock(tar.subarray(0, BLOCK_SIZE), where)
  if (header.name !== TOC_NAME) {
    throw new CodedError('corrupt', `Cannot read ${where}: it is named ${JSON.stringify(header.name)}`)
  }
  if (header.size < 0 || header.size > tar.length - BLOCK_SIZE) {
    throw new CodedError('corrupt', `Cannot read ${where}: it is cut short`)
  }
  return tar.subarray(BLOCK_SIZE, BLOCK_SIZE + header.size)
}
