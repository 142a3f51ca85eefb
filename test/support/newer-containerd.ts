// Debian unstable's containerd and runc, which scripts/fetch-newer-containerd keeps beside the distribution's.

import {existsSync, readFileSync} from 'node:fs'
import {homedir} from 'node:os'
import {join} from 'node:path'

const HOME = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ctr-remote', 'newer-containerd')

/** The directory of its programs: containerd, containerd-shim-runc-v2, ctr, runc. */
export const NEWER_CONTAINERD = join(HOME, 'bin')

/** Whether it is there. */
export const hasNewerContainerd = (): boolean => existsSync(join(NEWER_CONTAINERD, 'containerd'))

/** Why this machine's distribution does not give it, as setup found; undefined when it did not try. */
export function whyNoNewerContainerd(): string | undefined {
  try {
    return readFileSync(`${HOME}.unavailable`, 'utf8').trim()
  } catch {
    return undefined
  }
}
