// What a container of an image is about to read, as far as it can be known before: the program that the image names, what the
// kernel and the loader read with it, and what everybody reads. It is fetched while the container is being made.

import {open} from 'node:fs/promises'
import {ErofsReader} from '../erofs/image-reader.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {StartCommand} from '../oci/start-command.ts'
import {type ImageFile, ImageFiles} from '../program/image-files.ts'
import {LIBRARY_CACHE, programPaths, type StartFile, StartSearch} from '../program/start-search.ts'

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
const EVERYBODYS = ['/etc/passwd', '/etc/group', LIBRARY_CACHE, '/etc/nsswitch.conf', '/bin/sh']

const MAX_WORDS = 16
const MAX_FILES = 256
/** Uncompressed bytes of all files together. */
const MAX_BYTES = 64 << 20

/** Fetches the files, those that name others first. */
export async function fetchStartFiles({layers, command, signal}: StartFilesOptions): Promise<void> {
  await using trees = await openTrees(layers, signal)
  const search = new StartSearch<LayerFile>({
    find: async path => {
      const file = await trees.files.find(path)
      if (!file) return undefined
      const {layer, offset} = file
      const read = (at: number, length: number) => layer.device.read(offset + at, length, {signal})
      return {...file, read}
    },
    found: ({layer, offset, size}) => layer.device.bring(offset, size, {signal}),
    isThorough: false,
    maxFiles: MAX_FILES,
    maxBytes: MAX_BYTES,
  })
  await Promise.all([
    ...EVERYBODYS.map(path => search.program([path])),
    ...candidates(command).map(paths => search.program(paths)),
  ])
}

interface LayerFile extends ImageFile<StartLayer>, StartFile {}

/** Every word that could name a file: the program, a script that it runs, or a program within a shell's command. */
function candidates({words, path}: StartCommand): string[][] {
  const parts = words
    .flatMap(word => word.split(/[\s;&|()'"]+/))
    .filter(word => /^[\w@%+=:,./-]+$/.test(word))
  return [...new Set(parts)]
    .filter(word => !word.startsWith('-'))
    .slice(0, MAX_WORDS)
    .map(word => [...programPaths(word, path || undefined)])
}

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
