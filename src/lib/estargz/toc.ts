// The table of contents of a layer (eStargz spec, "TOC"): JSON, encoded byte for byte as Go's MarshalIndent does, so that
// equal layers have equal TOCs whoever wrote them.

import {CodedError} from '../errors/coded-error.ts'
import {canonicalByteText} from '../io/byte-text.ts'
import {encodeTexts} from '../io/utf8-buffer.ts'
import type {TarEntryType} from '../tar/tar-entry.ts'
import {splitToc} from './split-toc.ts'

/** One entry, with the spec's own names. A field that is absent is zero; offsets and sizes are bytes. */
export interface TocEntry {
  readonly name: string
  readonly type: TarEntryType | 'chunk'
  readonly size?: number
  /** RFC 3339, UTC, whole seconds. */
  readonly modtime?: string
  readonly linkName?: string
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly userName?: string
  readonly groupName?: string
  /** Where in the blob the stream starts in which the chunk is, and where in that stream's output it starts. */
  readonly offset?: number
  readonly innerOffset?: number
  readonly devMajor?: number
  readonly devMinor?: number
  /** Base64 values. */
  readonly xattrs?: Readonly<Record<string, string>>
  /** Of the whole file. */
  readonly digest?: string
  readonly chunkOffset?: number
  /** Absent: to the end of the file. */
  readonly chunkSize?: number
  readonly chunkDigest?: string
}

/** A TOC that was read; entries in the order of the layer. */
export interface Toc {
  readonly version: number
  /** Of zstd:chunked layers: the digest of the compressed tar-split. */
  readonly tarSplitDigest?: string
  readonly entries: readonly TocEntry[]
}

/** Largest TOC that we read, in bytes of JSON: about a million files. */
export const MAX_TOC_SIZE = 384 << 20
/** The tar around it adds a header, padding and the end of an archive. */
export const MAX_TOC_TAR_SIZE = MAX_TOC_SIZE + 4096
/**
 * Most entries that we read, chunks included, and most extended attributes of all of them together. To open a layer takes
 * up to 2 KB of memory for each, so that a TOC at its limits needs some 2 GB.
 */
export const MAX_TOC_ENTRIES = 1_100_000

const TYPES: readonly string[] = ['reg', 'dir', 'symlink', 'hardlink', 'char', 'block', 'fifo', 'chunk']

/** In the order in which they are written; `name` and `type` are always there. */
const KEYS = [
  ['size', 'number'],
  ['modtime', 'string'],
  ['linkName', 'string'],
  ['mode', 'number'],
  ['uid', 'number'],
  ['gid', 'number'],
  ['userName', 'string'],
  ['groupName', 'string'],
  ['offset', 'number'],
  ['innerOffset', 'number'],
  ['devMajor', 'number'],
  ['devMinor', 'number'],
  ['xattrs', 'object'],
  ['digest', 'string'],
  ['chunkOffset', 'number'],
  ['chunkSize', 'number'],
  ['chunkDigest', 'string'],
] as const satisfies readonly (readonly [keyof TocEntry, string])[]

/** Numbers that can be negative in a valid tar; all others are sizes and offsets. */
const SIGNED_KEYS: readonly string[] = ['uid', 'gid', 'mode']

/** The TOC's JSON. */
export function encodeToc(entries: Iterable<TocEntry>): Uint8Array {
  return Buffer.concat(Array.from(encodeTexts(tocTexts(entries)), part => part.slice()))
}

/** The TOC's JSON, in pieces of any size: that of a large layer has a hundred MB. */
export function* tocTexts(entries: Iterable<TocEntry>): Generator<string> {
  yield '{\n\t"version": 1,\n\t"entries": ['
  let separator = '\n\t\t'
  for (const entry of entries) {
    yield separator + encodeEntry(entry)
    separator = ',\n\t\t'
  }
  yield separator.startsWith(',') ? '\n\t]\n}' : ']\n}'
}

function encodeEntry(entry: TocEntry): string {
  const written: Record<string, unknown> = {name: entry.name, type: entry.type}
  for (const [key] of KEYS) if (entry[key]) written[key] = entry[key]
  const json = JSON.stringify(written, undefined, '\t').replaceAll('\n', '\n\t\t')
  return json.replace(/[<>&\u2028\u2029]/g, escapeForGo)
}

