// Record files: which files a workload accessed, in order. The format is the reference's: JSON objects, one per line,
// `{"path":"usr/bin/app","manifestDigest":"sha256:…","layerIndex":2}`.

import {CodedError} from '../errors/coded-error.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {mergeReadRanges, type ReadRange} from '../prefetch/read-ranges.ts'
import {cleanPath} from './clean-path.ts'

/** One accessed file. `path` is clean and has no leading slash; `layerIndex` counts from the lowest layer, 0. */
export interface RecordEntry {
  readonly path: string
  /** Absent in records that people write by hand; the path is what counts. */
  readonly manifestDigest?: Digest
  readonly layerIndex?: number
  /** Which parts of it were read, in the order of the file; absent where that is not known. See profile-file.ts. */
  readonly reads?: readonly ReadRange[]
}

/** Largest record accepted, bytes. A workload that opens 100,000 files makes about 15 MiB. */
export const MAX_RECORD_SIZE = 64 * 1024 * 1024
/** Most entries accepted. */
export const MAX_RECORD_ENTRIES = 1_000_000
/** Most parts of files accepted, of all entries together. */
const MAX_RANGES = 4_000_000
/** A read that is later than a day after the start is no part of it, milliseconds. */
const MAX_MS = 86_400_000
/** Longest path accepted, characters: PATH_MAX of Linux. */
const MAX_PATH_LENGTH = 4096

/** The bytes of a record file; `parseRecord` is its inverse. Field order and line ends are the reference's. */
export function encodeRecord(entries: readonly RecordEntry[]): Uint8Array {
  const lines = entries.map(
    ({path, manifestDigest, layerIndex}) => `${JSON.stringify({path, manifestDigest, layerIndex})}\n`,
  )
  return new TextEncoder().encode(lines.join(''))
}

/**
 * Parses concatenated JSON objects, on one line or many. Unknown fields are ignored, paths are cleaned, and only the
 * first entry of each (path, manifest, layer) is kept. `where` names the file in the `invalid-argument` error, which
 * says the line, that anything malformed throws.
 */
export function parseRecord(bytes: Uint8Array, where: string): RecordEntry[] {
  if (bytes.length > MAX_RECORD_SIZE) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use the record ${where}: its ${bytes.length} bytes exceed the limit of ${MAX_RECORD_SIZE}`,
    )
  }
  const text = decodeText(bytes, where)
  const entries = new Map<string, RecordEntry>()
  let count = 0
  let ranges = 0
  for (const {json, line} of splitObjects(text, where)) {
    if (++count > MAX_RECORD_ENTRIES) {
      throw malformed(where, line, `there are more than ${MAX_RECORD_ENTRIES} entries`)
    }
    const entry = parseEntry(json, where, line)
    ranges += entry.reads?.length ?? 0
    if (ranges > MAX_RANGES) throw malformed(where, line, `there are more than ${MAX_RANGES} reads`)
    const key = `${entry.path}\0${entry.manifestDigest ?? ''}\0${entry.layerIndex ?? ''}`
    if (!entries.has(key)) entries.set(key, entry)
  }
  return [...entries.values()]
}

/** The paths of a record in first-seen order, each once: what is prioritised in every layer. */
export function recordPaths(entries: readonly RecordEntry[]): string[] {
  return [...new Set(entries.map(entry => entry.path))]
}

function decodeText(bytes: Uint8Array, where: string): string {
  try {
    return new TextDecoder('utf-8', {fatal: true}).decode(bytes)
  } catch (cause) {
    throw new CodedError('invalid-argument', `Cannot parse the record ${where}: it is not UTF-8 text`, {
      cause,
    })
  }
}

/** Finds where each top-level object ends without parsing it; JSON.parse then judges it. */
function* splitObjects(text: string, where: string): Generator<{json: string; line: number}> {
  let line = 1
  let start = -1
  let startLine = 1
  let depth = 0
  let inString = false
  for (let index = 0; index < text.length; index++) {
    const char = text[index]!
    if (char === '\n') line++
    if (inString) {
      if (char === '\\') index++
      else if (char === '"') inString = false
    } else if (depth > 0 && char === '"') {
      inString = true
    } else if (char === '{') {
      if (depth++ === 0) {
        start = index
        startLine = line
      }
    } else if (depth > 0 && char === '}') {
      if (--depth === 0) yield {json: text.slice(start, index + 1), line: startLine}
    } else if (depth === 0 && !/\s/.test(char)) {
      throw malformed(where, line, `expected a JSON object, found ${JSON.stringify(char)}`)
    }
  }
  if (depth > 0) throw malformed(where, startLine, 'the JSON object does not end')
}

function parseEntry(json: string, where: string, line: number): RecordEntry {
  let value: Record<string, unknown>
  try {
    value = JSON.parse(json) as Record<string, unknown>
  } catch (cause) {
    throw new CodedError('invalid-argument', `Cannot parse line ${line} of the record ${where} as JSON`, {
      cause,
    })
  }
  const {path, manifestDigest, layerIndex, reads} = value
  if (typeof path !== 'string' || path.length > MAX_PATH_LENGTH) {
    throw malformed(where, line, `"path" is not a string of at most ${MAX_PATH_LENGTH} characters`)
  }
  const clean = cleanPath(path)
  if (clean === undefined)
    throw malformed(where, line, `"path" names no file inside an image: ${JSON.stringify(path)}`)
  if (
    manifestDigest !== undefined &&
    manifestDigest !== null &&
    manifestDigest !== '' &&
    !isDigest(manifestDigest)
  ) {
    throw malformed(where, line, `"manifestDigest" is no sha256 digest: ${JSON.stringify(manifestDigest)}`)
  }
  if (layerIndex !== undefined && layerIndex !== null && !isLayerIndex(layerIndex)) {
    throw malformed(where, line, `"layerIndex" is no index of a layer: ${JSON.stringify(layerIndex)}`)
  }
  return {
    path: clean,
    ...(isDigest(manifestDigest) ? {manifestDigest} : {}),
    ...(isLayerIndex(layerIndex) ? {layerIndex} : {}),
    ...(reads === undefined || reads === null ? {} : {reads: rangesIn(reads, where, line)}),
  }
}

function rangesIn(reads: unknown, where: string, line: number): readonly ReadRange[] {
  const isNumber = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0
  const isRange = (range: unknown): range is [number, number, number] =>
    Array.isArray(range) && range.length === 3 && range.every(isNumber) && range[1] > range[0]
  if (!Array.isArray(reads) || !reads.every(isRange)) {
    throw malformed(where, line, '"reads" is no list of [start, end, milliseconds]')
  }
  return mergeReadRanges(reads.map(([offset, end, atMs]) => ({offset, end, atMs: Math.min(atMs, MAX_MS)})))
}

function isLayerIndex(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0
}

function malformed(where: string, line: number, problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot parse line ${line} of the record ${where}: ${problem}`)
}
