// The directory of one sandbox: whatever was mounted, started or set up is found and undone from it, also by a later run
// when this one is killed.

import {randomBytes} from 'node:crypto'
import {lstat, mkdir, readdir, rm, rmdir} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {isOwnerAlive, ownerToken} from '../io/process-owner.ts'
import {temporaryDirectoryError} from '../io/temporary-directory.ts'

/** A fresh directory; disposing it undoes what was done in it and removes it. */
export interface SandboxDirectory extends AsyncDisposable {
  /** Unique on this machine, and fit for a container's, a namespace's and a host's name. */
  readonly id: string
  readonly path: string
}

/** Undoes one kind of thing that was done in a sandbox's directory; safe to call on any state of it. */
export type Release = (directory: string) => Promise<void>

const ID_PREFIX = 'ctr-remote-'
/** Another process may remove the empty root between our making it and our making a directory in it. */
const MAKE_ATTEMPTS = 5

/**
 * Makes a sandbox directory below `root`, after cleaning up those whose makers are gone. `releases` run in order. Throws
 * `permission-denied` when somebody else could write to `root`.
 */
export async function makeSandboxDirectory(
  root: string,
  releases: readonly Release[],
): Promise<SandboxDirectory> {
  const id = `${ID_PREFIX}${randomBytes(6).toString('hex')}`
  const path = join(root, `${ownerToken()}-${id}`)
  await makeDirectory(root, path)
  await sweep(root, releases)
  return {
    id,
    path,
    [Symbol.asyncDispose]: async () => {
      await clear(path, releases)
      // The last one out turns off the light.
      await rmdir(root).catch(() => {})
    },
  }
}

async function makeDirectory(root: string, path: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    await mkdir(root, {recursive: true, mode: 0o700}).catch(cause => {
      throw temporaryDirectoryError(dirname(root), cause)
    })
    try {
      await requireOwn(root)
      await mkdir(path, {mode: 0o700})
      return
    } catch (error) {
      if (!hasCode(error, 'not-found') || attempt === MAKE_ATTEMPTS) throw error
    }
  }
}

/** The root may be in a directory for everybody, such as /tmp: what others put into it must not be acted on. */
async function requireOwn(root: string): Promise<void> {
  const status = await lstat(root)
  const isOwn = status.isDirectory() && status.uid === process.geteuid?.() && (status.mode & 0o022) === 0
  if (isOwn) return
  throw new CodedError(
    'permission-denied',
    `Cannot use ${JSON.stringify(root)} for sandboxes: others can write to it; remove it`,
  )
}

/** What cannot be cleaned up now does not keep this run from working; the next one tries again. */
async function sweep(root: string, releases: readonly Release[]): Promise<void> {
  for (const name of await readdir(root)) {
    const path = join(root, name)
    const token = name.split(`-${ID_PREFIX}`)[0]!
    const status = await lstat(path).catch(() => undefined)
    if (!status?.isDirectory() || isOwnerAlive(token, status.mtimeMs)) continue
    await clear(path, releases).catch(() => {})
  }
}

/**
 * Every release runs, whatever became of those before. The directory stays while something could not be undone: below a
 * mount that is still there are other people's files, and a later run needs what it says.
 */
async function clear(path: string, releases: readonly Release[]): Promise<void> {
  const failures: unknown[] = []
  for (const release of releases) await release(path).catch(error => failures.push(error))
  if (failures.length > 0) throw failures[0]
  await rm(path, {recursive: true, force: true})
}
