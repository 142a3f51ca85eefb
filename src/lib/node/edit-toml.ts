// Changing a few keys of a TOML file that people wrote: what they wrote stays as it is, byte for byte, comments included.

import {parse} from 'smol-toml'
import {type AST, parseTOML} from 'toml-eslint-parser'
import {CodedError} from '../errors/coded-error.ts'
import {isRecord} from '../oci/descriptor.ts'

/** Keys from the top of the file to a value. */
export type TomlPath = readonly string[]

export interface TomlEdit {
  readonly path: TomlPath
  /** The value as TOML writes it; undefined takes the key away. */
  readonly value: string | undefined
}

/** A key with its value, and where in the file they are. */
interface Entry {
  readonly path: TomlPath
  readonly node: AST.TOMLKeyValue
  /** The keys of the table that it stands in, without those that it names itself. */
  readonly table: TomlPath
}

/**
 * Makes the edits, one after the other. Throws `failed-precondition` for a text that is no TOML, or one whose way of writing
 * leaves no place for an edit.
 */
export function editToml(text: string, edits: readonly TomlEdit[]): string {
  const mark = text.startsWith('\uFEFF') ? '\uFEFF' : ''
  return mark + edits.reduce(editKey, text.slice(mark.length))
}

/** The value of a key as it is written; undefined where there is none. */
export function rawTomlValue(text: string, path: TomlPath): string | undefined {
  const unmarked = text.replace(/^\uFEFF/, '')
  const found = entriesOf(parseText(unmarked)).find(entry => isSame(entry.path, path))
  return found && unmarked.slice(...found.node.value.range)
}

/** Appends a text to an array of texts, which is made where there is none. */
export function addToTomlArray(text: string, path: TomlPath, item: string): string {
  const raw = rawTomlValue(text, path)
  if (raw === undefined) return editToml(text, [{path, value: `[${JSON.stringify(item)}]`}])
  const elements = elementsOf(raw)
  if (elements.some(({value}) => value === item)) return text
  const last = elements.at(-1)
  const at = last ? last.range[1] : raw.indexOf('[') + 1
  const value = splice(raw, [at, at], `${last ? ', ' : ''}${JSON.stringify(item)}`)
  return editToml(text, [{path, value}])
}

/** Takes a text out of an array of texts again; what else is in it stays. */
export function removeFromTomlArray(text: string, path: TomlPath, item: string): string {
  const raw = rawTomlValue(text, path)
  if (raw === undefined) return text
  const elements = elementsOf(raw)
  const index = elements.findIndex(({value}) => value === item)
  if (index === -1) return text
  const [before, found, after] = [elements[index - 1], elements[index]!, elements[index + 1]]
  const range: [number, number] = before
    ? [before.range[1], found.range[1]]
    : [found.range[0], after ? after.range[0] : found.range[1]]
  return editToml(text, [{path, value: splice(raw, range, '')}])
}

interface Element {
  readonly value: unknown
  readonly range: readonly [number, number]
}

/** The elements of an array that is written as `raw`, and where they are in that. */
function elementsOf(raw: string): Element[] {
  const [entry] = entriesOf(parseText(`x=${raw}`))
  if (entry?.node.value.type !== 'TOMLArray') {
    throw new CodedError('failed-precondition', `Cannot add to ${firstLine(raw)}: it is no array`)
  }
  return entry.node.value.elements.map(element => ({
    value: element.type === 'TOMLValue' ? element.value : undefined,
    range: [element.range[0] - 2, element.range[1] - 2],
  }))
}

function editKey(text: string, edit: TomlEdit): string {
  const {path, value} = edit
  const edited = value === undefined ? removeKey(text, path) : setKey(text, path, value)
  // Whatever way of writing was not thought of ends here, and not in a file that means something else.
  if (edited === undefined || !means(edited, text, edit)) {
    const wish =
      value === undefined ? `take ${path.join('.')} away` : `set ${path.join('.')} = ${firstLine(value)}`
    throw new CodedError(
      'failed-precondition',
      `Cannot ${wish}: it is written in a way that is not understood`,
    )
  }
  return edited
}

// --- Setting -----------------------------------------------------------------------------------------------------------

function setKey(text: string, path: TomlPath, value: string): string | undefined {
  const program = parseText(text)
  const entries = entriesOf(program)
  const there = entries.find(entry => isSame(entry.path, path))
  if (there) return splice(text, there.node.value.range, value)
  const [parent, key] = [path.slice(0, -1), path.at(-1)!]
  const table = tablesOf(program).find(({keys}) => isSame(keys, parent))
  if (table) return insertInto(text, table.node, `${quoteKey(key)} = ${value}`)
  if (parent.length === 0) return insertFirst(text, `${quoteKey(key)} = ${value}`)
  return (
    setInInlineTable(text, entries, {path, value}) ??
    setBesideDotted(text, entries, {path, value}) ??
    appendTable(text, path, value)
  )
}

