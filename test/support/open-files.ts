// What a process has open, as /proc tells.

import {readdirSync, readlinkSync} from 'node:fs'

/** The targets of the descriptors of a process, without those that it closes while one looks. */
export function openFilesOf(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap(fd => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)]
    } catch {
      return []
    }
  })
}

/** The files below `root` that this process has open. */
export function openBelow(root: string): string[] {
  return openFilesOf(process.pid).filter(path => path.startsWith(root))
}
