// One 512-byte tar header block: V7, POSIX ustar (also under PAX), GNU and star. Parser and encoder.
//
// Layout (offset, size): name 0,100 · mode 100,8 · uid 108,8 · gid 116,8 · size 124,12 · mtime 136,12 · checksum 148,8 ·
// typeflag 156,1 · linkname 157,100 · magic 257,6 · version 263,2 · uname 265,32 · gname 297,32 · devmajor 329,8 ·
// devminor 337,8 · prefix 345,155 (star: 131; GNU: atime 345,12 · ctime 357,12).

import {CodedError} from '../errors/coded-error.ts'
import {decodeByteText, encodeByteText} from '../io/byte-text.ts'
import {BLOCK_SIZE} from './tar-entry.ts'

/** The fields of one block, before PAX and GNU extensions override them. */
export interface HeaderBlock {
  readonly name: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: number
  /** Of GNU archives that have them. */
  readonly atime?: number
  readonly ctime?: number
  /** One character; `\0` in V7 archives. */
  readonly typeflag: string
  readonly linkName: string
  readonly userName: string
  readonly groupName: string
  readonly devMajor: number
  readonly devMinor: number
}

/** What `encodeHeaderBlock` writes; owner, time and mode are 0 unless given. */
export interface NewHeader {
  readonly name: string
  readonly typeflag: string
  readonly size: number
  readonly mode?: number
}

const CHECKSUM = {offset: 148, size: 8}
/** The map, its flag, and the file's size, in headers of type `S` (sparse-map.ts). */
const GNU_SPARSE_FIELDS = {start: 386, end: 495}
/** What eleven octal digits can say; larger sizes need a PAX record. */
export const MAX_OCTAL_SIZE = 8 ** 11 - 1

/** True for a block of 512 zero bytes; two of them end an archive. */
export function isZeroBlock(block: Uint8Array): boolean {
  return block.every(byte => byte === 0)
}

/** Parses one block; `where` names it in the `corrupt` error that a malformed one throws. */
export function parseHeaderBlock(block: Uint8Array, where: string): HeaderBlock {
  checkChecksum(block, where)
  const number = (offset: number, size: number, field: string) =>
    parseNumber(block.subarray(offset, offset + size), field, where)
  const isUstar = hasText(block, 257, 'ustar\0')
  const isGnu = hasText(block, 257, 'ustar  \0')
  const isStar = isUstar && hasText(block, 508, 'tar\0')
  const prefix = isUstar ? text(block, 345, isStar ? 131 : 155) : ''
  const name = text(block, 0, 100)
  return {
    name: prefix ? `${prefix}/${name}` : name,
    mode: number(100, 8, 'mode'),
    uid: number(108, 8, 'uid'),
    gid: number(116, 8, 'gid'),
    size: number(124, 12, 'size'),
    mtime: number(136, 12, 'mtime'),
    ...(isGnu && (block[345] || block[357]) ? gnuTimes(block) : {}),
    typeflag: String.fromCharCode(block[156]!),
    linkName: text(block, 157, 100),
    userName: isUstar || isGnu ? text(block, 265, 32) : '',
    groupName: isUstar || isGnu ? text(block, 297, 32) : '',
    devMajor: isUstar || isGnu ? number(329, 8, 'devmajor') : 0,
    devMinor: isUstar || isGnu ? number(337, 8, 'devminor') : 0,
  }
}

/** Old writers put a long name's prefix there, whatever the magic says: that is no time, and no error, as in Go. */
function gnuTimes(block: Uint8Array): Pick<HeaderBlock, 'atime' | 'ctime'> {
  const atime = block[345] ? tryParseNumber(block.subarray(345, 357)) : undefined
  const ctime = block[357] ? tryParseNumber(block.subarray(357, 369)) : undefined
  const isValid = (!block[345] || atime !== undefined) && (!block[357] || ctime !== undefined)
  if (!isValid) return {}
  return {...(atime === undefined ? {} : {atime}), ...(ctime === undefined ? {} : {ctime})}
}

