// The lock of a layout directory: one writer at a time, across processes.

import {mkdir} from 'node:fs/promises'
import {dirname} from 'node:path'
import {DatabaseSync} from 'node:sqlite'
import {setTimeout as delay} from 'node:timers/promises'
import {CodedError, messageOf} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'

/** How long to wait for other writers. They hold the lock for milliseconds; a garbage collection for seconds. */
const LOCK_TIMEOUT_MS = 120_000
const RETRY_MS = 5

/** SQLite's primary result codes (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5
const SQLITE_CANTOPEN = 14
const SQLITE_READONLY = 8

/**
 * Runs `body` while no other process and no other caller in this one holds the lock at `path`. The lock is SQLite's,
 * on a database that stays empty: the kernel drops it when its holder dies, however it dies, so there is no stale lock
 * to judge. Throws `permission-denied` for a directory that cannot be written, `unavailable` after two minutes.
 */
export async function withLock<T>(
  path: string,
  options: CallOptions,
  body: () => Promise<T> | T,
): Promise<T> {
  const lock = await acquire(path, options)
  try {
    return await body()
  } finally {
    lock.close()
  }
}

async function acquire(path: string, {signal}: CallOptions): Promise<DatabaseSync> {
  await mkdir(dirname(path), {recursive: true})
  for (const deadline = Date.now() + LOCK_TIMEOUT_MS; ; ) {
    signal?.throwIfAborted()
    const lock = tryLock(path)
    if (lock) return lock
    if (Date.now() > deadline) {
      throw new CodedError(
        'unavailable',
        `Cannot lock "${path}": another process has held it for ${LOCK_TIMEOUT_MS / 1000} s`,
      )
    }
    await delay(RETRY_MS * (1 + Math.random()), undefined, signal ? {signal} : {})
  }
}

function tryLock(path: string): DatabaseSync | undefined {
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(path)
    // Waiting inside SQLite would stop this process's event loop; a journal would need space on a full disk.
    database.exec('PRAGMA busy_timeout = 0; PRAGMA journal_mode = MEMORY; BEGIN EXCLUSIVE')
    return database
  } catch (error) {
    database?.close()
    const code = resultCodeOf(error)
    if (code === SQLITE_BUSY) return undefined
    const denied = code === SQLITE_CANTOPEN || code === SQLITE_READONLY
    throw new CodedError(
      denied ? 'permission-denied' : 'internal',
      `Cannot lock "${path}": ${messageOf(error)}`,
      {cause: error},
    )
  }
}

function resultCodeOf(error: unknown): number | undefined {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : undefined
  // Extended codes keep the primary one in their low byte.
  return typeof code === 'number' ? code & 0xff : undefined
}
