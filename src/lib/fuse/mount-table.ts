// What is mounted at a path, found without touching the file system that is mounted there: its server may be gone.

import {readFile} from 'node:fs/promises'
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
  return parseMounts(await readFile('/proc/self/mountinfo', 'latin1'), mountpoint).length
}

/** Detaches all that is mounted at exactly `mountpoint`, also while it is in use. */
export async function detachAll(mountpoint: string): Promise<void> {
  while ((await findMount(mountpoint)) !== undefined) unmount(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW)
}

/** The last mount at `mountpoint` in a proc_pid_mountinfo(5) file, read as Latin-1. */
export function parseMountinfo(mountinfo: string, mountpoint: string): MountedHere | undefined {
  return parseMounts(mountinfo, mountpoint).at(-1)
}

/** All mounts at `mountpoint`, each over those before it. */
function parseMounts(mountinfo: string, mountpoint: string): MountedHere[] {
  // Fields: id, parent, major:minor, root, mount point, options, any number of tags, "-", type, source, …
  const wanted = Buffer.from(mountpoint).toString('latin1')
  return mountinfo.split('\n').flatMap(line => {
    const fields = line.split(' ')
    if (fields[4] === undefined || decodePath(fields[4]) !== wanted) return []
    const tagsEnd = fields.indexOf('-', 6)
    const type = tagsEnd < 0 ? undefined : fields[tagsEnd + 1]
    return type === undefined ? [] : [{device: fields[2]!, type}]
  })
}

/** Spaces, tabs, newlines and backslashes are written as three octal digits. */
function decodePath(path: string): string {
  return path.replace(/\\([0-7]{3})/g, (_, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)))
}
