// What is mounted at a path, found without touching the file system that is mounted there: its server may be gone.

import {readFile, realpath} from 'node:fs/promises'
import {MNT_DETACH, UMOUNT_NOFOLLOW, unmount} from '../native/system-calls.ts'

export interface MountedHere {
  /** `major:minor`. */
  readonly device: string
  readonly type: string
}

/** The topmost mount at exactly `mountpoint`; undefined when nothing is. */
export async function findMount(mountpoint: string): Promise<MountedHere | undefined> {
  return parseMountinfo(await readFile('/proc/self/mountinfo', 'latin1'), mountpoint)
}

/** How many mounts lie over each other at exactly `mountpoint`. */
export async function countMounts(mountpoint: string): Promise<number> {
  return mountsAt(await readFile('/proc/self/mountinfo', 'latin1'), mountpoint).length
}

/** Detaches all that is mounted at exactly `mountpoint`, also while it is in use. */
export async function detachAll(mountpoint: string): Promise<void> {
  while ((await findMount(mountpoint)) !== undefined) unmount(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW)
}

/** Detaches all that is mounted where a mount of `type` is, at and below `directory`, also while it is in use. */
export async function detachBelow(directory: string, type: string): Promise<void> {
  const above = `${Buffer.from(await realpath(directory)).toString('latin1')}/`
  const mounts = parseMounts(await readFile('/proc/self/mountinfo', 'latin1'))
  const stale = mounts.filter(mount => mount.type === type && `${mount.mountpoint}/`.startsWith(above))
  for (const mountpoint of new Set(stale.map(mount => mount.mountpoint))) {
    await detachAll(Buffer.from(mountpoint, 'latin1').toString())
  }
}

/** The last mount at `mountpoint` in a proc_pid_mountinfo(5) file, read as Latin-1. */
export function parseMountinfo(mountinfo: string, mountpoint: string): MountedHere | undefined {
  const mount = mountsAt(mountinfo, mountpoint).at(-1)
  return mount && {device: mount.device, type: mount.type}
}

/** The mount points at or below `directory` in such a file, in the order they were mounted. */
export function mountPointsBelow(mountinfo: string, directory: string): string[] {
  return parseMounts(mountinfo)
    .map(({mountpoint}) => Buffer.from(mountpoint, 'latin1').toString())
    .filter(point => point === directory || point.startsWith(`${directory}/`))
}

/** All mounts at `mountpoint`, each over those before it. */
function mountsAt(mountinfo: string, mountpoint: string): Mount[] {
  const wanted = Buffer.from(mountpoint).toString('latin1')
  return parseMounts(mountinfo).filter(mount => mount.mountpoint === wanted)
}

interface Mount extends MountedHere {
  /** As Latin-1. */
  readonly mountpoint: string
}

function parseMounts(mountinfo: string): Mount[] {
  // Fields: id, parent, major:minor, root, mount point, options, any number of tags, "-", type, source, …
  return mountinfo.split('\n').flatMap(line => {
    const fields = line.split(' ')
    const tagsEnd = fields.indexOf('-', 6)
    const type = tagsEnd < 0 ? undefined : fields[tagsEnd + 1]
    return type === undefined ? [] : [{device: fields[2]!, type, mountpoint: decodePath(fields[4]!)}]
  })
}

/** Spaces, tabs, newlines and backslashes are written as three octal digits. */
function decodePath(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
