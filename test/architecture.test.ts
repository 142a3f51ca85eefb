// The arrows of ARCHITECTURE.md, checked on all of src: which room may import which, that no files import each other in a
// circle, and who may touch the outside world.

import {existsSync, readdirSync, readFileSync} from 'node:fs'
import {dirname, join, relative, resolve} from 'node:path'
import {describe, expect, it} from 'vitest'

const ROOT = resolve(import.meta.dirname, '..')
const SRC = join(ROOT, 'src')
const PAGE = readFileSync(join(ROOT, 'ARCHITECTURE.md'), 'utf8')

/** The table of layers in ARCHITECTURE.md, from the top down; each row's rooms, as the page names them. */
const LAYERS = tableRows('layer').map(([name, rooms]) => ({name: name!, rooms: codeWords(rooms!)}))
/** The page's table of rooms that stand on others of their own layer, with the reasons. */
const EXCEPTIONS = new Map(tableRows('room').map(([room, on]) => [codeWords(room!)[0]!, codeWords(on!)]))

interface SourceFile {
  readonly path: string
  readonly room: string
  readonly text: string
  /** Files of src that it imports; `typesOnly` when nothing of them is left at run time. */
  readonly imports: readonly {readonly path: string; readonly typesOnly: boolean}[]
}

const files = readdirSync(SRC, {recursive: true, encoding: 'utf8'})
  .filter(name => name.endsWith('.ts'))
  .map(name => readSource(join(SRC, name)))
const byPath = new Map(files.map(file => [file.path, file]))

