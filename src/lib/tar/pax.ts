// PAX extended header records (POSIX.1-2001 pax, "pax Extended Header"): `<size> <key>=<value>\n`, size in decimal and
// counting itself. Values are bytes: extended attributes are binary.

import {CodedError} from '../errors/coded-error.ts'
import {decodeByteText, encodeByteText} from '../io/byte-text.ts'
import {encodeHeaderBlock} from './header.ts'
import {BLOCK_SIZE, blockAligned} from './tar-entry.ts'

/** Records by key; a later record of a key replaces an earlier one. */
export type PaxRecords = ReadonlyMap<string, Uint8Array>

const SPACE = 0x20
const EQUALS = 0x3d
const NEWLINE = 0x0a
/** A record's own size has at most as many digits as the largest extension payload that we accept. */
const MAX_SIZE_DIGITS = 8

/** The keys of sparse files in format 0.0, which come in pairs, many times; and the key that format 0.1 has for all. */
const SPARSE_PAIR = ['GNU.sparse.offset', 'GNU.sparse.numbytes']
const SPARSE_MAP = 'GNU.sparse.map'

/** Parses the payload of an `x` or `g` header; `where` names it in the `corrupt` error that a malformed one throws. */
export function parsePaxRecords(payload: Uint8Array, where: string): Map<string, Uint8Array> {
  const records = new Map<string, Uint8Array>()
  const sparsePairs: string[] = []
  for (let at = 0; at < payload.length; ) {
    const space = payload.indexOf(SPACE, at)
    const size =
      space < 0 || space - at > MAX_SIZE_DIGITS ? undefined : parseDecimal(payload.subarray(at, space))
    const end = at + (size ?? 0)
    const equals = payload.indexOf(EQUALS, space)
    if (size === undefined || end > payload.length || equals <= space + 1 || equals >= end)
      throw malformed(where)
    if (payload[end - 1] !== NEWLINE) throw malformed(where)
    const key = payload.subarray(space + 1, equals)
    if (key.includes(0)) throw malformed(where)
    const name = decodeByteText(key)
    const value = payload.subarray(equals + 1, end - 1)
    if (name === SPARSE_PAIR[sparsePairs.length % 2]) sparsePairs.push(decodeByteText(value))
    else if (SPARSE_PAIR.includes(name)) throw malformed(where)
    // Copied, because the payload may be a view of a large chunk; `slice` of a Buffer would be a view too.
    else records.set(name, Uint8Array.from(value))
    at = end
  }
  // The one format that repeats keys, put as the next one has it.
  if (sparsePairs.length > 0) records.set(SPARSE_MAP, encodeByteText(sparsePairs.join(',')))
  return records
}

/** An `x` header block with its payload blocks. */
export function encodePaxHeader(records: PaxRecords): Uint8Array {
  const encoded = [...records].map(([key, value]) => encodeRecord(key, value))
  const size = encoded.reduce((sum, record) => sum + record.length, 0)
  const bytes = new Uint8Array(BLOCK_SIZE + blockAligned(size))
  bytes.set(encodeHeaderBlock({name: '././@PaxHeader', typeflag: 'x', size, mode: 0o644}))
  let at = BLOCK_SIZE
  for (const record of encoded) {
    bytes.set(record, at)
    at += record.length
  }
  return bytes
}

function encodeRecord(key: string, value: Uint8Array): Uint8Array {
  const keyBytes = encodeByteText(key)
  const rest = keyBytes.length + value.length + 3
  let size = rest + String(rest).length
  size = rest + String(size).length
  const record = new Uint8Array(size)
  const prefix = encodeByteText(`${size} `)
  record.set(prefix)
  record.set(keyBytes, prefix.length)
  record[prefix.length + keyBytes.length] = EQUALS
  record.set(value, prefix.length + keyBytes.length + 1)
  record[size - 1] = NEWLINE
  return record
}

/** A whole number of a PAX record: `uid`, `gid`, `size`. */
export function parsePaxInteger(value: Uint8Array, key: string, where: string): number {
  const text = decodeByteText(value)
  const number = Number(text)
  if (!/^-?\d+$/.test(text) || !Number.isSafeInteger(number)) throw notANumber(key, where)
  return number
}

/** A time of a PAX record: decimal seconds, perhaps negative, with any number of fraction digits. */
export function parsePaxTime(
  value: Uint8Array,
  key: string,
  where: string,
): {readonly seconds: number; readonly nanoseconds: number} {
  const match = /^(-?)(\d+)(?:\.(\d*))?$/.exec(decodeByteText(value))
  if (!match) throw notANumber(key, where)
  const [, sign, whole, fraction = ''] = match
  const seconds = Number(whole)
  if (!Number.isSafeInteger(seconds)) throw notANumber(key, where)
  const nanoseconds = Number(fraction.slice(0, 9).padEnd(9, '0'))
  if (!sign) return {seconds, nanoseconds}
  if (nanoseconds === 0) return {seconds: seconds === 0 ? 0 : -seconds, nanoseconds}
  return {seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds}
}

function parseDecimal(digits: Uint8Array): number | undefined {
  const text = decodeByteText(digits)
  return /^\d+$/.test(text) ? Number(text) : undefined
}

function malformed(where: string): CodedError {
  return new CodedError('corrupt', `Cannot read ${where}: its PAX records are malformed`)
}

function notANumber(key: string, where: string): CodedError {
  return new CodedError('corrupt', `Cannot read ${where}: its PAX record "${key}" is not a number`)
}
