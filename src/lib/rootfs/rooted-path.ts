// Finding a path inside a root file system without ever leaving it: links are followed as if the root were `/`.

import {constants} from 'node:fs'
import {lstat, open, readlink} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'

/** Most symbolic links followed in one path: MAXSYMLINKS of Linux. */
const MAX_LINKS = 40

/**
 * The host path of `path` inside `root`, with every symbolic link resolved within `root`; parts that do not exist are
 * kept as they are. Throws `corrupt` for a loop. The tree must not change meanwhile: only this process may write it.
 */
export async function resolveInRoot(root: string, path: string): Promise<string> {
  const pending = path.split('/').reverse()
  const resolved: string[] = []
  let links = 0
  while (pending.length > 0) {
    const part = pending.pop()!
    if (part === '' || part === '.') continue
    if (part === '..') {
      resolved.pop()
      continue
    }
    const target = await readLinkOf(join(root, ...resolved, part))
    if (target === undefined) {
      resolved.push(part)
      continue
    }
    if (++links > MAX_LINKS) {
      throw new CodedError(
        'corrupt',
        `Cannot resolve ${JSON.stringify(path)} in the image: its links form a loop`,
      )
    }
    if (target.startsWith('/')) resolved.length = 0
    pending.push(...target.split('/').reverse())
  }
  return join(root, ...resolved)
}

/**
 * The text of a small file of the image; empty when it does not exist or is no regular file (opening a FIFO or a device
 * of an image could block or do harm). Throws `corrupt` when it is longer than `limit` bytes.
 */
export async function readTextInRoot(root: string, path: string, limit: number): Promise<string> {
  const resolved = await resolveInRoot(root, path)
  const status = await lstat(resolved).catch(absent)
  if (!status?.isFile()) return ''
  if (status.size > limit) {
    throw new CodedError(
      'corrupt',
      `Cannot read ${JSON.stringify(path)} of the image: its ${status.size} bytes exceed the limit of ${limit}`,
    )
  }
  const file = await open(resolved, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK)
  try {
    return await file.readFile('utf8')
  } finally {
    await file.close()
  }
}

async function readLinkOf(path: string): Promise<string | undefined> {
  const status = await lstat(path).catch(absent)
  return status?.isSymbolicLink() ? readlink(path) : undefined
}

function absent(error: unknown): undefined {
  if (hasCode(error, 'not-found')) return undefined
  throw error
}
