// Footers of gzip layers: an empty gzip member whose extra field says where the TOC is (eStargz spec, "Footer"; legacy:
// the stargz of CRFS). Encoder and parser of all three.
//
//   1f 8b 08 04  gzip, deflate, FEXTRA        00 00 00 00  MTIME      00 ff  XFL, OS unknown
//   XLEN (2, LE) and the extra field:
//     eStargz       1a 00  53 47 "SG"  16 00  16 hex digits of the TOC offset, "STARGZ"
//     external TOC  15 00  53 47 "SG"  11 00  "STARGZEXTERNALTOC"
//     legacy        16 00                     16 hex digits of the TOC offset, "STARGZ"
//   01 00 00 ff ff  one final, empty, stored deflate block      8 zero bytes  CRC-32 and ISIZE of nothing

import type {Footer} from '../compression/layer-format.ts'

/** 10 bytes of gzip header, XLEN, extra field, 5 bytes of deflate, 8 of trailer. */
const FRAME_SIZE = 10 + 2 + 5 + 8
const OFFSET_DIGITS = 16
/** The extra field follows the gzip header and XLEN. */
const EXTRA_AT = 12

export const FOOTER_SIZE = FRAME_SIZE + 4 + OFFSET_DIGITS + 'STARGZ'.length // 51
export const LEGACY_FOOTER_SIZE = FRAME_SIZE + OFFSET_DIGITS + 'STARGZ'.length // 47
export const EXTERNAL_TOC_FOOTER_SIZE = FRAME_SIZE + 4 + 'STARGZEXTERNALTOC'.length // 46

/** The footer of a layer whose TOC member starts at `tocOffset`. */
export function encodeFooter(tocOffset: number): Uint8Array {
  return encodeFrame(subfield(`${hexOffset(tocOffset)}STARGZ`))
}

/** The footer of legacy stargz. Written by tests only: we read such layers. */
export function encodeLegacyFooter(tocOffset: number): Uint8Array {
  return encodeFrame(`${hexOffset(tocOffset)}STARGZ`)
}

/** The footer of a layer whose TOC is in another image. */
export function encodeExternalTocFooter(): Uint8Array {
  return encodeFrame(subfield('STARGZEXTERNALTOC'))
}

/** Where the TOC is, or undefined when `bytes` are not such a footer. */
export function parseFooter(bytes: Uint8Array): Footer | undefined {
  return parseOffset(bytes, FOOTER_SIZE, 'SG\x16\0')
}

export function parseLegacyFooter(bytes: Uint8Array): Footer | undefined {
  return parseOffset(bytes, LEGACY_FOOTER_SIZE, '')
}

export function parseExternalTocFooter(bytes: Uint8Array): Footer | undefined {
  const isFooter = bytes.length === EXTERNAL_TOC_FOOTER_SIZE && hasExtra(bytes, subfield('STARGZEXTERNALTOC'))
  return isFooter ? {tocOffset: undefined} : undefined
}

function parseOffset(bytes: Uint8Array, size: number, subfieldHeader: string): Footer | undefined {
  if (bytes.length !== size) return undefined
  const digitsAt = EXTRA_AT + subfieldHeader.length
  const digits = String.fromCharCode(...bytes.subarray(digitsAt, digitsAt + OFFSET_DIGITS))
  const tocOffset = Number.parseInt(digits, 16)
  if (!/^[0-9a-fA-F]{16}$/.test(digits) || !Number.isSafeInteger(tocOffset)) return undefined
  return hasExtra(bytes, `${subfieldHeader}${digits}STARGZ`) ? {tocOffset} : undefined
}

/**
 * True for a gzip header with exactly this extra field. MTIME, XFL, OS and what follows the extra field carry no
 * meaning: the reference's reader does not look at them, so neither do we.
 */
function hasExtra(bytes: Uint8Array, extra: string): boolean {
  const text = String.fromCharCode(...bytes)
  return (
    text.startsWith('\x1f\x8b\x08\x04') &&
    text.startsWith(`${String.fromCharCode(extra.length)}\0${extra}`, 10)
  )
}

/** RFC 1952 extra subfield with the id "SG". */
function subfield(payload: string): string {
  return `SG${String.fromCharCode(payload.length, 0)}${payload}`
}

function hexOffset(offset: number): string {
  return offset.toString(16).padStart(OFFSET_DIGITS, '0')
}

function encodeFrame(extra: string): Uint8Array {
  const bytes = new Uint8Array(FRAME_SIZE + extra.length)
  bytes.set([0x1f, 0x8b, 0x08, 0x04, 0, 0, 0, 0, 0, 0xff, extra.length, 0])
  for (let index = 0; index < extra.length; index++) bytes[EXTRA_AT + index] = extra.charCodeAt(index)
  bytes.set([0x01, 0x00, 0x00, 0xff, 0xff], EXTRA_AT + extra.length)
  return bytes
}
