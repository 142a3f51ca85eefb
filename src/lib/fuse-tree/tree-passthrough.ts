// Passthrough (Linux 6.9): the kernel reads a local copy of a file by itself, also for mmap, and no request comes any more.
// A copy, because the data of all files of a layer are in one; so only files that are large enough to gain by it, and only
// when all of a file is there. An inode that is open in one mode cannot be opened in another, and which are open is not
// known after a restart: so the first open decides for as long as the mount lives, and is written down.

import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import {join} from 'node:path'
import type {SharedDevice} from '../fuse/request-handler.ts'
import {wrapChunkBitmap} from '../io/chunk-bitmap.ts'
import {closeBacking, openBacking} from '../native/system-calls.ts'

/** A layer's decisions as every thread sees them. */
export interface Passthrough {
  /** The descriptor of /dev/fuse. */
  readonly session: number
  /** An Int32 for each inode: a backing id, or one of the values below. */
  readonly modes: SharedArrayBuffer
  /** A file of the same numbers, for the next process. */
  readonly record: number
  /** Where copies are made; they have no name. */
  readonly directory: string
}

const UNDECIDED = 0
const CACHED = -1
const DECIDING = -2

/** Smaller files are read with one request or two, and then are in the page cache as they would be. */
const MIN_SIZE = 128 * 1024
/** Copying keeps a thread from answering others: some 50 ms for this much. */
const MAX_SIZE = 128 * 1024 * 1024
const COPY_SIZE = 1 << 20
const BLOCK_SIZE = 4096

/** Where a file's data are. */
export interface FileRange {
  readonly device: SharedDevice
  readonly offset: number
  readonly size: number
}

/**
 * The decisions of a layer of `inodes` inodes, kept in the file `name`.modes below `directory`. `adopted`: go on with what
 * an earlier process decided, whose mount it is.
 */
export function openPassthrough(
  name: string,
  options: {
    readonly session: number
    readonly inodes: number
    readonly directory: string
    readonly adopted: boolean
  },
): Passthrough {
  const {session, inodes, directory, adopted} = options
  const modes = new SharedArrayBuffer(4 * inodes)
  const path = recordPath(name, directory)
  const written = adopted && existsSync(path) ? readFileSync(path) : Buffer.alloc(modes.byteLength)
  new Uint8Array(modes).set(written.subarray(0, modes.byteLength))
  // Whole, so that what is written into it later needs no more space.
  writeFileSync(path, written, {mode: 0o600})
  return {session, modes, record: openSync(path, 'r+'), directory}
}

/** Once no thread uses them: leaves the decisions to the next process, or forgets them with the mount. */
export function closePassthrough(
  name: string,
  {record, directory}: Passthrough,
  how: 'leave' | 'unmount',
): void {
  closeSync(record)
  if (how === 'unmount') rmSync(recordPath(name, directory), {force: true})
}

/** Lets go of a layer's copies while its mount goes on; files that are open stay readable. */
export function closeBackings({session, modes}: Passthrough): void {
  for (const mode of new Int32Array(modes)) if (mode > 0) closeBacking(session, mode)
}

function recordPath(name: string, directory: string): string {
  return join(directory, `${name}.modes`)
}

/** How to open an inode: a backing id for passthrough, or 0 for reading through the page cache. */
export function backingOf(passthrough: Passthrough, inode: number, range: FileRange): number {
  const modes = new Int32Array(passthrough.modes)
  for (;;) {
    const mode = Atomics.load(modes, inode)
    if (mode === DECIDING) {
      // Another thread copies the file.
      Atomics.wait(modes, inode, DECIDING)
    } else if (mode !== UNDECIDED) {
      return Math.max(0, mode)
    } else if (Atomics.compareExchange(modes, inode, UNDECIDED, DECIDING) === UNDECIDED) {
      let decided = CACHED
      try {
        decided = decide(passthrough, inode, range)
      } finally {
        Atomics.store(modes, inode, decided)
        Atomics.notify(modes, inode)
      }
    }
  }
}

/** Makes a copy if that pays, and writes down what has been decided before the kernel knows of it. */
function decide(passthrough: Passthrough, inode: number, range: FileRange): number {
  const pays = range.size >= MIN_SIZE && range.size <= MAX_SIZE && isWhole(range)
  const mode = pays ? openCopy(passthrough, range) : CACHED
  writeSync(passthrough.record, new Uint8Array(Int32Array.of(mode).buffer), 0, 4, 4 * inode)
  return mode
}

function openCopy({session, directory}: Passthrough, range: FileRange): number {
  try {
    const copy = copyOf(range, directory)
    try {
      return openBacking(session, copy)
    } finally {
      closeSync(copy)
    }
  } catch {
    // A full disk, or a file system that cannot back files: the file is read as others are.
    return CACHED
  }
}

function isWhole({device, offset, size}: FileRange): boolean {
  const bitmap = wrapChunkBitmap(device.present, device.size / BLOCK_SIZE)
  return bitmap.hasAll(Math.floor(offset / BLOCK_SIZE), Math.floor((offset + size - 1) / BLOCK_SIZE))
}

/** A file without a name that holds the range. */
function copyOf({device, offset, size}: FileRange, directory: string): number {
  const path = join(directory, `${device.name}-${offset}.copy`)
  const copy = openSync(path, 'w+', 0o600)
  try {
    unlinkSync(path)
    const buffer = Buffer.allocUnsafe(Math.min(size, COPY_SIZE))
    for (let done = 0; done < size; ) {
      const read = readSync(device.fd, buffer, 0, Math.min(buffer.length, size - done), offset + done)
      if (read === 0) throw new RangeError('The device ends early')
      for (let written = 0; written < read; ) {
        written += writeSync(copy, buffer, written, read - written, done + written)
      }
      done += read
    }
    return copy
  } catch (error) {
    closeSync(copy)
    throw error
  }
}
