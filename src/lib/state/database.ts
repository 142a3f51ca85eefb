// Tables on disk in SQLite: one file, write-ahead log, one writer, durable before a call returns.

import {closeSync, existsSync, openSync, readSync, statfsSync} from 'node:fs'
import {dirname} from 'node:path'
import {DatabaseSync} from 'node:sqlite'
import {CodedError, hasCode, messageOf} from '../errors/coded-error.ts'

export interface DatabaseOptions {
  /** What is in it, for errors: `snapshot table`. */
  readonly what: string
  /** Raised when the tables change shape; a newer file than ours is refused instead of damaged. */
  readonly version: number
  /** Makes the tables where they are missing. */
  readonly schema: string
  /** What to do about a damaged one. */
  readonly remedy: string
  /** Called when the disk is full; true when it has made room, so that opening or writing is tried once more. */
  readonly onFull?: (() => boolean) | undefined
}

/**
 * Opens or creates a database at `path`, which nobody else can open before it is closed. Throws `corrupt` for a damaged
 * file, `failed-precondition` for one that another process has open, or that is not ours, and `unavailable` on a full disk.
 */
export function openDatabase(path: string, options: DatabaseOptions): DatabaseSync {
  return withRoom(() => openOnce(path, options), options)
}

function openOnce(path: string, options: DatabaseOptions): DatabaseSync {
  const {version: ours, schema} = options
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(path)
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA locking_mode = EXCLUSIVE;')
    const version = Number(database.prepare('PRAGMA user_version').get()!.user_version)
    if (version > ours) {
      throw new CodedError(
        'failed-precondition',
        `Cannot open "${path}": a newer release wrote it (schema ${version})`,
      )
    }
    const found = database.prepare('PRAGMA quick_check(1)').get()!.quick_check
    if (found !== 'ok') throw damaged(path, String(found), options)
    database.exec(`BEGIN IMMEDIATE; ${schema} PRAGMA user_version = ${ours}; COMMIT;`)
    return database
  } catch (cause) {
    database?.close()
    throw cause instanceof CodedError ? cause : describeFailure(path, cause, options)
  }
}

/** SQLite's primary result codes (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5
const SQLITE_IOERR = 10
const SQLITE_CORRUPT = 11
const SQLITE_FULL = 13
const SQLITE_CANTOPEN = 14
const SQLITE_NOTADB = 26

function resultCodeOf(error: unknown): number | undefined {
  // Extended codes keep the primary one in their low byte.
  return error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : undefined
}

/** Runs `work`; once more when the disk was full and `onFull` has made room. */
function withRoom<T>(work: () => T, {onFull = () => false}: DatabaseOptions): T {
  try {
    return work()
  } catch (error) {
    if (!hasCode(error, 'unavailable') || !onFull()) throw error
    return work()
  }
}

/** Changes a database. A change that fails has changed nothing; `unavailable` when the disk is full. */
export function writeDatabase(path: string, options: DatabaseOptions, change: () => unknown): void {
  withRoom(() => {
    try {
      change()
    } catch (cause) {
      const code = isDiskFull(path, cause) ? 'unavailable' : 'internal'
      throw new CodedError(code, `Cannot write the ${options.what}: ${messageOf(cause)}`, {cause})
    }
  }, options)
}

/** Less than this is as good as nothing: SQLite writes several pages of 4 KiB at once. */
const HARDLY_ANYTHING = 64 << 10

/** SQLite says so, or has an I/O error where there is no room: to truncate or to make a file can fail for that, too. */
function isDiskFull(path: string, error: unknown): boolean {
  const code = resultCodeOf(error)
  if (code === SQLITE_FULL) return true
  if (code !== SQLITE_IOERR && code !== SQLITE_CANTOPEN) return false
  const directory = dirname(path)
  if (!existsSync(directory)) return false
  const {bsize, bavail} = statfsSync(directory)
  return bsize * bavail < HARDLY_ANYTHING
}

function describeFailure(path: string, cause: unknown, options: DatabaseOptions): CodedError {
  const {what} = options
  if (isDiskFull(path, cause)) {
    return new CodedError(
      'unavailable',
      `Cannot open the ${what} "${path}": the disk is full; make some room on it`,
      {cause},
    )
  }
  switch (resultCodeOf(cause)) {
    case SQLITE_BUSY:
      return new CodedError(
        'failed-precondition',
        `Cannot open the ${what} "${path}": another daemon has it open`,
      )
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return isBoltFile(path)
        ? new CodedError(
            'failed-precondition',
            `Cannot open the ${what} "${path}": another implementation wrote it; start with another --root, or remove its images and directory first`,
          )
        : damaged(path, messageOf(cause), options)
    default:
      return new CodedError('failed-precondition', `Cannot open the ${what} "${path}": ${messageOf(cause)}`, {
        cause,
      })
  }
}

function damaged(path: string, problem: string, {what, remedy}: DatabaseOptions): CodedError {
  return new CodedError('corrupt', `Cannot open the ${what} "${path}": it is damaged (${problem}); ${remedy}`)
}

/** True for the file that the reference keeps under the same name: bbolt's magic is at byte 16 of its first page. */
function isBoltFile(path: string): boolean {
  const bytes = Buffer.alloc(20)
  const file = openSync(path, 'r')
  try {
    return readSync(file, bytes, 0, 20, 0) === 20 && bytes.readUInt32LE(16) === 0xed0cdaed
  } finally {
    closeSync(file)
  }
}
