// What a container of an image is about to read, as far as it can be known before: the program that the image names, what the
// kernel and the loader read with it, and what everybody reads. It is fetched while the container is being made.

import {open} from 'node:fs/promises'
import {ErofsReader} from '../erofs/image-reader.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {StartCommand} from '../oci/start-command.ts'
import {type ImageFile, ImageFiles} from './image-files.ts'
import {programNeeds} from './program-needs.ts'

/** A layer of the image, as `SharedLayer`. */
export interface StartLayer {
  /** The path of its EROFS image. */
  image(options?: CallOptions): Promise<string>
  readonly device: {
    /** Fetches what is missing of a range, as far as this keeps no reader waiting. */
    bring(offset: number, length: number, options: CallOptions): Promise<void>
    read(offset: number, length: number, call: {readonly signal: AbortSignal}): Promise<Uint8Array>
  }
}

export interface StartFilesOptions {
  /** Top first. */
  readonly layers: readonly StartLayer[]
  readonly command: StartCommand
  readonly signal: AbortSignal
}

/** What a runtime, C libraries and shells look at, in whatever container. */
const EVERYBODYS = ['/etc/passwd', '/etc/group', '/etc/ld.so.cache', '/etc/nsswitch.conf', '/bin/sh']
const DEFAULT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
/** Where loaders look (ld.so(8)), with the multiarch directory that the library that asks is in before them. */
const LIBRARY_PATH = ['/lib64', '/usr/lib64', '/lib', '/usr/lib', '/usr/local/lib']

const MAX_WORDS = 16
const MAX_FILES = 256
/** Uncompressed bytes of all files together. */
const MAX_BYTES = 64 << 20

/** Fetches the files, those that name others first. */
export async function fetchStartFiles({layers, command, signal}: StartFilesOptions): Promise<void> {
  await using trees = await openTrees(layers, signal)
  const search = new StartSearch(trees.files, signal)
  await Promise.all([
    ...EVERYBODYS.map(path => search.program([path])),
    ...candidates(command).map(paths => search.program(paths)),
  ])
}

/** Every word that could name a file: the program, a script that it runs, or a program within a shell's command. */
function candidates({words, path}: StartCommand): string[][] {
  const directories = (path || DEFAULT_PATH).split(':').filter(directory => directory.startsWith('/'))
  const parts = words
    .flatMap(word => word.split(/[\s;&|()'"]+/))
    .filter(word => /^[\w@%+=:,./-]+$/.test(word))
  return [...new Set(parts)]
    .filter(word => !word.startsWith('-'))
    .slice(0, MAX_WORDS)
    .map(word => (word.includes('/') ? [word] : directories.map(directory => `${directory}/${word}`)))
}

/** What has been found, so that nothing is fetched twice, however many ask for it. */
class StartSearch {
  readonly #files: ImageFiles<StartLayer>
  readonly #signal: AbortSignal
  readonly #known = new Set<string>()
  readonly #libraries = new Map<string, Promise<void>>()
  #bytes = 0

  constructor(files: ImageFiles<StartLayer>, signal: AbortSignal) {
    this.#files = files
    this.#signal = signal
  }

  /** Fetches the first of `paths` that there is, and what it needs. */
  async program(paths: readonly string[]): Promise<void> {
    for (const path of paths) {
      if (!path.startsWith('/')) continue
      const file = await this.#files.find(path)
      if (file) return await this.#bring(file)
    }
  }

  async #bring(file: ImageFile<StartLayer>): Promise<void> {
    const {layer, offset, size, path} = file
    if (this.#known.has(path) || this.#known.size >= MAX_FILES || this.#bytes + size > MAX_BYTES) return
    this.#known.add(path)
    this.#bytes += size
    await layer.device.bring(offset, size, {signal: this.#signal})
    const read = (at: number, length: number) =>
      layer.device.read(offset + at, length, {signal: this.#signal})
    const {interpreters, libraries} = await programNeeds(read, size)
    await Promise.all([
      ...interpreters.map(name =>
        this.program(name.includes('/') ? [name] : DEFAULT_PATH.split(':').map(at => `${at}/${name}`)),
      ),
      ...libraries.map(name => this.#library(name, path)),
    ])
  }

  #library(name: string, by: string): Promise<void> {
    const known = this.#libraries.get(name)
    if (known) return Promise.resolve()
    const beside = by.slice(0, by.lastIndexOf('/'))
    const directories = [...MULTIARCH.map(triple => `/usr/lib/${triple}`), beside, ...LIBRARY_PATH]
    const paths = name.includes('/') ? [name] : directories.map(directory => `${directory}/${name}`)
    const search = this.program(paths)
    this.#libraries.set(name, search)
    return search
  }
}

/** Debian's directories of libraries, where this machine's programs find theirs. */
const MULTIARCH: readonly string[] = [
  (
    {x64: 'x86_64-linux-gnu', arm64: 'aarch64-linux-gnu', riscv64: 'riscv64-linux-gnu'} as Record<
      string,
      string
    >
  )[process.arch] ?? '',
].filter(triple => triple !== '')

interface OpenTrees extends AsyncDisposable {
  readonly files: ImageFiles<StartLayer>
}

async function openTrees(layers: readonly StartLayer[], signal: AbortSignal): Promise<OpenTrees> {
  const stack = new AsyncDisposableStack()
  try {
    const trees = await Promise.all(
      layers.map(async layer => {
        const file = await open(await layer.image({signal}))
        stack.use(file)
        const read = async (offset: number, length: number) => {
          const {bytesRead, buffer} = await file.read(Buffer.allocUnsafe(length), 0, length, offset)
          return buffer.subarray(0, bytesRead)
        }
        return {layer, tree: await ErofsReader.open(read)}
      }),
    )
    return {files: new ImageFiles(trees), [Symbol.asyncDispose]: () => stack.disposeAsync()}
  } catch (error) {
    await stack.disposeAsync()
    throw error
  }
}