/** Behind the last key of a table, as that one is indented. */
function insertInto(text: string, table: AST.TOMLTopLevelTable | AST.TOMLTable, line: string): string {
  const last = table.body.findLast(node => node.type === 'TOMLKeyValue')
  if (last) return insertLine(text, last.range[1], `${indentAt(text, last.range[0])}${line}`)
  if (table.type === 'TOMLTopLevelTable') return insertFirst(text, line)
  return insertLine(text, table.key.range[1], `${indentAt(text, table.range[0])}  ${line}`)
}

/** `a = { … }` in one of the tables above. */
function setInInlineTable(
  text: string,
  entries: readonly Entry[],
  {path, value}: {readonly path: TomlPath; readonly value: string},
): string | undefined {
  const inline = entries
    .filter(({node, path: above}) => node.value.type === 'TOMLInlineTable' && startsWith(path, above))
    .reduce<Entry | undefined>((a, b) => (a && a.path.length >= b.path.length ? a : b), undefined)
  if (!inline) return undefined
  const node = inline.node.value as AST.TOMLInlineTable
  const pair = `${path.slice(inline.path.length).map(quoteKey).join('.')} = ${value}`
  const last = node.body.at(-1)
  if (last) return splice(text, [last.range[1], last.range[1]], `, ${pair}`)
  return splice(text, node.range, `{ ${pair} }`)
}

/** `a.b = 1` in one of the tables above makes a table that no header may name again. */
function setBesideDotted(
  text: string,
  entries: readonly Entry[],
  {path, value}: {readonly path: TomlPath; readonly value: string},
): string | undefined {
  const beside = entries.findLast(entry => {
    const common = entry.path.findIndex((key, index) => key !== path[index])
    // They share a table that the other one's dots made.
    return common > entry.table.length && startsWith(path, entry.table)
  })
  if (!beside) return undefined
  const pair = `${path.slice(beside.table.length).map(quoteKey).join('.')} = ${value}`
  return insertLine(text, beside.node.range[1], `${indentAt(text, beside.node.range[0])}${pair}`)
}

function appendTable(text: string, path: TomlPath, value: string): string {
  const eol = lineEnd(text)
  const gap = text === '' ? '' : text.endsWith('\n') ? eol : `${eol}${eol}`
  const header = `[${path.slice(0, -1).map(quoteKey).join('.')}]`
  return `${text}${gap}${header}${eol}  ${quoteKey(path.at(-1)!)} = ${value}${eol}`
}

/** Above everything else. */
function insertFirst(text: string, line: string): string {
  return `${line}${lineEnd(text)}${text}`
}

/** A line of its own after the one that `offset` is on. */
function insertLine(text: string, offset: number, line: string): string {
  const newline = text.indexOf('\n', offset)
  if (newline === -1) return `${text}${lineEnd(text)}${line}`
  return splice(text, [newline + 1, newline + 1], `${line}${lineEnd(text)}`)
}

// --- Taking away -------------------------------------------------------------------------------------------------------

function removeKey(text: string, path: TomlPath): string | undefined {
  const program = parseText(text)
  const found = entriesOf(program).find(entry => isSame(entry.path, path))
  if (!found) return text
  const {node} = found
  if (node.parent.type === 'TOMLInlineTable') return removeFromInlineTable(text, node, node.parent)
  const without = removeLines(text, node.range)
  // An empty table may mean something: a proxy plugin without an address.
  const table = tablesOf(parseText(without)).find(({keys}) => isSame(keys, found.table))?.node
  if (table?.type !== 'TOMLTable' || table.body.length > 0) return without
  // A comment on its line is somebody's.
  if (!/^\s*\]\s*(\n|$)/.test(without.slice(table.key.range[1]))) return without
  const shorter = removeLines(without, [table.range[0], table.key.range[1]])
  // And the empty line that was put before it.
  const before = shorter.slice(0, lineStart(without, table.range[0]))
  return shorter.length === before.length ? before.replace(/(\r?\n)\r?\n$/, '$1') : shorter
}

