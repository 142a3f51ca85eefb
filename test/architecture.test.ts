// The arrows of ARCHITECTURE.md, checked: which folder may import which, and who may touch the outside world.

import {readdirSync, readFileSync} from 'node:fs'
import {dirname, join, relative, resolve} from 'node:path'
import {describe, expect, it} from 'vitest'

const ROOT = resolve(import.meta.dirname, '..')
const SRC = join(ROOT, 'src')

const BASE = ['errors', 'io']
const WORDS = ['oci', 'vfs']
const FORMATS = ['tar', 'compression', 'estargz', 'zstdchunked', 'erofs', 'record']
const ADAPTERS = [
  'registry',
  'kubernetes',
  'registry-server',
  'layout',
  'archive',
  'containerd',
  'runc',
  'rootfs',
  'tracer',
  'fuse',
  'mount',
  'cache',
  'native',
  'state',
  'snapshotter-client',
]
const USE_CASES = ['convert', 'profile', 'layer', 'snapshot', 'transport']

/** Adapters that stand on another one, each with its reason. */
const ADAPTER_EXCEPTIONS: Readonly<Record<string, readonly string[]>> = {
  // Both mount through the addon's system calls.
  mount: ['native'],
  // What a lazy device has is told by the layer cache's bitmaps, which workers read.
  fuse: ['native', 'mount'],
  tracer: ['native'],
  // An image root file system is extracted or mounted.
  rootfs: ['mount', 'native'],
  // An archive is a layout in a tar, and imports unpack into one.
  archive: ['layout'],
  // HTTP, credentials and their formats are the registry's; a cluster only keeps some of them.
  kubernetes: ['registry'],
  // gRPC over a unix socket is gRPC over a unix socket.
  'snapshotter-client': ['containerd'],
}

interface SourceFile {
  readonly path: string
  /** `lib/<folder>`, `commands`, `daemons`, `cli` or `.`. */
  readonly room: string
  readonly text: string
  /** Rooms imported from inside the project, with the line's text. */
  readonly imports: readonly {readonly room: string; readonly specifier: string}[]
}

const files = readdirSync(SRC, {recursive: true, encoding: 'utf8'})
  .filter(name => name.endsWith('.ts') && !name.endsWith('_pb.ts'))
  .map(name => readSource(join(SRC, name)))

function readSource(path: string): SourceFile {
  const text = readFileSync(path, 'utf8')
  const specifiers = [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(match => match[1]!)
  const imports = specifiers
    .filter(specifier => specifier.startsWith('.'))
    .map(specifier => ({specifier, room: roomOf(join(dirname(path), specifier))}))
  return {path: relative(ROOT, path), room: roomOf(path), text, imports}
}

function roomOf(path: string): string {
  const parts = relative(SRC, path).split('/')
  return parts[0] === 'lib' && parts.length > 2 ? `lib/${parts[1]}` : parts.length > 1 ? parts[0]! : '.'
}

function allowedFor(folder: string): readonly string[] {
  if (BASE.includes(folder)) return [...BASE, 'oci']
  if (WORDS.includes(folder)) return [...BASE, ...WORDS]
  if (FORMATS.includes(folder)) return [...BASE, ...WORDS, ...FORMATS]
  const below = [...BASE, ...WORDS, ...FORMATS]
  if (ADAPTERS.includes(folder)) return [...below, folder, ...(ADAPTER_EXCEPTIONS[folder] ?? [])]
  return [...below, ...USE_CASES]
}

/** Use cases take adapters as arguments, and adapters implement their ports: each may name the other's types. */
function mayNameTypesOf(from: string, to: string): boolean {
  return (
    (USE_CASES.includes(from) && ADAPTERS.includes(to)) || (ADAPTERS.includes(from) && USE_CASES.includes(to))
  )
}

function importsTypesOnly(text: string, specifier: string): boolean {
  const escaped = specifier.replace(/[.*+?^${}()|[\]\\/]/g, '\\$&')
  const statements = [...text.matchAll(new RegExp(`import\\s+([^']*?)from\\s*'${escaped}'`, 'g'))]
  return (
    statements.length > 0 &&
    statements.every(([, clause]) => {
      if (clause!.trimStart().startsWith('type ')) return true
      const names = clause!.replace(/[{}]/g, '').split(',')
      return names.every(name => name.trim() === '' || name.trim().startsWith('type '))
    })
  )
}

describe('imports only point down', () => {
  const known = [...BASE, ...WORDS, ...FORMATS, ...ADAPTERS, ...USE_CASES]
  for (const file of files.filter(candidate => candidate.room.startsWith('lib/'))) {
    const folder = file.room.slice('lib/'.length)
    it(`${file.path} stays in its layer`, () => {
      expect(known, `src/lib/${folder} has no place in the architecture`).toContain(folder)
      const wrong = file.imports.filter(({room, specifier}) => {
        const to = room.startsWith('lib/') ? room.slice('lib/'.length) : undefined
        if (to === undefined) return true
        if (to === folder || allowedFor(folder).includes(to)) return false
        return !(mayNameTypesOf(folder, to) && importsTypesOnly(file.text, specifier))
      })
      expect(wrong.map(({specifier}) => specifier)).toEqual([])
    })
  }
})

describe('only the named rooms touch the outside world', () => {
  const libs = files.filter(file => file.room.startsWith('lib/'))
  const check = (rule: string, pattern: RegExp, rooms: readonly string[]) =>
    it(rule, () => {
      const offenders = libs.filter(file => pattern.test(file.text) && !rooms.includes(file.room.slice(4)))
      expect(offenders.map(file => file.path)).toEqual([])
    })

  check('only registry makes HTTP requests', /from 'undici'|\bfetch\(/, ['registry'])
  check('only clients of gRPC services know gRPC', /from '@grpc\/grpc-js'|from '@bufbuild\/protobuf/, [
    'containerd',
    'snapshotter-client',
  ])
  check('only entry points read the environment', /process\.env\b/, [])
  check('only entry points print', /\bconsole\.|process\.(stdout|stderr)\.write/, [])

  it('formats do no I/O', () => {
    const pure = libs.filter(file => [...FORMATS, ...WORDS].includes(file.room.slice('lib/'.length)))
    const impure = pure.filter(file =>
      /from 'node:(fs|net|http|https|child_process|os|worker_threads)/.test(file.text),
    )
    expect(impure.map(file => file.path)).toEqual([])
  })
})