function readSource(path: string): SourceFile {
  const text = readFileSync(path, 'utf8')
  const found = [...text.matchAll(/(?:^(import|export)\s+([^'"`]*?)from\s*|\bimport\s*\(?\s*)'(\.[^']+)'/gm)]
  const imports = found.map(([, , clause, specifier]) => ({
    path: relative(ROOT, join(dirname(path), specifier!)),
    typesOnly: clause !== undefined && namesTypesOnly(clause),
  }))
  return {path: relative(ROOT, path), room: roomOf(path), text, imports}
}

function namesTypesOnly(clause: string): boolean {
  if (clause.startsWith('type ')) return true
  const names = clause.replace(/[{}]/g, '').split(',')
  return names.every(name => name.trim() === '' || name.trim().startsWith('type '))
}

/** `lib/<folder>` is the room `<folder>`; outside of lib it is the first folder, or the file itself. */
function roomOf(path: string): string {
  const [first, second, ...rest] = relative(SRC, path).split('/')
  if (first === 'lib' && rest.length > 0) return second!
  return second === undefined ? first! : `src/${first}`
}

/** Rows of the page's table whose first column is headed `head`. */
function tableRows(head: string): string[][] {
  const lines = PAGE.split('\n')
  const start = lines.findIndex(line => line.startsWith(`| ${head} |`))
  expect(start, `ARCHITECTURE.md has a table headed "${head}"`).toBeGreaterThan(0)
  const end = lines.findIndex((line, index) => index > start && !line.startsWith('|'))
  return lines.slice(start + 2, end).map(line =>
    line
      .split('|')
      .slice(1, -1)
      .map(cell => cell.trim()),
  )
}

function codeWords(cell: string): string[] {
  return [...cell.matchAll(/`([^`]+)`/g)].map(match => match[1]!)
}

function layerOf(room: string): number {
  return LAYERS.findIndex(({rooms}) => rooms.includes(room))
}

describe('imports only point down', () => {
  for (const file of files) {
    it(`${file.path} stays in its layer`, () => {
      const own = layerOf(file.room)
      expect(own, `${file.room} has no place in ARCHITECTURE.md`).toBeGreaterThanOrEqual(0)
      const wrong = file.imports.filter(({path, typesOnly}) => {
        const to = roomOf(join(ROOT, path))
        const below = layerOf(to)
        if (to === file.room || below > own) return false
        // An adapter implements what an engine asks for, and an engine may speak of what an adapter gives.
        const names = [LAYERS[own]!.name, LAYERS[below]?.name].sort().join()
        if (typesOnly && names === 'adapters,engines') return false
        if (below === own && LAYERS[own]!.name !== 'adapters') return false
        return !(EXCEPTIONS.get(file.room) ?? []).includes(to)
      })
      expect(wrong.map(({path}) => path)).toEqual([])
    })
  }

  it('every room of the page exists, and every exception is used', () => {
    const rooms = new Set(files.map(({room}) => room))
    expect(LAYERS.flatMap(layer => layer.rooms).filter(room => !rooms.has(room))).toEqual([])
    const used = (from: string, to: string) =>
      files.some(
        ({room, imports}) => room === from && imports.some(({path}) => roomOf(join(ROOT, path)) === to),
      )
    const unused = [...EXCEPTIONS].flatMap(([from, targets]) =>
      targets.filter(to => !used(from, to)).map(to => `${from} -> ${to}`),
    )
    expect(unused).toEqual([])
  })
})

describe('no circles', () => {
  it('no files import each other in a circle, not even for types', () => {
    expect(
      circlesOf(new Map(files.map(({path, imports}) => [path, imports.map(({path: to}) => to)]))),
    ).toEqual([])
  })

  it('a circle would be found', () => {
    const arrows = new Map([
      ['a', ['b']],
      ['b', ['c', 'd']],
      ['c', ['a']],
      ['d', []],
    ])
    expect(circlesOf(arrows)).toEqual([['a', 'b', 'c']])
  })

  it('every import is of a file that is there', () => {
    const missing = files.flatMap(({path, imports}) =>
      imports
        .filter(({path: to}) => !byPath.has(to) && !existsSync(join(ROOT, to)))
        .map(({path: to}) => [path, to]),
    )
    expect(missing).toEqual([])
  })
})

/** The strongly connected components of more than one node (Tarjan), each in order of name. */
function circlesOf(arrows: ReadonlyMap<string, readonly string[]>): string[][] {
  const order = new Map<string, {index: number; low: number; onStack: boolean}>()
  const stack: string[] = []
  const circles: string[][] = []
  const visit = (node: string) => {
    const state = {index: order.size, low: order.size, onStack: true}
    order.set(node, state)
    stack.push(node)
    for (const next of arrows.get(node) ?? []) {
      if (!arrows.has(next)) continue
      const known = order.get(next)
      if (!known) state.low = Math.min(state.low, visit(next).low)
      else if (known.onStack) state.low = Math.min(state.low, known.index)
    }
    if (state.low === state.index) {
      const members = stack.splice(stack.indexOf(node))
      for (const member of members) order.get(member)!.onStack = false
      if (members.length > 1) circles.push(members.sort())
    }
    return state
  }
  for (const node of arrows.keys()) if (!order.has(node)) visit(node)
  return circles
}

describe('only the named rooms touch the outside world', () => {
  const libs = files.filter(file => file.path.startsWith('src/lib/') && !file.path.endsWith('_pb.ts'))
  const check = (rule: string, pattern: RegExp, rooms: readonly string[]) =>
    it(rule, () => {
      const offenders = libs.filter(file => pattern.test(file.text) && !rooms.includes(file.room))
      expect(offenders.map(file => file.path)).toEqual([])
    })

  check('only registry makes HTTP requests', /from 'undici'|\bfetch\(/, ['registry'])
  check('only clients of gRPC services know gRPC', /from '@grpc\/grpc-js'|from '@bufbuild\/protobuf/, [
    'containerd',
    'snapshotter-client',
  ])
  check('only entry points read the environment', /process\.env\b/, [])
  check('only entry points and the terminal print', /\bconsole\.|process\.(stdout|stderr)\.write/, [
    'terminal',
  ])

  it('formats do no I/O', () => {
    const pure = LAYERS.filter(({name}) => ['formats', 'words'].includes(name)).flatMap(({rooms}) => rooms)
    const impure = libs.filter(
      file =>
        pure.includes(file.room) &&
        /from 'node:(fs|net|http|https|child_process|os|worker_threads)/.test(file.text),
    )
    expect(impure.map(file => file.path)).toEqual([])
  })
})

describe('the journeys of ARCHITECTURE.md', () => {
  const journeys = [...PAGE.matchAll(/^### (A .*|An .*)\n\n((?:\d+\. .*\n(?: {3}.*\n)*)+)/gm)]

  it('has those of a read, a Prepare and an optimize, each in ten steps or fewer', () => {
    expect(journeys.map(([, title]) => title)).toEqual(['A Prepare', 'A read', 'An `optimize`'])
    for (const [, , steps] of journeys) expect(steps!.match(/^\d+\. /gm)!.length).toBeLessThanOrEqual(10)
  })

  it('names files and functions that are there', () => {
    const names = journeys.flatMap(([, , steps]) => [
      ...steps!.matchAll(/`([\w/.-]+\.(?:ts|c))`(?: \(`(\w+)`\))?/g),
    ])
    expect(names.length).toBeGreaterThan(15)
    for (const [, file, name] of names) {
      const path = file!.endsWith('.c') ? join(ROOT, file!) : join(SRC, file!)
      expect(existsSync(path), file).toBe(true)
      if (name) expect(readFileSync(path, 'utf8'), `${file} has ${name}`).toMatch(new RegExp(`\\b${name}\\b`))
    }
  })
})
