// What Python reads to start: its own modules, a program's, and those that they import in turn.

import {baseOf, directoryOf, type Language, type Launch} from './launch.ts'
import type {StartFile} from './start-search.ts'

export const isPython = (name: string) => /^python(\d+(\.\d+)?)?$/.test(name)

/** Every start imports these, Debian's `sitecustomize` with them. */
const FIRST = (
  'encodings encodings.aliases encodings.utf_8 codecs io abc site os stat _collections_abc posixpath genericpath _sitebuiltins' +
  ' sitecustomize'
).split(' ')
/** From 3.11 on, these are within the interpreter, and their files are not read. */
const FROZEN = new Set(
  'abc codecs io _collections_abc _sitebuiltins genericpath ntpath posixpath os site stat importlib.util importlib.machinery runpy zipimport'.split(
    ' ',
  ),
)
const FROZEN_SINCE = 11
/** Names that are looked for, whether there is such a module or not. */
const MAX_NAMES = 50_000
/** Characters of one import in parentheses. */
const MAX_STATEMENT = 16 << 10
/** Minor versions up to this are looked for where an interpreter's name has none. */
const NEWEST = 30
/** In the names of compiled modules. */
const MACHINES = [
  ...['x86_64', 'aarch64', 'i386', 'riscv64', 'powerpc64le', 's390x'].map(machine => `${machine}-linux-gnu`),
  ...['x86_64', 'aarch64'].map(machine => `${machine}-linux-musl`),
  'arm-linux-gnueabihf',
]

export const python: Language = async launch => {
  const imports = await openImports(launch)
  if (!imports) return
  const {host, words} = launch
  // Without another locale it takes this one (PEP 538).
  await host.take('/usr/lib/locale/C.utf8/LC_CTYPE')
  for (const name of FIRST) await imports.module(name)
  let at = 0
  for (; at < words.length; at++) {
    const word = words[at]!
    if (/^-\w*c$/.test(word)) return imports.text(words[at + 1] ?? '', '')
    if (/^-\w*m$/.test(word)) {
      for (const name of ['runpy', 'pkgutil', 'importlib']) await imports.module(name)
      const name = words[at + 1] ?? ''
      await imports.module(name)
      return imports.module(`${name}.__main__`)
    }
    if (word === '-W' || word === '-X') at++
    else if (!word.startsWith('-')) break
  }
  const script = words[at] === undefined ? undefined : await host.take(words[at]!)
  if (!script) return
  imports.path.unshift(directoryOf(script.path))
  await imports.text(await host.text(script), '')
}

async function openImports({asked, program, host}: Launch): Promise<Imports | undefined> {
  const prefix = directoryOf(directoryOf(program.path))
  const named = /^python(\d+)\.(\d+)$/.exec(baseOf(program.path))
  const versions = named
    ? [[Number(named[1]), Number(named[2])] as const]
    : Array.from({length: NEWEST}, (_, minor) => [3, minor] as const)
  for (const [major, minor] of versions) {
    const standard = `${prefix}/lib/python${major}.${minor}`
    if (!(await host.find(`${standard}/os.py`))) continue
    const environment = directoryOf(directoryOf(asked))
    const isVirtual = (await host.find(`${environment}/pyvenv.cfg`)) !== undefined
    const path = [
      ...host
        .env('PYTHONPATH')
        .split(':')
        .filter(directory => directory.startsWith('/')),
      standard,
      `${standard}/lib-dynload`,
      ...(isVirtual ? [`${environment}/lib/python${major}.${minor}/site-packages`] : []),
      `${standard}/site-packages`,
      `/usr/local/lib/python${major}.${minor}/dist-packages`,
      '/usr/lib/python3/dist-packages',
    ]
    return new Imports(host, path, {major, minor})
  }
  return undefined
}

class Imports {
  /** Where modules are looked for; the program's own directory comes first. */
  readonly path: string[]
  readonly #host: Launch['host']
  readonly #tag: string
  readonly #frozen: ReadonlySet<string>
  readonly #known = new Set<string>()
  readonly #asked = new Set<string>()

  constructor(host: Launch['host'], path: string[], {major, minor}: {major: number; minor: number}) {
    this.#host = host
    this.path = path
    this.#tag = `cpython-${major}${minor}`
    this.#frozen = minor >= FROZEN_SINCE ? FROZEN : new Set()
  }

