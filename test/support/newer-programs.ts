// Programs of Debian unstable, which scripts/fetch-newer keeps beside the distribution's.

import {existsSync, readFileSync} from 'node:fs'
import {homedir} from 'node:os'
import {join} from 'node:path'

/** What is fetched; each has a directory of its own, and a program of its name. */
export const NEWER_PROGRAMS = ['containerd', 'podman', 'docker'] as const
export type NewerProgram = (typeof NEWER_PROGRAMS)[number]

const CACHE = join(process.env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'ctr-remote')

/** The directory of its programs: of containerd's its shim, ctr and runc, of Podman's conmon and netavark. */
export function newerPrograms(name: NewerProgram): string {
  return join(CACHE, `newer-${name}`, 'bin')
}

export function hasNewer(name: NewerProgram): boolean {
  return existsSync(join(newerPrograms(name), name))
}

/** Why this machine's distribution does not give it, as setup found; undefined when it did not try. */
export function whyNoNewer(name: NewerProgram): string | undefined {
  try {
    return readFileSync(join(CACHE, `newer-${name}.unavailable`), 'utf8').trim()
  } catch {
    return undefined
  }
}
