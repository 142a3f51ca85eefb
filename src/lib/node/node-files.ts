// The files that `node enable` writes, with what was there before: put in place whole or not at all, and put back byte for byte.

import {constants} from 'node:fs'
import {access, mkdir, readFile, realpath, rm, rmdir, stat} from 'node:fs/promises'
import {dirname} from 'node:path'
import {CodedError, hasCode, messageOf} from '../errors/coded-error.ts'
import {nameBeside, StagedFile, syncDirectory} from '../io/staged-file.ts'

/** A file as it is. */
export interface FileState {
  readonly text: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
}

/** What is remembered of a file that was written. */
export interface ChangedFile {
  /** Where it is, symbolic links followed. */
  readonly path: string
  /** What was there at first; null for nothing. */
  readonly before: FileState | null
  /** All that has been written there, newest last. */
  readonly written: readonly string[]
}

/** Larger than any configuration. */
const MAX_FILE_SIZE = 4 * 1024 * 1024

/** The file, or undefined where there is none. */
export async function readFileState(path: string): Promise<FileState | undefined> {
  try {
    const {mode, uid, gid, size} = await stat(path)
    if (size > MAX_FILE_SIZE) {
      throw new CodedError(
        'failed-precondition',
        `Cannot change "${path}": it is too large for a configuration`,
      )
    }
    const bytes = await readFile(path)
    const text = bytes.toString()
    if (!Buffer.from(text).equals(bytes)) {
      throw new CodedError('failed-precondition', `Cannot change "${path}": it is not UTF-8`)
    }
    return {text, mode: mode & 0o7777, uid, gid}
  } catch (error) {
    if (hasCode(error, 'not-found')) return undefined
    throw error
  }
}

/** Where a path leads: a symbolic link stays one when its file is replaced. */
export async function followLinks(path: string): Promise<string> {
  return await realpath(path).catch(error => {
    if (hasCode(error, 'not-found')) return path
    throw error
  })
}

/** Puts a file in place in one step; on the disk when it resolves. Its directory must be there. */
export async function putFile(path: string, {text, mode, uid, gid}: FileState): Promise<void> {
  await using staged = await StagedFile.create(nameBeside(path), 0o600)
  await staged.handle.chown(uid, gid)
  await staged.handle.chmod(mode)
  await staged.handle.writeFile(text)
  await staged.publish(path)
}

/** Takes a file away; one that is gone is no error. */
export async function dropFile(path: string): Promise<void> {
  await rm(path, {force: true})
  await syncDirectory(dirname(path)).catch(error => {
    if (!hasCode(error, 'not-found')) throw error
  })
}

/** The directories above a path that are not there, the outermost first. */
export async function missingDirectories(path: string): Promise<string[]> {
  const missing: string[] = []
  for (let place = dirname(path); ; place = dirname(place)) {
    const there = await stat(place).catch(error => {
      if (!hasCode(error, 'not-found')) throw error
    })
    if (there) return missing
    missing.unshift(place)
  }
}

/** Makes directories in the given order. */
export async function makeDirectories(paths: readonly string[]): Promise<void> {
  for (const path of paths) {
    await mkdir(path, {mode: 0o755}).catch(error => {
      if (!hasCode(error, 'already-exists')) throw error
    })
    await syncDirectory(dirname(path))
  }
}

/** Removes directories that are empty, the innermost first. */
export async function removeDirectories(paths: readonly string[]): Promise<void> {
  for (const path of paths.toReversed()) await rmdir(path).catch(() => {})
}

/** Throws `permission-denied` where a file could not be put in place. */
export async function checkWritable(path: string): Promise<void> {
  const [outermost] = await missingDirectories(path)
  const place = dirname(outermost ?? path)
  try {
    await access(place, constants.W_OK)
  } catch (cause) {
    const problem = isReadOnly(cause) ? 'its file system is read-only' : messageOf(cause)
    throw new CodedError(
      'permission-denied',
      `Cannot write into "${place}": ${problem}; nothing has been changed`,
      {cause},
    )
  }
}

function isReadOnly(error: unknown): boolean {
  return error instanceof Error && (error as NodeJS.ErrnoException).code === 'EROFS'
}
