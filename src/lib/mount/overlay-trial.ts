// Whether overlayfs can be mounted with its directories somewhere: found out by doing it.

import {mkdir, mkdtemp, rm, statfs} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {mount} from '../native/system-calls.ts'
import {unmountBelow} from './mounts.ts'

/** OVERLAYFS_SUPER_MAGIC (linux/magic.h). */
const OVERLAY_MAGIC = 0x794c7630

/**
 * Tries a writable overlay below `directory`, with `wanted` options and without, in this order. Resolves to those that work. Throws
 * `failed-precondition` with the reason when none do, and no container could start. On a full disk nothing can be tried.
 */
export async function tryOverlay(
  directory: string,
  {always, wanted}: {readonly always: readonly string[]; readonly wanted: readonly string[]},
): Promise<readonly string[]> {
  let trial: string | undefined
  try {
    trial = await mkdtemp(join(directory, 'overlay-trial-'))
    for (const name of ['lower', 'upper', 'work', 'target']) await mkdir(join(trial, name))
    if (wanted.length > 0 && !whyNot(trial, [...always, ...wanted])) return [...always, ...wanted]
    const problem = whyNot(trial, always)
    if (problem !== undefined) throw await cannotStack(directory, problem)
    return always
  } catch (error) {
    if (hasCode(error, 'unavailable')) return always
    throw error
  } finally {
    if (trial !== undefined) {
      await unmountBelow(trial)
      await rm(trial, {recursive: true, force: true})
    }
  }
}

/** Why the overlay cannot be mounted; undefined when it was. */
function whyNot(trial: string, options: readonly string[]): unknown {
  const [lower, upper, work, target] = ['lower', 'upper', 'work', 'target'].map(name => join(trial, name))
  const data = [...options, `lowerdir=${lower}`, `upperdir=${upper}`, `workdir=${work}`].join(',')
  try {
    mount({source: 'overlay', target: target!, type: 'overlay', flags: 0, data})
    return undefined
  } catch (error) {
    return error
  }
}

async function cannotStack(directory: string, cause: unknown): Promise<CodedError> {
  const isOverlay = (await statfs(directory)).type === OVERLAY_MAGIC
  const reason = isOverlay
    ? 'it is on an overlay file system, as directories of containers are, and another one cannot write there; use a volume, or another --root'
    : `overlayfs cannot be mounted with directories there (${describeError(cause)}); choose another --root`
  return new CodedError('failed-precondition', `Cannot use ${JSON.stringify(directory)}: ${reason}`, {cause})
}