/** A ustar block for a short name: landmarks, the TOC, and our own PAX headers. */
export function encodeHeaderBlock(header: NewHeader): Uint8Array {
  const block = new Uint8Array(BLOCK_SIZE)
  const put = (value: string, offset: number) => block.set(encodeByteText(value), offset)
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, '0')}\0`
  if (encodeByteText(header.name).length > 100 || header.size >= 8 ** 11) {
    throw new CodedError('internal', `Cannot encode ${JSON.stringify(header)} as a plain ustar header`)
  }
  put(header.name, 0)
  put(octal(header.mode ?? 0, 7), 100)
  put(octal(0, 7), 108)
  put(octal(0, 7), 116)
  put(octal(header.size, 11), 124)
  put(octal(0, 11), 136)
  put(header.typeflag, 156)
  put('ustar\x0000', 257)
  put(octal(0, 7), 329)
  put(octal(0, 7), 337)
  put(`${checksums(block).unsigned.toString(8).padStart(6, '0')}\0 `, CHECKSUM.offset)
  return block
}

/** The header block of a plain regular file in the place of a sparse one's, whose map may stand in it. */
export function plainFileBlock(block: Uint8Array, size: number): Uint8Array {
  const plain = Uint8Array.from(block)
  if (String.fromCharCode(block[156]!) === 'S') plain.fill(0, GNU_SPARSE_FIELDS.start, GNU_SPARSE_FIELDS.end)
  const octal = size <= MAX_OCTAL_SIZE ? size.toString(8).padStart(11, '0') : '0'.repeat(11)
  plain.set(encodeByteText(`${octal}\0`), 124)
  plain[156] = ZERO
  const checksum = checksums(plain).unsigned.toString(8).padStart(6, '0')
  plain.set(encodeByteText(`${checksum}\0 `), CHECKSUM.offset)
  return plain
}

/** The sum of all bytes with the checksum field as spaces; old tars summed signed bytes. */
function checksums(block: Uint8Array): {unsigned: number; signed: number} {
  let unsigned = 0
  let signed = 0
  for (let at = 0; at < BLOCK_SIZE; at++) {
    const inField = at >= CHECKSUM.offset && at < CHECKSUM.offset + CHECKSUM.size
    const byte = inField ? 0x20 : block[at]!
    unsigned += byte
    signed += byte < 0x80 ? byte : byte - 0x100
  }
  return {unsigned, signed}
}

function checkChecksum(block: Uint8Array, where: string): void {
  const {unsigned, signed} = checksums(block)
  const field = block.subarray(CHECKSUM.offset, CHECKSUM.offset + CHECKSUM.size)
  const stored = parseNumber(field, 'checksum', where)
  if (stored !== unsigned && stored !== signed) {
    throw new CodedError('corrupt', `Cannot read ${where}: its checksum does not match`)
  }
}

/** A numeric field, which `name` names in the `corrupt` error that anything else throws: octal text, or base-256 (two's complement, GNU) when the top bit of the first byte is set. */
export function parseNumber(field: Uint8Array, name: string, where: string): number {
  const value = tryParseNumber(field)
  if (value === undefined) {
    throw new CodedError('corrupt', `Cannot read ${where}: its ${name} field is not a number`)
  }
  return value
}

function tryParseNumber(field: Uint8Array): number | undefined {
  return field[0]! & 0x80 ? parseBase256(field) : parseOctal(field)
}

function parseBase256(field: Uint8Array): number | undefined {
  const isNegative = (field[0]! & 0x40) !== 0
  let value = isNegative ? -1n : 0n
  for (const [index, byte] of field.entries()) {
    const digit = index === 0 ? (isNegative ? byte | 0x80 : byte & 0x7f) : byte
    value = (value << 8n) | BigInt(digit)
  }
  const number = Number(value)
  return Number.isSafeInteger(number) ? number : undefined
}

const SPACE = 0x20
const ZERO = 0x30
const SEVEN = 0x37

/** Octal digits between spaces and NULs; an empty field is 0, as every tar reads it. */
function parseOctal(field: Uint8Array): number | undefined {
  const isFiller = (byte: number | undefined) => byte === SPACE || byte === 0
  let at = 0
  let end = field.length
  while (at < end && isFiller(field[at])) at++
  while (end > at && isFiller(field[end - 1])) end--
  let value = 0
  for (; at < end && field[at] !== 0; at++) {
    const digit = field[at]!
    if (digit < ZERO || digit > SEVEN) return undefined
    value = value * 8 + (digit - ZERO)
  }
  return value
}

/** A text field ends at its first NUL, or at its size. */
function text(block: Uint8Array, offset: number, size: number): string {
  return decodeByteText(untilNul(block.subarray(offset, offset + size)))
}

/** `bytes` up to the first NUL. */
export function untilNul(bytes: Uint8Array): Uint8Array {
  const end = bytes.indexOf(0)
  return end < 0 ? bytes : bytes.subarray(0, end)
}

function hasText(block: Uint8Array, offset: number, expected: string): boolean {
  for (let index = 0; index < expected.length; index++) {
    if (block[offset + index] !== expected.charCodeAt(index)) return false
  }
  return true
}
