// What Node.js reads of a program: its modules, and those that they require or import in turn.

import {isBuiltin} from 'node:module'
import {directoryOf, type Language, type LaunchHost} from './launch.ts'
import type {StartFile} from './start-search.ts'

export const isNode = (name: string) => name === 'node' || name === 'nodejs'

/** Where Debian's Node.js looks for modules at last. */
const GLOBAL = ['/usr/share/nodejs', '/usr/lib/nodejs']
const SUFFIXES = ['', '.js', '.json', '.node', '.cjs', '.mjs']
/** Names that are looked for, whether there is such a module or not. */
const MAX_NAMES = 50_000
/** Options that have a value in the next word. */
const WITH_VALUE = new Set(['-r', '--require', '--import', '--loader', '--experimental-loader', '-C'])

export const node: Language = async ({words, host}) => {
  const modules = new Modules(host)
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!
    if (word === '-e' || word === '--eval' || word === '-p') {
      return modules.text(words[at + 1] ?? '', host.workingDirectory)
    }
    if (WITH_VALUE.has(word)) await modules.required(words[++at] ?? '', host.workingDirectory)
    else if (!word.startsWith('-')) {
      const path = word.startsWith('/') ? word : `${host.workingDirectory}/${word}`
      return modules.required(path, host.workingDirectory)
    }
  }
}

class Modules {
  readonly #host: LaunchHost
  readonly #known = new Set<string>()
  #names = 0

  constructor(host: LaunchHost) {
    this.#host = host
  }

  /** Takes what a module of this name is, as one in `directory` has it, and what that requires. */
  async required(name: string, directory: string): Promise<void> {
    if (isBuiltin(name) || ++this.#names > MAX_NAMES) return
    const file = await this.#resolve(name, directory)
    if (!file || this.#known.has(file.path)) return
    this.#known.add(file.path)
    await this.#host.take(file.path)
    await this.#packageOf(file)
    if (!/\.(json|node)$/.test(file.path))
      await this.text(await this.#host.text(file), directoryOf(file.path))
  }

  async text(text: string, directory: string): Promise<void> {
    for (const name of requiresOf(text)) await this.required(name, directory)
  }

  /** The nearest package.json says whether a file is a module of the older or the newer kind. */
  async #packageOf({path}: StartFile): Promise<void> {
    for (let at = directoryOf(path); ; at = directoryOf(at)) {
      if ((await this.#host.take(`${at}/package.json`)) || at === '/' || at.endsWith('/node_modules')) return
    }
  }

  async #resolve(name: string, directory: string): Promise<StartFile | undefined> {
    if (/^(\.\.?)?(\/|$)/.test(name)) {
      return this.#fileOrDirectory(name.startsWith('/') ? name : `${directory}/${name}`)
    }
    for (const root of this.#roots(directory)) {
      const found = (await this.#exported(root, name)) ?? (await this.#fileOrDirectory(`${root}/${name}`))
      if (found) return found
    }
    return undefined
  }

  #roots(directory: string): readonly string[] {
    const roots: string[] = []
    for (let at = directory; ; at = directoryOf(at)) {
      if (!at.endsWith('/node_modules')) roots.push(`${at === '/' ? '' : at}/node_modules`)
      if (at === '/') break
    }
    const own = this.#host
      .env('NODE_PATH')
      .split(':')
      .filter(path => path.startsWith('/'))
    return [...roots, ...own, ...GLOBAL]
  }

  async #fileOrDirectory(path: string): Promise<StartFile | undefined> {
    const file = await this.#file(path)
    if (file) return file
    const {main} = await this.#packageIn(path)
    const entry = typeof main === 'string' ? `${path}/${main}` : undefined
    return (
      (entry && ((await this.#file(entry)) ?? (await this.#file(`${entry}/index`)))) ||
      this.#file(`${path}/index`)
    )
  }

  /** What a package says that a name within it stands for. */
  async #exported(root: string, name: string): Promise<StartFile | undefined> {
    const own = /^(@[^/]+\/)?[^/]+/.exec(name)?.[0] ?? name
    const {exports} = await this.#packageIn(`${root}/${own}`)
    if (exports === undefined) return undefined
    const within = `.${name.slice(own.length)}`
    const isMap = typeof exports === 'object' && exports !== null && Object.keys(exports)[0]?.startsWith('.')
    const chosen = isMap ? (exports as Record<string, unknown>)[within] : within === '.' ? exports : undefined
    const target = conditionOf(chosen)
    return target === undefined ? undefined : this.#host.find(`${root}/${own}/${target}`)
  }

  async #packageIn(directory: string): Promise<Readonly<Record<string, unknown>>> {
    const file = await this.#host.find(`${directory}/package.json`)
    try {
      const value: unknown = file && JSON.parse(await this.#host.text(file))
      return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {}
    } catch {
      return {}
    }
  }

  async #file(path: string): Promise<StartFile | undefined> {
    for (const suffix of SUFFIXES) {
      const file = await this.#host.find(`${path}${suffix}`)
      if (file) return file
    }
    return undefined
  }
}

/** The file that Node.js takes of `exports`, whether a module is required or imported. */
function conditionOf(value: unknown, depth = 0): string | undefined {
  if (typeof value === 'string') return value
  if (typeof value !== 'object' || value === null || depth > 8) return undefined
  for (const condition of ['node', 'require', 'import', 'default', 'module-sync']) {
    const found = conditionOf((value as Record<string, unknown>)[condition], depth + 1)
    if (found !== undefined) return found
  }
  return undefined
}

/** Names that a text requires or imports, in order. */
export function requiresOf(text: string): readonly string[] {
  const found = text.matchAll(
    /\brequire\(\s*(['"])([^'"\n]+)\1\s*\)|^[ \t]*(?:import|export)\b[^'"\n;]*?(?:\bfrom\s*)?(['"])([^'"\n]+)\3|^[^'"\n]*\}\s*from\s*(['"])([^'"\n]+)\5/gm,
  )
  return [...new Set([...found].map(match => (match[2] ?? match[4] ?? match[6])!))]
}
