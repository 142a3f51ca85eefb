// Files written in the ingest directory and renamed when complete, so that no half-written file has a final name.

import {randomBytes} from 'node:crypto'
import {mkdir, readdir, rm, stat} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import {CodedError, hasCode, messageOf} from '../errors/coded-error.ts'
import {isOwnerAlive, ownerToken} from '../io/process-owner.ts'
import {StagedFile} from '../io/staged-file.ts'
import type {LayoutPaths} from './layout-paths.ts'

/** Our staged files are `<owner token>-<random>`; anything else in the ingest directory is not ours to judge. */
const STAGED_NAME = /^([^-]+(?:-[^-]+)*)-[0-9a-f]{16}$/

/** Each attempt fails only if another writer finishes at that very moment. */
const MAX_ATTEMPTS = 10

export async function stageFile(paths: LayoutPaths): Promise<StagedFile> {
  return createIn(paths.ingest, join(paths.ingest, `${ownerToken()}-${randomBytes(8).toString('hex')}`))
}

/** Another process may remove the directory, once it is empty, between its making and its use: then make it again. */
async function createIn(directory: string, path: string): Promise<StagedFile> {
  for (let attempt = 1; ; attempt++) {
    try {
      // A recursive mkdir fails too, when what it found is gone before it looks again.
      await mkdir(directory, {recursive: true})
      return await StagedFile.create(path, 0o644)
    } catch (error) {
      if (attempt === MAX_ATTEMPTS || !hasCode(error, 'not-found')) throw error
    }
  }
}

/** Replaces `path` with `bytes` in one step, on the disk when it resolves. */
export async function replaceFile(
  paths: LayoutPaths,
  path: string,
  bytes: Uint8Array | string,
): Promise<void> {
  await mkdir(dirname(path), {recursive: true})
  await using staged = await stageFile(paths)
  await staged.handle.writeFile(bytes)
  await staged.publish(path)
}

/** Removes what killed processes left in the ingest directory. */
export async function sweepIngest(paths: LayoutPaths): Promise<void> {
  for (const name of await listDirectory(paths.ingest)) {
    const token = STAGED_NAME.exec(name)?.[1]
    if (token === undefined) continue
    const path = join(paths.ingest, name)
    const modifiedMs = await modifiedTimeOf(path)
    if (modifiedMs !== undefined && !isOwnerAlive(token, modifiedMs)) await rm(path, {force: true})
  }
}

/** The names in a directory; none when it does not exist. */
export async function listDirectory(path: string): Promise<string[]> {
  try {
    return await readdir(path)
  } catch (error) {
    if (hasCode(error, 'not-found')) return []
    throw error
  }
}

/** When a file was last written, in epoch milliseconds; undefined when it is gone. */
export async function modifiedTimeOf(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  }
}

/** A failed write, told in words: a full disk and a read-only directory are the user's to solve. */
export function writeError({root}: Pick<LayoutPaths, 'root'>, cause: unknown): unknown {
  const {code: errno, syscall} = cause instanceof Error ? (cause as NodeJS.ErrnoException) : {}
  // What stands where a directory shall be made.
  if (errno === 'EEXIST' && syscall !== 'mkdir') return cause
  switch (errno) {
    case 'ENOTDIR':
    case 'EEXIST':
      return new CodedError('invalid-argument', `Cannot write to "${root}": it is no directory`, {cause})
    case 'ENOSPC':
    case 'EDQUOT':
      return new CodedError('unavailable', `Cannot write to "${root}": the disk is full`, {cause})
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return new CodedError('permission-denied', `Cannot write to "${root}": ${messageOf(cause)}`, {
        cause,
      })
    default:
      return cause
  }
}
