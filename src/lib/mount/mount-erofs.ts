// Mounting a metadata image over a data file through the kernel's EROFS (Linux 6.12 with file-backed mounts).

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
}

/** Mounts read-only. Not with mount(8): it would make a loop device. */
export function mountErofs({image, data, target}: ErofsMount): void {
  mount({source: image, target, type: 'erofs', flags: MS_RDONLY, data: `device=${data}`})
}

/**
 * True when this kernel mounts EROFS images from files, with blocks of 512 bytes: found out by mounting a tiny one below
 * `directory`, because versions and configurations tell too little.
 */
export async function canMountErofs(directory: string): Promise<boolean> {
  const probe = await mkdtemp(join(directory, 'erofs-probe-'))
  const [image, data, target] = [join(probe, 'image'), join(probe, 'data'), join(probe, 'target')]
  try {
    await writeFile(image, encodeErofs(plainDirectory(), {blockSize: 512, dataSize: 512}))
    await writeFile(data, new Uint8Array(512))
    await mkdir(target)
    mountErofs({image, data, target})
    return true
  } catch {
    return false
  } finally {
    await unmountBelow(probe)
    await rm(probe, {recursive: true, force: true})
  }
}