function removeFromInlineTable(
  text: string,
  node: AST.TOMLKeyValue,
  table: AST.TOMLInlineTable,
): string | undefined {
  const index = table.body.indexOf(node)
  const before = table.body[index - 1]
  const after = table.body[index + 1]
  if (before) return splice(text, [before.range[1], node.range[1]], '')
  if (after) return splice(text, [node.range[0], after.range[0]], '')
  return splice(text, table.range, '{}')
}

/** The lines of a range, to their ends. */
function removeLines(text: string, [from, to]: readonly [number, number]): string {
  const newline = text.indexOf('\n', to)
  return splice(text, [lineStart(text, from), newline === -1 ? text.length : newline + 1], '')
}

// --- What is where -----------------------------------------------------------------------------------------------------

function parseText(text: string): AST.TOMLProgram {
  try {
    parse(text)
    return parseTOML(text, {tomlVersion: '1.0'})
  } catch (cause) {
    throw new CodedError('failed-precondition', 'Cannot change a file that is not TOML', {cause})
  }
}

function tablesOf(
  program: AST.TOMLProgram,
): {readonly keys: TomlPath; readonly node: AST.TOMLTopLevelTable | AST.TOMLTable}[] {
  const [top] = program.body
  const tables = top.body.filter(node => node.type === 'TOMLTable')
  return [
    {keys: [], node: top},
    ...tables.flatMap(node => (isPlain(node) ? [{keys: node.resolvedKey.map(String), node}] : [])),
  ]
}

/** In no array of tables: nothing there can be named by keys. */
function isPlain({resolvedKey}: AST.TOMLTable): boolean {
  return resolvedKey.every(key => typeof key === 'string')
}

/** All keys with values, those of inline tables after these. */
function entriesOf(program: AST.TOMLProgram): Entry[] {
  return tablesOf(program).flatMap(({keys, node}) =>
    (node.body as readonly AST.TOMLNode[]).flatMap(child =>
      child.type === 'TOMLKeyValue' ? entriesBelow(child, keys) : [],
    ),
  )
}

function entriesBelow(node: AST.TOMLKeyValue, table: TomlPath): Entry[] {
  const path = [...table, ...node.key.keys.map(key => (key.type === 'TOMLBare' ? key.name : key.value))]
  const below =
    node.value.type === 'TOMLInlineTable' ? node.value.body.flatMap(child => entriesBelow(child, path)) : []
  return [{path, node, table}, ...below]
}

// --- Checking ----------------------------------------------------------------------------------------------------------

/** Whether `edited` says what `text` says, but for the edit; tables without keys say nothing. */
function means(edited: string, text: string, {path, value}: TomlEdit): boolean {
  try {
    const wanted = parse(text)
    const table = path.slice(0, -1).reduce<unknown>((parent, key) => {
      if (isRecord(parent) && value !== undefined) parent[key] ??= {}
      return isRecord(parent) ? parent[key] : undefined
    }, wanted)
    if (isRecord(table)) {
      if (value === undefined) delete table[path.at(-1)!]
      else table[path.at(-1)!] = parse(`x = ${value}`).x
    }
    return canonical(parse(edited)) === canonical(wanted)
  } catch {
    return false
  }
}

function canonical(value: unknown): string {
  return JSON.stringify(value, (_, part: unknown) => {
    if (typeof part === 'bigint') return `${part}n`
    if (!isRecord(part) || part instanceof Date) return part
    const sorted = Object.keys(part)
      .sort()
      .filter(key => !isEmptyTable(part[key]))
    return Object.fromEntries(sorted.map(key => [key, part[key]]))
  })
}

function isEmptyTable(value: unknown): boolean {
  return isRecord(value) && !(value instanceof Date) && Object.values(value).every(isEmptyTable)
}

// --- Texts -------------------------------------------------------------------------------------------------------------

const isSame = (a: TomlPath, b: TomlPath) => a.length === b.length && startsWith(a, b)
const startsWith = (path: TomlPath, start: TomlPath) => start.every((key, index) => path[index] === key)
const firstLine = (text: string) => text.split('\n')[0]!

function quoteKey(key: string): string {
  return /^[A-Za-z0-9_-]+$/.test(key) ? key : JSON.stringify(key)
}

function splice(text: string, [from, to]: readonly [number, number], by: string): string {
  return text.slice(0, from) + by + text.slice(to)
}

function lineStart(text: string, offset: number): number {
  return text.lastIndexOf('\n', offset - 1) + 1
}

function indentAt(text: string, offset: number): string {
  return /^[ \t]*/.exec(text.slice(lineStart(text, offset), offset))![0]
}

/** As the file's first line ends. */
function lineEnd(text: string): string {
  return /\r?\n/.exec(text)?.[0] ?? '\n'
}
