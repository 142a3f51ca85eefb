// What the kernel has of what lazy layers take, and whether there is room for them.

import {constants} from 'node:fs'
import {access, mkdtemp, readFile, rm, stat, statfs} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import {hasCode, messageOf} from '../errors/coded-error.ts'
import {canMountErofs} from '../mount/mount-erofs.ts'
import type {Finding} from './finding.ts'

/** What a node leaves free: below it nothing is fetched ahead, as docs/snapshotter.md says. */
const ENOUGH_FREE = 0.1

/** A tiny image is mounted and unmounted where layers will be: not every file system can have them. */
export async function checkKernel(root: string): Promise<Finding[]> {
  const known = await readFile('/proc/filesystems', 'utf8')
  const overlay = /\toverlay$/m.test(known)
  const device = await access('/dev/fuse', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  )
  return [
    overlay
      ? {about: 'kernel', level: 'ok', message: 'The kernel has overlayfs'}
      : {
          about: 'kernel',
          level: 'problem',
          message: 'The kernel has no overlayfs, or has not loaded it',
          breaks: 'no container starts',
          remedy: 'modprobe overlay',
        },
    device
      ? {about: 'kernel', level: 'ok', message: 'The kernel has FUSE'}
      : {
          about: 'kernel',
          level: 'problem',
          message: '/dev/fuse cannot be opened',
          breaks: 'no layer is lazy',
          remedy: 'modprobe fuse',
        },
    await checkErofs(root),
  ]
}

async function checkErofs(root: string): Promise<Finding> {
  const place = await nearestDirectory(root)
  let directory: string | undefined
  try {
    directory = await mkdtemp(join(place, '.ctr-remote-node-'))
    if (await canMountErofs(directory)) {
      return {
        about: 'kernel',
        level: 'ok',
        message: `The kernel mounts EROFS images from files of "${place}"`,
      }
    }
    return {
      about: 'kernel',
      level: 'warning',
      message: `The kernel mounts no EROFS images from files of "${place}"`,
      breaks:
        'layers are served as FUSE trees, in which each file that is opened and each directory that is listed asks the daemon',
      remedy: 'modprobe erofs, or Linux 6.12 or newer with EROFS_FS_BACKED_BY_FILE',
    }
  } catch (error) {
    if (!hasCode(error, 'permission-denied', 'unavailable')) throw error
    return {
      about: 'kernel',
      level: 'warning',
      message: `Whether the kernel mounts EROFS images from files of "${place}" could not be tried: ${messageOf(error)}`,
      breaks: 'where it does not, layers are served as FUSE trees, which is slower',
      remedy: 'run this as root, with room on the disk',
    }
  } finally {
    if (directory !== undefined) await rm(directory, {recursive: true, force: true})
  }
}

/** Of the file system that `root` is on, or will be. */
export async function checkDisk(root: string): Promise<Finding> {
  const {blocks, bavail, bsize} = await statfs(await nearestDirectory(root))
  const free = `${Math.floor((bavail / blocks) * 100)} % (${((bavail * bsize) / 2 ** 30).toFixed(1)} GiB)`
  if (bavail >= blocks * ENOUGH_FREE) {
    return {about: 'disk', level: 'ok', message: `${free} of the disk of "${root}" are free`}
  }
  return {
    about: 'disk',
    level: 'warning',
    message: `Only ${free} of the disk of "${root}" are free`,
    breaks:
      'nothing is fetched ahead, and reads of layers wait for the registry each time once the disk is full',
    remedy: 'crictl rmi --prune',
  }
}

/** `path`, or the nearest directory above it that exists. */
async function nearestDirectory(path: string): Promise<string> {
  for (let place = path; ; place = dirname(place)) {
    try {
      if ((await stat(place)).isDirectory()) return place
    } catch (error) {
      if (!hasCode(error, 'not-found') || place === '/') throw error
    }
  }
}