  /** Takes a module, the packages that it is in, and what all of them import. */
  async module(name: string): Promise<void> {
    if (!/^[\w.]+$/.test(name) || this.#asked.has(name) || this.#asked.size >= MAX_NAMES) return
    this.#asked.add(name)
    const parts = name.split('.')
    let places: readonly string[] = this.path
    for (const [index, part] of parts.entries()) {
      const own = parts.slice(0, index + 1).join('.')
      if (this.#frozen.has(own)) return
      const found = await this.#find(places, part)
      // A directory without `__init__.py` may be one all the same.
      places = found?.inside ? [found.inside] : places.map(place => `${place}/${part}`)
      if (!found || this.#known.has(own)) continue
      this.#known.add(own)
      await this.#take(found.file, own, found.inside !== undefined)
    }
  }

  /** Takes what a program's text imports, which belongs to a package or to none (''). */
  async text(text: string, packageName: string): Promise<void> {
    for (const name of importsOf(text, packageName)) await this.module(name)
  }

  async #find(places: readonly string[], part: string) {
    for (const place of places) {
      const init = await this.#host.find(`${place}/${part}/__init__.py`)
      if (init) return {file: init, inside: `${place}/${part}`}
      for (const suffix of this.#suffixes()) {
        const file = await this.#host.find(`${place}/${part}${suffix}`)
        if (file) return {file, inside: undefined}
      }
    }
    return undefined
  }

  /** Of modules in the order in which they are tried. */
  #suffixes(): readonly string[] {
    return [...MACHINES.map(machine => `.${this.#tag}-${machine}.so`), '.abi3.so', '.so', '.py']
  }

  /** Of a module that was compiled before, that is what is read. */
  async #take(file: StartFile, name: string, isPackage: boolean): Promise<void> {
    if (!file.path.endsWith('.py')) {
      await this.#host.take(file.path)
      return
    }
    const stem = baseOf(file.path).slice(0, -'.py'.length)
    const compiled = `${directoryOf(file.path)}/__pycache__/${stem}.${this.#tag}.pyc`
    if (!(await this.#host.take(compiled))) await this.#host.take(file.path)
    await this.text(await this.#host.text(file), isPackage ? name : name.split('.').slice(0, -1).join('.'))
  }
}

/**
 * Modules that a text imports while it is being read, not those of its functions. Of `from a import b` both `a` and `a.b`
 * are among them, since `b` may be one. `packageName` is what relative ones start from.
 */
export function importsOf(text: string, packageName: string): readonly string[] {
  const names = new Set<string>()
  /** Indentation of a function's first line, while in it. */
  let functionIndent: number | undefined
  const plain = text.replace(/("""|''')[\s\S]*?\1/g, '""').replace(/\\\n/g, ' ')
  for (const match of plain.matchAll(/^([ \t]*)([^\s#].*)$/gm)) {
    const [, spaces = '', statement = ''] = match
    const indent = spaces.length
    if (functionIndent !== undefined && indent > functionIndent) continue
    functionIndent = /^(async\s+)?def\s|^if\s+(typing\.)?TYPE_CHECKING\b/.test(statement) ? indent : undefined
    for (const part of statement.replace(/[ \t]+/g, ' ').split(';')) {
      const plainImport = /^ ?import (.+)$/.exec(part)
      for (const name of plainImport ? listed(plainImport[1]!) : []) names.add(name)
      const from = /^ ?from (\.*)([A-Za-z_][\w.]*)? ?import\b/.exec(part)
      if (!from) continue
      const base = absolute(from[1]!.length, from[2] ?? '', packageName)
      if (base === '') continue
      names.add(base)
      for (const name of listed(afterImport(plain.slice(match.index, match.index + MAX_STATEMENT), part)))
        names.add(`${base}.${name}`)
    }
  }
  return [...names]
}

/** What follows `import`, over several lines where it is in parentheses. */
function afterImport(text: string, part: string): string {
  const own = part.replace(/^.*?\bimport\b/, '')
  if (!own.includes('(') || own.includes(')')) return own
  const open = text.indexOf('(')
  return text.slice(open, text.indexOf(')', open)).replace(/#.*$/gm, '')
}

function listed(names: string): string[] {
  return names
    .replace(/[()]/g, '')
    .replace(/#.*$/, '')
    .split(',')
    .map(name => name.trim().split(/\s/, 1)[0]!)
    .filter(name => /^[\w.]+$/.test(name))
}

function absolute(dots: number, name: string, packageName: string): string {
  if (dots === 0) return name
  const parts = packageName.split('.')
  const base = parts.slice(0, parts.length - (dots - 1))
  return [...base, ...(name === '' ? [] : [name])].filter(part => part !== '').join('.')
}
