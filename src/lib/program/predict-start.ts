// What a start of an image reads, told from its files alone: what its command names, and what that needs in turn.

import {decodeByteText} from '../io/byte-text.ts'
import {compiler, isCompiler, isJava, java} from './companions.ts'
import {baseOf, type Language, type Launch, type LaunchHost} from './launch.ts'
import {isNode, node} from './node-modules.ts'
import {isPython, python} from './python.ts'
import {isShell, shell, shellText} from './shell.ts'
import {DEFAULT_PATH, programPaths, type StartFile, StartSearch} from './start-search.ts'

export interface PredictedStart {
  /** Entrypoint and arguments. */
  readonly words: readonly string[]
  /** `NAME=value`. */
  readonly env: readonly string[]
  /** Absolute. */
  readonly workingDirectory: string
}

/** A start reads no more of what can be known: files, and bytes of all together. */
const MAX_FILES = 20_000
const MAX_BYTES = 1 << 30
/** Commands that commands run. */
const MAX_COMMANDS = 256
const MAX_DEPTH = 8
/** Programs' texts that are read: longer ones are data, or generated; bytes of one, and of all. */
const MAX_TEXT = 4 << 20
const MAX_TEXTS = 256 << 20
/** What runtimes and C libraries look at, besides what programs name. */
const ACCOUNTS = ['/etc/passwd', '/etc/group']
const SETTINGS = ['/etc/nsswitch.conf', '/etc/host.conf', '/etc/localtime', '/etc/locale.alias']
/** Only a locale that is set is looked for; the first of these is C's own, the second all others of glibc. */
const LOCALES = ['/usr/lib/locale/C.utf8/LC_CTYPE', '/usr/lib/locale/locale-archive']

/** The files that a start reads, in the order in which one comes to them. `find` is asked for absolute paths. */
export async function predictStart<File extends StartFile>(
  find: (path: string) => Promise<File | undefined>,
  start: PredictedStart,
): Promise<readonly File[]> {
  const files: File[] = []
  const search = new StartSearch<File>({
    find,
    found: file => void files.push(file),
    isThorough: true,
    maxFiles: MAX_FILES,
    maxBytes: MAX_BYTES,
  })
  const variables = new Map(start.env.map(variable => splitVariable(variable)))
  for (const path of ACCOUNTS) await search.program([path])
  await new Commands(search, find, {...start, variables}).run(start.words)
  for (const path of SETTINGS) await search.program([path])
  const isLocal = ['LC_ALL', 'LC_CTYPE', 'LANG'].some(name => variables.get(name))
  for (const path of isLocal ? LOCALES : []) await search.program([path])
  return files
}

function splitVariable(variable: string): [string, string] {
  const at = variable.indexOf('=')
  return at < 0 ? [variable, ''] : [variable.slice(0, at), variable.slice(at + 1)]
}

interface Surroundings {
  readonly workingDirectory: string
  readonly variables: ReadonlyMap<string, string>
}

const LANGUAGES: readonly [(name: string) => boolean, Language][] = [
  [isShell, shell],
  [isPython, python],
  [isNode, node],
  [isJava, java],
  [isCompiler, compiler],
  [name => name === 'su' || name === 'runuser', asAnother],
]

/** Commands, one after the other, each once. */
class Commands<File extends StartFile> {
  readonly #search: StartSearch<File>
  readonly #find: (path: string) => Promise<File | undefined>
  readonly #around: Surroundings
  readonly #known = new Set<string>()
  #depth = 0
  #textBytes = 0

  constructor(
    search: StartSearch<File>,
    find: (path: string) => Promise<File | undefined>,
    around: Surroundings,
  ) {
    this.#search = search
    this.#find = find
    this.#around = around
  }

  async run(words: readonly string[]): Promise<void> {
    const key = JSON.stringify(words)
    if (this.#known.has(key) || this.#known.size >= MAX_COMMANDS || this.#depth >= MAX_DEPTH) return
    this.#known.add(key)
    this.#depth++
    try {
      await this.#run(words)
    } finally {
      this.#depth--
    }
  }

  async #run([name = '', ...words]: readonly string[]): Promise<void> {
    for (const asked of this.#pathsOf(name)) {
      const program = await this.#find(asked)
      if (!program) continue
      await this.#search.take(program)
      const script = await scriptLine(program)
      // `#!/usr/bin/env -S python3 -u` and the like; what is run is given the script's own path.
      if (script) return this.run([...script, asked, ...words])
      const launch = {asked, program, words, host: this.#host()}
      const names = [baseOf(asked), baseOf(program.path)]
      const [, language = wrapper] = LANGUAGES.find(([isKind]) => names.some(isKind)) ?? []
      return language(launch)
    }
  }

  async #text({size, read}: StartFile): Promise<string> {
    if (size > MAX_TEXT || this.#textBytes + size > MAX_TEXTS) return ''
    this.#textBytes += size
    return decodeByteText(await read(0, size))
  }

  #pathsOf(name: string): readonly string[] {
    if (name === '') return []
    return programPaths(name, this.#around.variables.get('PATH') || DEFAULT_PATH).map(path =>
      this.#from(path),
    )
  }

  #from(path: string): string {
    return path.startsWith('/') ? path : `${this.#around.workingDirectory}/${path}`
  }

  #host(): LaunchHost {
    return {
      workingDirectory: this.#around.workingDirectory,
      env: name => this.#around.variables.get(name) ?? '',
      find: path => this.#find(this.#from(path)),
      take: path => this.#search.program([this.#from(path)]),
      text: file => this.#text(file),
      run: words => this.run(words),
    }
  }
}

/** A program that is not known any better may run another that it is told of, and read files that it is told of. */
async function wrapper({words, host}: Launch): Promise<void> {
  for (const [index, word] of words.entries()) {
    if (word.startsWith('-') || word.includes('=')) continue
    if (word.includes('/') || word.includes('.')) await host.take(word)
    else await host.run(words.slice(index))
  }
}

/** `su USER -c COMMAND`. */
async function asAnother(launch: Launch): Promise<void> {
  const {words, host} = launch
  const at = words.indexOf('-c')
  if (at < 0) return wrapper(launch)
  await host.run(['/bin/sh'])
  await shellText(words[at + 1] ?? '', {host, words: []})
}

/** The words after `#!`, without an `env -S`. */
async function scriptLine(program: StartFile): Promise<readonly string[] | undefined> {
  const start = Buffer.from(await program.read(0, Math.min(program.size, 256))).toString('latin1')
  if (!start.startsWith('#!')) return undefined
  const words = (start.slice(2).split('\n')[0] ?? '').trim().split(/\s+/)
  return words[0] === undefined || words[0] === '' ? undefined : words.filter(word => word !== '-S')
}
