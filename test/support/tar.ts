// Tar archives for tests, block by block, so that they can also be wrong.

import {encodePaxHeader} from '../../src/lib/tar/pax.ts'

/** What `block` writes; numbers become octal text unless a field is given as bytes. */
export interface BlockFields {
  readonly name?: string | Uint8Array
  readonly mode?: number
  readonly uid?: number | Uint8Array
  readonly gid?: number
  readonly size?: number | Uint8Array
  readonly mtime?: number | Uint8Array
  readonly typeflag?: string
  readonly linkName?: string
  readonly userName?: string
  readonly groupName?: string
  readonly devMajor?: number
  readonly devMinor?: number
  readonly prefix?: string
  readonly format?: 'ustar' | 'gnu' | 'v7'
  /** Of GNU's type `S`: up to four pairs of offset and size, and the size of the whole file. */
  readonly sparse?: {readonly pairs: string; readonly realSize: string}
}

/** One header block with a right checksum. */
export function block(fields: BlockFields): Buffer {
  const bytes = Buffer.alloc(512)
  const put = (value: string | number | Uint8Array | undefined, offset: number, digits: number) => {
    if (value === undefined) return
    const text = typeof value === 'number' ? value.toString(8).padStart(digits, '0') : value
    bytes.set(Buffer.from(text as string), offset)
  }
  const {format = 'ustar'} = fields
  put(fields.name ?? 'file', 0, 0)
  put(fields.mode ?? 0o644, 100, 7)
  put(fields.uid ?? 0, 108, 7)
  put(fields.gid ?? 0, 116, 7)
  put(fields.size ?? 0, 124, 11)
  put(fields.mtime ?? 0, 136, 11)
  put(fields.typeflag ?? '0', 156, 0)
  put(fields.linkName, 157, 0)
  if (format === 'ustar') put('ustar\x0000', 257, 0)
  if (format === 'gnu') put('ustar  \0', 257, 0)
  if (format !== 'v7') {
    put(fields.userName, 265, 0)
    put(fields.groupName, 297, 0)
    put(fields.devMajor ?? 0, 329, 7)
    put(fields.devMinor ?? 0, 337, 7)
    put(fields.prefix, 345, 0)
  }
  put(fields.sparse?.pairs, 386, 0)
  put(fields.sparse?.realSize, 483, 0)
  return withChecksum(bytes)
}

/** `header` with its checksum set right, after a test changed it. */
export function withChecksum(header: Buffer): Buffer {
  header.fill(' ', 148, 156)
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148)
  return header
}

/** A header block, and the body with its padding. */
export function member(fields: BlockFields, body: string | Uint8Array = ''): Buffer {
  const bytes = Buffer.from(body)
  return Buffer.concat([block({size: bytes.length, ...fields}), padded(bytes)])
}

export function directory(name: string): Buffer {
  return member({name, typeflag: '5', mode: 0o755})
}

/** A PAX header with these records, for the member that follows. */
export function pax(
  records: Readonly<Record<string, string | Uint8Array>>,
  typeflag: 'x' | 'g' = 'x',
): Buffer {
  const values = Object.entries(records).map(([key, value]) => [key, Buffer.from(value)] as const)
  const bytes = Buffer.from(encodePaxHeader(new Map(values)))
  bytes.write(typeflag, 156)
  withChecksum(bytes.subarray(0, 512))
  return bytes
}

/** A GNU long name (`L`) or long link name (`K`) for the member that follows. */
export function gnuLong(typeflag: 'L' | 'K', text: string): Buffer {
  return member({name: '././@LongLink', typeflag, format: 'gnu'}, `${text}\0`)
}

/** Members, and the two zero blocks that end an archive. */
export function archive(...members: readonly Uint8Array[]): Buffer {
  return Buffer.concat([...members, Buffer.alloc(1024)])
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((512 - (bytes.length % 512)) % 512)])
}
