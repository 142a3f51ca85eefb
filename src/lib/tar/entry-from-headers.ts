// Puts an entry together from its header block and the PAX and GNU extensions before it.

import {CodedError} from '../errors/coded-error.ts'
import {decodeByteText, encodeByteText} from '../io/byte-text.ts'
import {type HeaderBlock, MAX_OCTAL_SIZE, plainFileBlock} from './header.ts'
import {checkPathLimits, cleanPath} from './path.ts'
import {encodePaxHeader, type PaxRecords, parsePaxInteger, parsePaxTime} from './pax.ts'
import {SPARSE_NAME, SPARSE_PREFIX} from './sparse-map.ts'
import type {SparseMap, TarEntry, TarEntryType, TarLimits, TarTime} from './tar-entry.ts'

/** What headers before an entry's own block say about it. */
export interface HeaderExtensions {
  readonly records?: PaxRecords
  readonly longName?: string
  readonly longLinkName?: string
}

export interface EntryHeaders {
  readonly block: Uint8Array
  readonly header: HeaderBlock
  readonly headerOffset: number
  readonly headerSize: number
  readonly extensions: HeaderExtensions
  readonly globalRecords: PaxRecords
  /** Of a sparse file. */
  readonly sparseMap?: SparseMap | undefined
}

/** The prefix of PAX keys that hold extended attributes, as star introduced and everyone writes. */
const XATTR_KEY = 'SCHILY.xattr.'

/** Throws `corrupt` or `unsupported`; `where` names the header in messages. */
export function entryFromHeaders(
  headers: EntryHeaders,
  {limits, where}: {readonly limits: TarLimits; readonly where: string},
): TarEntry {
  const {header, extensions, globalRecords, sparseMap} = headers
  const records = mergeRecords(globalRecords, extensions)
  const text = (key: string, fallback: string) => textRecord(records, key, where) ?? fallback
  const integer = (key: string, fallback: number) => {
    const value = records.get(key)
    return value?.length ? parsePaxInteger(value, key, where) : fallback
  }
  const name = (sparseMap && text(SPARSE_NAME, '')) || text('path', header.name)
  const described = `${where} (${JSON.stringify(name.slice(0, 100))})`
  const type = sparseMap ? 'reg' : entryType(header, name, described)
  const path = checkedPath(name, 'name', limits, described)
  const linkName = type === 'symlink' || type === 'hardlink' ? text('linkpath', header.linkName) : ''
  if (type === 'hardlink') checkedPath(linkName, 'link target', limits, described)
  if (encodeByteText(linkName).length > limits.pathSize) {
    throw new CodedError('unsupported', `Cannot use ${described}: its link target is too long`)
  }
  const size = sparseMap ? sparseMap.realSize : type === 'reg' ? integer('size', header.size) : 0
  if (size < 0) throw new CodedError('corrupt', `Cannot read ${described}: its size is negative`)
  if (path === '' && type !== 'dir') {
    throw new CodedError('corrupt', `Cannot read ${described}: the root can only be a directory`)
  }
  const time = (key: 'mtime' | 'atime' | 'ctime'): TarTime | undefined => {
    const value = records.get(key)
    if (value?.length) return parsePaxTime(value, key, where)
    const seconds = header[key]
    return seconds === undefined ? undefined : {seconds, nanoseconds: 0}
  }
  const modified = time('mtime')!
  const accessed = time('atime')
  const changed = time('ctime')
  return {
    type,
    name,
    path,
    linkName,
    mode: header.mode,
    uid: integer('uid', header.uid),
    gid: integer('gid', header.gid),
    userName: text('uname', header.userName),
    groupName: text('gname', header.groupName),
    mtimeSeconds: modified.seconds,
    mtimeNanoseconds: modified.nanoseconds,
    ...(accessed ? {accessTime: accessed} : {}),
    ...(changed ? {changeTime: changed} : {}),
    devMajor: header.devMajor,
    devMinor: header.devMinor,
    xattrs: xattrsOf(records, limits, described),
    headerOffset: headers.headerOffset,
    headerSize: headers.headerSize,
    foldedHeader: globalRecords.size > 0 ? foldHeaders(records, headers.block) : undefined,
    size,
    ...(sparseMap ? {sparse: {map: sparseMap, header: plainHeaders(headers, records, sparseMap)}} : {}),
  }
}