/** Go's encoder escapes what HTML or JavaScript might misread. */
function escapeForGo(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`
}

/**
 * Parses and checks a TOC; `where` names it in the `corrupt` error that a malformed one throws, and the `unsupported`
 * one of a TOC beyond the limits. Whether entries fit the blob and each other is for `indexToc` to say. Unknown fields
 * are dropped. Takes memory for what it returns, and a few times a piece's size.
 */
export function parseToc(json: Uint8Array, where: string): Toc {
  if (json.length > MAX_TOC_SIZE) throw tooLarge(where, `it is larger than ${MAX_TOC_SIZE} bytes`)
  const {frame, pieces} = splitToc(json, where)
  const value = parseJson(new TextDecoder().decode(frame), where)
  const {version, entries: list, tarSplitDigest} = isObject(value) ? value : {}
  if (version !== 1) {
    const found = typeof version === 'number' ? version : `a ${typeof version}`
    throw new CodedError('unsupported', `Cannot read ${where}: its version is ${found}, not 1`)
  }
  // Go writes `null` for an empty list. A key that is written with escapes is none of ours.
  if (list !== null && !(Array.isArray(list) && list.length === 0)) {
    throw new CodedError('corrupt', `Cannot read ${where}: it has no list of entries`)
  }
  return {
    version,
    ...(typeof tarSplitDigest === 'string' ? {tarSplitDigest} : {}),
    entries: list === null ? [] : parseEntries(pieces, where),
  }
}

function parseEntries(pieces: readonly Uint8Array[], where: string): TocEntry[] {
  const decoder = new TextDecoder('utf-8', {ignoreBOM: true})
  const entries: TocEntry[] = []
  let xattrs = 0
  for (const piece of pieces) {
    const values = parseJson(`[${decoder.decode(piece)}]`, where) as unknown[]
    if (values.length === 0 && pieces.length > 1) throw notJson(where)
    if (entries.length + values.length > MAX_TOC_ENTRIES) {
      throw tooLarge(where, `it has more than ${MAX_TOC_ENTRIES} entries`)
    }
    for (const value of values) {
      const entry = parseEntry(value, `${where}, entry ${entries.length}`)
      if (entry.xattrs) xattrs += Object.keys(entry.xattrs).length
      entries.push(entry)
    }
    if (xattrs > MAX_TOC_ENTRIES) {
      throw tooLarge(where, `it has more than ${MAX_TOC_ENTRIES} extended attributes`)
    }
  }
  return entries
}

function parseJson(text: string, where: string): unknown {
  try {
    return JSON.parse(text)
  } catch (cause) {
    throw notJson(where, cause)
  }
}

function notJson(where: string, cause?: unknown): CodedError {
  return new CodedError('corrupt', `Cannot read ${where}: it is not JSON`, {cause})
}

function tooLarge(where: string, problem: string): CodedError {
  return new CodedError('unsupported', `Cannot read ${where}: ${problem}`)
}

function parseEntry(value: unknown, where: string): TocEntry {
  if (!isObject(value) || typeof value.name !== 'string' || !TYPES.includes(value.type as string)) {
    throw new CodedError('corrupt', `Cannot use ${where}: it has no name or no valid type`)
  }
  const entry: Record<string, unknown> = {name: canonicalByteText(value.name), type: value.type}
  for (const [key, type] of KEYS) {
    const field = value[key]
    if (field === undefined || field === null) continue
    const isValid =
      type === 'object'
        ? isObject(field) && Object.values(field).every(item => typeof item === 'string')
        : type === 'number'
          ? Number.isSafeInteger(field) && (SIGNED_KEYS.includes(key) || (field as number) >= 0)
          : typeof field === 'string'
    if (!isValid) throw new CodedError('corrupt', `Cannot use ${where}: its "${key}" is not valid`)
    // A zero may have a sign, which nothing that is made of it should have.
    if (type === 'number') entry[key] = (field as number) + 0
    else entry[key] = key === 'linkName' ? canonicalByteText(field as string) : field
  }
  // Every field was checked against the type that `TocEntry` gives it.
  return entry as unknown as TocEntry
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
