// Whether those who ask for mounts can see them. A daemon in a mount namespace of its own mounts layers that containerd does
// not see: containers would find empty directories.

import {readFile, stat} from 'node:fs/promises'
import {CodedError, describeError} from '../../lib/errors/coded-error.ts'
import {findMount, parseMountinfo} from '../../lib/mount/mount-table.ts'
import type {Log} from '../process/log.ts'

export interface MountSightOptions {
  /** Where this daemon mounts what all lazy layers read from; only those that are mounted count. */
  readonly mountpoints: readonly string[]
  readonly log: Pick<Log, 'debug' | 'warn' | 'error'>
}

const ADVICE =
  "start this daemon in containerd's mount namespace, or let its mounts propagate to it (without PrivateMounts=, ProtectSystem= and the like in its unit, with mountPropagation: Bidirectional in a pod)"

export class MountSight {
  readonly #mountpoints: readonly string[]
  readonly #log: MountSightOptions['log']
  /** Callers that see a mount, as `process device`. */
  readonly #seeing = new Set<string>()
  /** Why the last caller could not use a mount. */
  #problem: string | undefined

  constructor({mountpoints, log}: MountSightOptions) {
    this.#mountpoints = mountpoints
    this.#log = log
  }

  /** At the start nobody has called yet. The first process mostly sees what containerd sees. */
  async lookAtStart(): Promise<void> {
    const mountpoint = await this.#hiddenFrom(1)
    if (mountpoint === undefined) return
    this.#log.warn(
      {mountpoint},
      `the mounts of this daemon are not seen outside of its mount namespace; if containerd is outside of it: ${ADVICE}`,
    )
  }

  /** Looks whether `caller`, a process, sees the mounts. One of another pid namespace (0) cannot be looked at. */
  async look(caller: number | undefined): Promise<void> {
    if (!caller) return
    const mountpoint = await this.#hiddenFrom(caller)
    const problem =
      mountpoint &&
      `Process ${caller} (${await nameOf(caller)}) does not see the mount at ${JSON.stringify(mountpoint)}: ${ADVICE}`
    if (problem !== undefined && problem !== this.#problem) {
      this.#log.error({error: problem}, 'lazy layers are refused: who asks for them cannot see their mounts')
    }
    this.#problem = problem
  }

  /** Throws `failed-precondition` when the last caller does not see the mounts. */
  readonly require = (): void => {
    if (this.#problem === undefined) return
    throw new CodedError('failed-precondition', `Cannot mount lazily: ${this.#problem}`)
  }

  /** The first mount point that `process` does not see. */
  async #hiddenFrom(process: number): Promise<string | undefined> {
    for (const mountpoint of this.#mountpoints) {
      try {
        if (!(await this.#isSeenBy(process, mountpoint))) return mountpoint
      } catch (error) {
        // It has ended, or is none of our business: nothing is known.
        this.#log.debug({process, error: describeError(error)}, 'cannot look at the mounts of a process')
      }
    }
    return undefined
  }

  async #isSeenBy(process: number, mountpoint: string): Promise<boolean> {
    const found = await stat(mountpoint).catch(() => undefined)
    const key = `${process} ${found?.dev}`
    if (!found || this.#seeing.has(key)) return true
    const own = await findMount(mountpoint)
    if (!own) return true
    const seen = parseMountinfo(await readFile(`/proc/${process}/mountinfo`, 'latin1'), mountpoint)
    if (seen?.device !== own.device) return false
    this.#seeing.add(key)
    return true
  }
}

async function nameOf(process: number): Promise<string> {
  const name = await readFile(`/proc/${process}/comm`, 'utf8').catch(() => 'gone')
  return name.trim()
}