/** What stands before the payload of the plain file that a sparse one becomes. */
function plainHeaders({block}: EntryHeaders, records: PaxRecords, {realSize}: SparseMap): Uint8Array {
  const kept = new Map([...records].filter(([key]) => !key.startsWith(SPARSE_PREFIX) && key !== 'size'))
  const name = records.get(SPARSE_NAME)
  if (name?.length) kept.set('path', name)
  if (realSize > MAX_OCTAL_SIZE) kept.set('size', encodeByteText(String(realSize)))
  const plain = plainFileBlock(block, realSize)
  return kept.size > 0 ? foldHeaders(kept, plain) : plain
}

/** The records that hold for the next entry, so far as its own block matters not. */
export function recordsFor({
  extensions,
  globalRecords,
}: Pick<EntryHeaders, 'extensions' | 'globalRecords'>): PaxRecords {
  return mergeRecords(globalRecords, extensions)
}

/** The records that hold for one entry: global, then its own, then GNU long names, each over the one before. */
function mergeRecords(globals: PaxRecords, {records, longName, longLinkName}: HeaderExtensions): PaxRecords {
  if (globals.size === 0 && longName === undefined && longLinkName === undefined) return records ?? new Map()
  const merged = new Map([...globals, ...(records ?? [])])
  if (longName !== undefined) merged.set('path', encodeByteText(longName))
  if (longLinkName !== undefined) merged.set('linkpath', encodeByteText(longLinkName))
  return merged
}

/** An empty record means that the header block's own field holds. */
function textRecord(records: PaxRecords, key: string, where: string): string | undefined {
  const value = records.get(key)
  if (!value?.length) return undefined
  if (value.includes(0)) {
    throw new CodedError('corrupt', `Cannot read ${where}: its PAX record "${key}" has a NUL`)
  }
  return decodeByteText(value)
}

function entryType(header: HeaderBlock, name: string, where: string): TarEntryType {
  switch (header.typeflag) {
    case '\0':
      // V7 had no type for directories but a slash at the end.
      return name.endsWith('/') ? 'dir' : 'reg'
    case '0':
    case '7': // "Contiguous": POSIX says to treat it as a regular file.
      return 'reg'
    case '1':
      return 'hardlink'
    case '2':
      return 'symlink'
    case '3':
      return 'char'
    case '4':
      return 'block'
    case '5':
      return 'dir'
    case '6':
      return 'fifo'
    default:
      throw new CodedError(
        'unsupported',
        `Cannot use ${where}: its type ${JSON.stringify(header.typeflag)} is not one of a layer's`,
      )
  }
}

function checkedPath(name: string, what: string, limits: TarLimits, where: string): string {
  const path = cleanPath(name)
  if (path === undefined) {
    throw new CodedError(
      'corrupt',
      `Cannot use ${where}: its ${what} ${JSON.stringify(name.slice(0, 100))} leaves the layer`,
    )
  }
  checkPathLimits(path, limits, where)
  return path
}

function xattrsOf(
  records: PaxRecords,
  limits: TarLimits,
  where: string,
): ReadonlyMap<string, Uint8Array> | undefined {
  let xattrs: Map<string, Uint8Array> | undefined
  for (const [key, value] of records) {
    if (!key.startsWith(XATTR_KEY)) continue
    const name = key.slice(XATTR_KEY.length)
    if (
      value.length > limits.xattrSize ||
      name.length === 0 ||
      encodeByteText(name).length > limits.nameSize
    ) {
      throw new CodedError(
        'unsupported',
        `Cannot use ${where}: its extended attribute ${JSON.stringify(name.slice(0, 64))} of ${value.length} bytes is not one that Linux can hold`,
      )
    }
    xattrs ??= new Map()
    xattrs.set(name, value)
  }
  return xattrs
}

/** One PAX header with everything that holds, and the entry's own block. */
function foldHeaders(records: PaxRecords, block: Uint8Array): Uint8Array {
  const pax = encodePaxHeader(records)
  const folded = new Uint8Array(pax.length + block.length)
  folded.set(pax)
  folded.set(block, pax.length)
  return folded
}
