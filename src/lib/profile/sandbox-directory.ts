// The directory of one sandbox: whatever was mounted, started or set up is found and undone from it, also by a later run
// when this one is killed.

import {randomBytes} from 'node:crypto'
import {mkdir, readdir, rm, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {hasCode} from '../errors/coded-error.ts'
import {isOwnerAlive, ownerToken} from '../io/process-owner.ts'

/** A fresh directory; disposing it runs `release` on it and removes it. */
export interface SandboxDirectory extends AsyncDisposable {
  /** Unique on this machine, and fit for a container's, a namespace's and a host's name. */
  readonly id: string
  readonly path: string
}

/** Undoes whatever was done in a sandbox's directory; safe to call on any state of it. */
export type Release = (directory: string) => Promise<void>

/** Makes a sandbox directory below `root`, after cleaning up those whose makers are gone. */
export async function makeSandboxDirectory(root: string, release: Release): Promise<SandboxDirectory> {
  await mkdir(root, {recursive: true, mode: 0o700})
  await sweep(root, release)
  const id = `ctr-remote-${randomBytes(6).toString('hex')}`
  const path = join(root, `${ownerToken()}-${id}`)
  await mkdir(path, {mode: 0o700})
  return {
    id,
    path,
    [Symbol.asyncDispose]: () => clear(path, release),
  }
}

async function sweep(root: string, release: Release): Promise<void> {
  for (const name of await readdir(root)) {
    const path = join(root, name)
    const [token = ''] = name.split('-ctr-remote-')
    const status = await stat(path).catch(error => {
      if (!hasCode(error, 'not-found')) throw error
    })
    if (status && !isOwnerAlive(token, status.mtimeMs)) await clear(path, release)
  }
}

async function clear(path: string, release: Release): Promise<void> {
  // Removing comes after releasing has succeeded: below a mount that is still there are other people's files.
  await release(path)
  await rm(path, {recursive: true, force: true})
}
