// Whether a mount that was made is still what a path leads to, asked of the kernel: cheaper than reading the list of mounts, and
// an answer comes also from a file system that is dead.

import {stat, statfs} from 'node:fs/promises'
import {CodedError, describeError} from '../errors/coded-error.ts'

/** What tells a mounted file system from whatever is at the same path without it, or instead of it. */
export interface Seen {
  /** `st_dev`. */
  readonly device: number
  /** The magic number of statfs(2): a device's number is given away again when its file system is gone. */
  readonly magic: number
}

/** What there is to see at a path. */
export async function seenAt(path: string): Promise<Seen> {
  // The server of a FUSE mount is always asked for this, never the cache.
  const {type: magic} = await statfs(path)
  const {dev: device} = await stat(path)
  return {device, magic}
}

/** Throws `unavailable` when `mountpoint` shows something else than `expected`. */
export async function requireSeen(mountpoint: string, expected: Seen | undefined): Promise<void> {
  let found: Seen
  try {
    found = await seenAt(mountpoint)
  } catch (cause) {
    throw new CodedError(
      'unavailable',
      `Cannot use what is mounted at ${JSON.stringify(mountpoint)}: ${describeError(cause)}`,
      {cause},
    )
  }
  if (found.device !== expected?.device || found.magic !== expected.magic) throw lostMount(mountpoint)
}

export function lostMount(mountpoint: string): CodedError {
  return new CodedError(
    'unavailable',
    `Cannot use the layer at ${JSON.stringify(mountpoint)}: it is not mounted there any more`,
  )
}
