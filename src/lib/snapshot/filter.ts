// containerd's filter language for Walk and List: `field==value,labels."a.b"~=regexp`; a comma means and.
// Source: containerd pkg/filters, "Syntax".

import {CodedError, messageOf} from '../errors/coded-error.ts'
import type {Snapshot} from './snapshot.ts'

/** True for snapshots that pass. */
export type SnapshotFilter = (snapshot: Snapshot) => boolean

/** Longest filter accepted; real ones name one or two labels. */
const MAX_FILTER_LENGTH = 4096
/** Most filters of a request: each may be tried for every snapshot. */
const MAX_FILTERS = 1000

/** A predicate that holds when any of `filters` does; no filters pass everything. Throws `invalid-argument`. */
export async function parseFilters(filters: readonly string[]): Promise<SnapshotFilter> {
  if (filters.length === 0) return () => true
  if (filters.length > MAX_FILTERS) {
    throw new CodedError('invalid-argument', `Cannot use ${filters.length} filters: more than ${MAX_FILTERS}`)
  }
  const parsed = await Promise.all(filters.map(parseFilter))
  return snapshot => parsed.some(filter => filter(snapshot))
}

async function parseFilter(text: string): Promise<SnapshotFilter> {
  if (text.length > MAX_FILTER_LENGTH)
    throw invalid(text, `it is longer than ${MAX_FILTER_LENGTH} characters`)
  if (text.trim() === '') return () => true
  const conditions: SnapshotFilter[] = []
  const cursor = new Cursor(text)
  do conditions.push(await parseCondition(cursor))
  while (cursor.take(/^,/))
  if (!cursor.atEnd()) throw invalid(text, `unexpected text at character ${cursor.position + 1}`)
  return snapshot => conditions.every(condition => condition(snapshot))
}

async function parseCondition(cursor: Cursor): Promise<SnapshotFilter> {
  const path = [parseFieldPart(cursor)]
  while (cursor.take(/^\./)) path.push(parseFieldPart(cursor))
  const operator = cursor.take(/^(==|!=|~=)/)
  if (operator === undefined) return snapshot => (fieldOf(snapshot, path) ?? '') !== ''
  const value = parseValue(cursor)
  switch (operator) {
    case '==':
      return snapshot => fieldOf(snapshot, path) === value
    case '!=':
      return snapshot => fieldOf(snapshot, path) !== value
    default:
      return await matching(cursor.text, path, value)
  }
}

/**
 * Matches by a regular expression: Go's, whose matches take time linear in the text, so that no request keeps all others
 * waiting. Loaded only where one is used: it takes 5 MB.
 */
async function matching(text: string, path: readonly string[], pattern: string): Promise<SnapshotFilter> {
  const {RE2JS} = await import('re2js')
  try {
    const expression = RE2JS.compile(pattern)
    return snapshot => expression.matcher(fieldOf(snapshot, path) ?? '').find()
  } catch (cause) {
    throw invalid(text, `its regular expression is malformed: ${messageOf(cause)}`, cause)
  }
}

function parseFieldPart(cursor: Cursor): string {
  const part = parseQuoted(cursor) ?? cursor.take(/^[A-Za-z0-9_]+/)
  if (part === undefined)
    throw invalid(cursor.text, `a field name is missing at character ${cursor.position + 1}`)
  return part
}

function parseValue(cursor: Cursor): string {
  return parseQuoted(cursor) ?? cursor.take(/^[^\s,"|/]+/) ?? ''
}

/** A Go string literal, or text between `/` or `|` as the language allows for regular expressions. */
function parseQuoted(cursor: Cursor): string | undefined {
  const literal = cursor.take(/^"(?:[^"\\]|\\.)*"/)
  if (literal !== undefined) {
    try {
      return JSON.parse(literal)
    } catch (cause) {
      throw invalid(cursor.text, `the quoted text ${literal} is malformed`, cause)
    }
  }
  return cursor.take(/^\/(?:[^/\\]|\\.)*\/|^\|(?:[^|\\]|\\.)*\|/)?.slice(1, -1)
}

function fieldOf(snapshot: Snapshot, path: readonly string[]): string | undefined {
  const [field, ...rest] = path
  switch (field) {
    case 'name':
      return snapshot.name
    case 'parent':
      return snapshot.parent ?? ''
    case 'kind':
      return snapshot.kind
    case 'labels':
      return snapshot.labels[rest.join('.')]
    default:
      return undefined
  }
}

/** A position in a text that only moves forward. */
class Cursor {
  readonly text: string
  position = 0

  constructor(text: string) {
    this.text = text
  }

  /** What `pattern`, anchored, matches here, consumed; undefined when it does not match. */
  take(pattern: RegExp): string | undefined {
    const match = pattern.exec(this.text.slice(this.position))
    if (!match) return undefined
    this.position += match[0].length
    return match[0]
  }

  atEnd(): boolean {
    return this.position === this.text.length
  }
}

function invalid(text: string, problem: string, cause?: unknown): CodedError {
  return new CodedError(
    'invalid-argument',
    `Cannot parse filter ${JSON.stringify(text.slice(0, 200))}: ${problem}`,
    {cause},
  )
}
