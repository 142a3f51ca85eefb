// A lazy device of known contents, whose fetches the test decides about, served at a mount that ends with the test.

import {createHash} from 'node:crypto'
import {closeSync, openSync, readFileSync, truncateSync, writeFileSync, writeSync} from 'node:fs'
import {join} from 'node:path'
import {onTestFinished} from 'vitest'
import type {FuseLog} from '../../src/lib/fuse/fuse-log.ts'
import {
  type DataFileSystem,
  type DataFileSystemOptions,
  openDataFileSystem,
} from '../../src/lib/fuse-data/data-files.ts'
import {type ChunkBitmap, createChunkBitmap} from '../../src/lib/io/chunk-bitmap.ts'
import type {LazyDevice} from '../../src/lib/layer/ports.ts'
import {temporaryDirectory} from '../support/temporary.ts'

export const BLOCK = 4096
/** The name of the one file that daemon-process.ts serves. */
export const DAEMON_FILE = 'da-e0'

/** `size` bytes that differ everywhere, the same for the same seed. */
export function noise(size: number, seed = 'seed'): Buffer {
  return createHash('shake256', {outputLength: size}).update(seed).digest()
}

export interface LazyFile extends LazyDevice {
  readonly content: Buffer
  readonly bitmap: ChunkBitmap
  /** Every range that was asked for, in order. */
  readonly fetched: {readonly offset: number; readonly length: number}[]
  /** Puts a range into the sparse file, and says so. */
  store(offset: number, length: number): void
  /** What happens before a fetch stores and returns its bytes. */
  onFetch: (offset: number, length: number, signal: AbortSignal) => Promise<void>
}

/** A device of `content` whose sparse file is in `directory`, and has nothing yet. */
export function createLazyFile(directory: string, content: Buffer, name = 'ab12-cd'): LazyFile {
  const path = join(directory, `${name}.data`)
  writeFileSync(path, '')
  truncateSync(path, content.length)
  const bitmap = createChunkBitmap(content.length / BLOCK)
  const file: LazyFile = {
    name,
    size: content.length,
    path,
    present: bitmap.buffer,
    content,
    bitmap,
    fetched: [],
    store: (offset, length) => {
      const fd = openSync(path, 'r+')
      writeSync(fd, content, offset, length, offset)
      closeSync(fd)
      for (let block = offset / BLOCK; block < (offset + length) / BLOCK; block++) bitmap.add(block)
    },
    onFetch: async () => {},
    read: async (offset, length, {signal}) => {
      file.fetched.push({offset, length})
      await file.onFetch(offset, length, signal)
      // Not with the thread pool, in which the test's own reads wait.
      file.store(offset, length)
      return content.subarray(offset, offset + length)
    },
  }
  return file
}

export interface ServedFiles {
  readonly directory: string
  readonly mountpoint: string
  readonly files: DataFileSystem
  /** What the log was told, as `level message error`. */
  readonly said: string[]
}

/** A data file system below a directory of the test, unmounted at its end at the latest. */
export async function serveDataFiles(options: Partial<DataFileSystemOptions> = {}): Promise<ServedFiles> {
  const directory = await temporaryDirectory()
  const mountpoint = join(directory, 'mnt')
  const {log, said} = listeningLog()
  const files = await openDataFileSystem({mountpoint, workers: 2, log, ...options})
  let closed = false
  const close = async (how: 'leave' | 'unmount') => {
    if (closed) return
    closed = true
    await files.close(how)
  }
  onTestFinished(() => close('unmount'))
  return {directory, mountpoint, files: {...files, close}, said}
}

export function listeningLog(): {log: FuseLog; said: string[]} {
  const said: string[] = []
  const tell = (level: string) => (fields: Readonly<Record<string, unknown>>, message: string) =>
    void said.push([level, message, fields.error].filter(part => part !== undefined).join(' '))
  return {log: {info: tell('info'), warn: tell('warn'), debug: tell('debug')}, said}
}

export function isMounted(path: string): boolean {
  return readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${path} `)
}
