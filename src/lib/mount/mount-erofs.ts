// Mounting a metadata image over a data file through the kernel's EROFS (Linux 6.12 with file-backed mounts).

import {readdirSync, writeFileSync} from 'node:fs'
import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {encodeErofs} from '../erofs/encode-image.ts'
import {MS_RDONLY, mount} from '../native/system-calls.ts'
import {plainDirectory} from '../vfs/file-tree.ts'
import {unmountBelow} from './mounts.ts'

export interface ErofsMount {
  /** The metadata image, and the file that holds the data. */
  readonly image: string
  readonly data: string
  readonly target: string
  /** KiB that the kernel reads ahead in files that are opened from now on; its own default unless given. */
  readonly readAheadKb?: number | undefined
}

/**
 * What is read ahead in layers of which exactly what a start reads is fetched before: much of a larger window is not
 * read, and with a smaller one there are more requests than that saves.
 */
export const EXACT_READ_AHEAD_KB = 16

const DEVICES = '/sys/class/bdi'

/** Mounts read-only. Not with mount(8): it would make a loop device. */
export function mountErofs({image, data, target, readAheadKb}: ErofsMount): void {
  const before = readAheadKb === undefined ? undefined : new Set(erofsDevices())
  mount({source: image, target, type: 'erofs', flags: MS_RDONLY, data: `device=${data}`})
  if (before)
    setReadAhead(
      erofsDevices().filter(name => !before.has(name)),
      readAheadKb!,
    )
}

/**
 * The kernel gives each such mount a number, and does not say which. Where somebody else has mounted one at the same moment, both
 * keep the default.
 */
function setReadAhead(fresh: readonly string[], kb: number): void {
  if (fresh.length !== 1) return
  try {
    writeFileSync(`${DEVICES}/${fresh[0]}/read_ahead_kb`, String(kb))
  } catch {
    // A kernel that does not let us reads more than is needed.
  }
}

function erofsDevices(): string[] {
  try {
    return readdirSync(DEVICES).filter(name => name.startsWith('erofs-'))
  } catch {
    return []
  }
}

/**
 * True when this kernel mounts EROFS images from files, with blocks of 512 bytes: found out by mounting a tiny one below
 * `directory`, because versions and configurations tell too little. Throws when there is no room for it.
 */
export async function canMountErofs(directory: string): Promise<boolean> {
  const probe = await mkdtemp(join(directory, 'erofs-probe-'))
  const [image, data, target] = [join(probe, 'image'), join(probe, 'data'), join(probe, 'target')]
  try {
    await writeFile(image, encodeErofs(plainDirectory(), {blockSize: 512, dataSize: 512}))
    await writeFile(data, new Uint8Array(512))
    await mkdir(target)
    return canMount({image, data, target})
  } finally {
    await unmountBelow(probe)
    await rm(probe, {recursive: true, force: true})
  }
}

function canMount(wanted: ErofsMount): boolean {
  try {
    mountErofs(wanted)
    return true
  } catch {
    return false
  }
}
