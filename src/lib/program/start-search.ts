// What the kernel and the dynamic loader read to start programs: they, their interpreters, their libraries, and what those
// need in turn.

import {MAX_LIBRARY_CACHE, parseLibraryCache} from './library-cache.ts'
import {type Machine, type ProgramNeeds, programNeeds, type ReadAt} from './program-needs.ts'

/** A regular file of an image. */
export interface StartFile {
  /** Absolute, without symbolic links. */
  readonly path: string
  readonly size: number
  readonly read: ReadAt
}

export interface StartSearchOptions<File extends StartFile> {
  /** The file that an absolute path leads to. */
  readonly find: (path: string) => Promise<File | undefined>
  /** Hears of each file once, before it is read, and thus of those first that name others. */
  readonly found: (file: File) => Promise<void> | void
  /**
   * Whether all of the image is at hand: then one file is looked into after the other, so that their order is always the
   * same, and libraries are looked for exactly as the loader does, whose cache is read before them.
   */
  readonly isThorough: boolean
  /** Files beyond these are not taken; bytes are of all files together. */
  readonly maxFiles: number
  readonly maxBytes: number
}

export const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
export const LIBRARY_CACHE = '/etc/ld.so.cache'
/** Where loaders look (ld.so(8)), after the multiarch directory. */
const LIBRARY_PATH = ['/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib']

/** What has been found, so that nothing is taken twice, however many ask for it. */
export class StartSearch<File extends StartFile> {
  readonly #options: StartSearchOptions<File>
  readonly #known = new Set<string>()
  readonly #libraries = new Set<string>()
  #bytes = 0
  #cache: Promise<ReadonlyMap<string, readonly string[]>> | undefined

  constructor(options: StartSearchOptions<File>) {
    this.#options = options
  }

  /** Takes the first of `paths` that there is, and what it needs. */
  async program(paths: readonly string[]): Promise<File | undefined> {
    const file = await this.#first(paths)
    if (file) await this.take(file)
    return file
  }

  /** Takes a file, and what it needs. */
  async take(file: File): Promise<void> {
    const {found, maxFiles, maxBytes} = this.#options
    const {path, size} = file
    if (this.#known.has(path) || this.#known.size >= maxFiles || this.#bytes + size > maxBytes) return
    this.#known.add(path)
    this.#bytes += size
    await found(file)
    const needs = await programNeeds(file.read, size)
    await this.#all([
      ...needs.interpreters.map(name => () => this.program(programPaths(name))),
      ...needs.libraries.map(name => () => this.#library(name, path, needs)),
    ])
  }

  async #library(name: string, by: string, needs: ProgramNeeds): Promise<void> {
    // Programs for other machines have other libraries of the same name.
    const key = `${needs.machine?.number} ${needs.machine?.bits} ${name}`
    if (this.#libraries.has(key)) return
    this.#libraries.add(key)
    for await (const path of this.#libraryPaths(name, by, needs)) {
      const file = await this.#first([path])
      if (file && (!this.#options.isThorough || (await isFor(file, needs.machine)))) return this.take(file)
    }
  }

  async *#libraryPaths(
    name: string,
    by: string,
    {machine, searchPath}: ProgramNeeds,
  ): AsyncGenerator<string> {
    if (name.includes('/')) return yield name
    const triple = MULTIARCH[machine?.number ?? -1]
    const beside = by.slice(0, by.lastIndexOf('/'))
    const expand = (directory: string) =>
      directory
        .replace(/\$(ORIGIN|\{ORIGIN\})/g, beside)
        .replace(/\$(LIB|\{LIB\})/g, triple ? `lib/${triple}` : 'lib')
    const multiarch = triple ? [`/usr/lib/${triple}`, `/lib/${triple}`] : []
    for (const directory of searchPath) yield `${expand(directory)}/${name}`
    const {isThorough} = this.#options
    if (isThorough) yield* await this.#cached(name)
    for (const directory of [...multiarch, ...(isThorough ? [] : [beside]), ...LIBRARY_PATH]) {
      yield `${directory}/${name}`
    }
    if (!isThorough) yield* await this.#cached(name)
  }

  async #cached(name: string): Promise<readonly string[]> {
    this.#cache ??= this.#readCache()
    return (await this.#cache).get(name) ?? []
  }

  async #readCache(): Promise<ReadonlyMap<string, readonly string[]>> {
    const file = await this.#first([LIBRARY_CACHE])
    if (!file || file.size > MAX_LIBRARY_CACHE) return new Map()
    await this.take(file)
    return parseLibraryCache(await file.read(0, file.size))
  }

  async #first(paths: readonly string[]): Promise<File | undefined> {
    for (const path of paths) {
      const file = path.startsWith('/') ? await this.#options.find(path) : undefined
      if (file) return file
    }
    return undefined
  }

  async #all(tasks: readonly (() => Promise<unknown>)[]): Promise<void> {
    if (!this.#options.isThorough) await Promise.all(tasks.map(task => task()))
    else for (const task of tasks) await task()
  }
}

/** Where a program may be that is called by this name. */
export function programPaths(name: string, path = DEFAULT_PATH): readonly string[] {
  if (name.includes('/')) return [name]
  const directories = path.split(':').filter(directory => directory.startsWith('/'))
  return directories.map(directory => `${directory}/${name}`)
}

async function isFor(file: StartFile, machine: Machine | undefined): Promise<boolean> {
  const own = (await programNeeds(file.read, file.size)).machine
  return own?.number === machine?.number && own?.bits === machine?.bits
}

/** Debian's directories of libraries, by elf(5)'s e_machine. */
const MULTIARCH: Readonly<Record<number, string>> = {
  3: 'i386-linux-gnu',
  8: 'mips64el-linux-gnuabi64',
  21: 'powerpc64le-linux-gnu',
  22: 's390x-linux-gnu',
  40: 'arm-linux-gnueabihf',
  62: 'x86_64-linux-gnu',
  183: 'aarch64-linux-gnu',
  243: 'riscv64-linux-gnu',
  258: 'loongarch64-linux-gnu',
}
