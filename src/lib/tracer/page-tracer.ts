// Watches which pages of files the kernel reads into its cache, by its own trace events (tracefs): the ranges beside the
// paths that fanotify tells. What programs ask for and what the kernel reads ahead of them are both there, as a lazy mount
// that reads ahead as much is asked for both.

import {createReadStream} from 'node:fs'
import {mkdir, readdir, readFile, rmdir, writeFile} from 'node:fs/promises'
import {availableParallelism} from 'node:os'
import {basename, join} from 'node:path'
import {createInterface} from 'node:readline'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {mount} from '../native/system-calls.ts'

/** Part of a file that was read: the file system's device and the file's inode as `stat` has them. */
export interface PageRead {
  readonly device: number
  readonly inode: number
  readonly offset: number
  readonly end: number
  /** After the first read, whole milliseconds. */
  readonly atMs: number
}

/** A trace that is under way. */
export interface PageTracer {
  /** Ends the trace. Resolves to all reads in their order; undefined when the kernel had to drop some. */
  finish(): Promise<readonly PageRead[] | undefined>
}

const EVENT = 'events/filemap/mm_filemap_add_to_page_cache'
const PAGE_SIZE = 4096
/** KiB of the kernel's memory for all processors together; 60 bytes for each time that something is read. */
const BUFFER_KB = 64 << 10
const MIN_BUFFER_KB = 1024
/** Devices that the kernel's filter names; with more all are traced, and others' are passed over here. */
const MAX_FILTERED = 64

/**
 * Starts to watch file systems with these `st_dev`. `directory` is a sandbox's: tracefs is mounted in it, and the kernel's
 * record goes by its name. Throws `unsupported` where the kernel does not tell.
 */
export async function startPageTracer(directory: string, devices: readonly number[]): Promise<PageTracer> {
  const [target, instance] = placesOf(directory)
  const wanted = new Map(devices.map(device => [majorMinor(device), device]))
  try {
    await mkdir(target)
    mount({source: 'tracefs', target, type: 'tracefs', flags: 0, data: ''})
    await mkdir(instance)
    const write = (file: string, text: string) => writeFile(join(instance, file), text)
    const size = Math.max(MIN_BUFFER_KB, Math.floor(BUFFER_KB / availableParallelism()))
    await write('buffer_size_kb', String(size))
    await write('trace_clock', 'mono')
    if (devices.length <= MAX_FILTERED) {
      await write(`${EVENT}/filter`, devices.map(device => `s_dev == ${kernelDevice(device)}`).join(' || '))
    }
    await write(`${EVENT}/enable`, '1')
  } catch (cause) {
    throw new CodedError('unsupported', `Cannot trace what is read of files: ${describeError(cause)}`, {
      cause,
    })
  }
  return {
    finish: async () => {
      await writeFile(join(instance, `${EVENT}/enable`), '0')
      return (await hasOverrun(instance)) ? undefined : await readTrace(join(instance, 'trace'), wanted)
    },
  }
}

/** Removes what a trace in `directory` has left in the kernel; nothing to do is no error. To be called before it is unmounted. */
export async function removePageTracer(directory: string): Promise<void> {
  const [, instance] = placesOf(directory)
  await rmdir(instance).catch(error => {
    if (!hasCode(error, 'not-found')) throw error
  })
}

function placesOf(directory: string): [target: string, instance: string] {
  const target = join(directory, 'tracing')
  return [target, join(target, 'instances', basename(directory).replace(/^.*-ctr-remote-/, 'ctr-remote-'))]
}

/** Whether the kernel has written over events of any processor. */
async function hasOverrun(instance: string): Promise<boolean> {
  const processors = join(instance, 'per_cpu')
  for (const name of await readdir(processors)) {
    const stats = await readFile(join(processors, name, 'stats'), 'latin1')
    if (/^(overrun|dropped events|commit overrun): *[1-9]/m.test(stats)) return true
  }
  return false
}

/** ` python3-71 [001] ..... 12.345678: mm_filemap_add_to_page_cache: dev 0:60 ino 1a2 pfn=0x1 ofs=8192 order=0` */
const LINE =
  /\s(\d+\.\d+): mm_filemap_add_to_page_cache: dev (\d+:\d+) ino ([\da-f]+) .*\bofs=(\d+)(?: order=(\d+))?/

async function readTrace(file: string, wanted: ReadonlyMap<string, number>): Promise<readonly PageRead[]> {
  const reads: PageRead[] = []
  let beganMs: number | undefined
  for await (const line of createInterface({input: createReadStream(file, 'latin1')})) {
    const [, seconds, name, inode, offset, order = '0'] = LINE.exec(line) ?? []
    const device = name === undefined ? undefined : wanted.get(name)
    if (device === undefined) continue
    const ms = Number(seconds) * 1000
    beganMs ??= ms
    const start = Number(offset)
    reads.push({
      device,
      inode: Number.parseInt(inode!, 16),
      offset: start,
      end: start + PAGE_SIZE * 2 ** Number(order),
      atMs: Math.max(0, Math.round(ms - beganMs)),
    })
  }
  return reads
}

/** As the kernel's trace writes it. `stat` has the minor number in two parts (makedev(3)). */
function majorMinor(device: number): string {
  const {major, minor} = partsOf(device)
  return `${major}:${minor}`
}

/** As the kernel has it: 12 bits of major number, 20 of minor. */
function kernelDevice(device: number): number {
  const {major, minor} = partsOf(device)
  return major * 2 ** 20 + minor
}

function partsOf(device: number): {major: number; minor: number} {
  return {major: Math.floor(device / 256) % 4096, minor: (device % 256) + Math.floor(device / 2 ** 20) * 256}
}
