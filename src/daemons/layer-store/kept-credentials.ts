// Credentials that outlive the store: in memory alone, of a file without a name that the keeper holds. Whoever restarts the
// store would otherwise take private images' missing data from running containers.

import {randomUUID} from 'node:crypto'
import {closeSync, fstatSync, openSync, readSync, unlinkSync, writeSync} from 'node:fs'
import {describeError} from '../../lib/errors/coded-error.ts'
import type {Keeper} from '../../lib/fuse/keeper.ts'
import {MAX_TOLD, type ToldCredentials} from '../../lib/layer-store/told-credentials.ts'
import type {Log} from '../process/log.ts'

const NAME = 'credentials'
/** A file system in memory, where there is one. */
const DIRECTORY = '/dev/shm'

/** Tells `told` what the last store knew. */
export async function recallCredentials(
  told: ToldCredentials,
  {keeper, log}: {readonly keeper: Keeper | undefined; readonly log: Log},
): Promise<void> {
  try {
    const held = await keeper?.take(NAME)
    if (!held) return
    try {
      const {size} = fstatSync(held.fd)
      const bytes = Buffer.alloc(Math.min(size, MAX_TOLD))
      readSync(held.fd, bytes, 0, bytes.length, 0)
      told.tell(bytes)
    } finally {
      closeSync(held.fd)
    }
  } catch (error) {
    log.warn({error: describeError(error)}, 'cannot recall the credentials of before the restart')
  }
}

/** For an end that leaves nothing behind. */
export async function forgetCredentials(keeper: Keeper | undefined): Promise<void> {
  await keeper?.drop(NAME)
}

/** Gives the keeper all that `told` knows. */
export async function keepCredentials(
  told: ToldCredentials,
  {keeper, log}: {readonly keeper: Keeper | undefined; readonly log: Log},
): Promise<void> {
  const bytes = told.encode()
  if (!keeper || bytes.length > MAX_TOLD) return
  try {
    const path = `${DIRECTORY}/${randomUUID()}`
    const fd = openSync(path, 'wx+', 0o600)
    try {
      unlinkSync(path)
      writeSync(fd, bytes)
      await keeper.hold(NAME, fd, '')
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    log.warn({error: describeError(error)}, 'cannot keep credentials over a restart')
  }
}
