// The snapshot table in SQLite: one file, write-ahead log, one writer, durable before a call returns.

import {closeSync, openSync, readSync} from 'node:fs'
import {DatabaseSync, type SQLOutputValue} from 'node:sqlite'
import {CodedError, messageOf} from '../errors/coded-error.ts'
import type {SnapshotTable} from '../snapshot/ports.ts'
import type {Snapshot, SnapshotKind} from '../snapshot/snapshot.ts'

/** Raised when the tables change shape; a newer file than ours is refused instead of damaged. */
const SCHEMA_VERSION = 1

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS snapshots (
    name TEXT PRIMARY KEY,
    id INTEGER NOT NULL UNIQUE,
    parent TEXT,
    kind TEXT NOT NULL CHECK (kind IN ('view', 'active', 'committed')),
    labels TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL,
    size INTEGER NOT NULL,
    inodes INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX IF NOT EXISTS snapshots_by_parent ON snapshots (parent);
  CREATE TABLE IF NOT EXISTS last_id (one INTEGER PRIMARY KEY CHECK (one = 1), id INTEGER NOT NULL) STRICT;
  INSERT OR IGNORE INTO last_id VALUES (1, 0);
  CREATE TRIGGER IF NOT EXISTS remember_id AFTER INSERT ON snapshots
    BEGIN UPDATE last_id SET id = max(id, NEW.id); END;
`

/** A table on disk. Nobody else can open it before it is disposed. */
export interface OpenSnapshotTable extends SnapshotTable, Disposable {
  /** The last id that was given away, in an earlier run to a snapshot; 0 when none was. */
  lastId(): number
}

/**
 * Opens or creates the table at `path`; `':memory:'` keeps it in memory. Throws `corrupt` for a damaged file and
 * `failed-precondition` for one that another process has open, or that is not ours.
 */
export function openSnapshotTable(path: string): OpenSnapshotTable {
  const database = openDatabase(path)
  const byName = database.prepare('SELECT * FROM snapshots WHERE name = ?')
  const children = database.prepare('SELECT 1 FROM snapshots WHERE parent = ? LIMIT 1')
  const all = database.prepare('SELECT * FROM snapshots ORDER BY id')
  const insert = database.prepare('INSERT INTO snapshots VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)')
  const update = database.prepare(
    'UPDATE snapshots SET name = ?, id = ?, parent = ?, kind = ?, labels = ?, created_ms = ?, updated_ms = ?, size = ?, inodes = ? WHERE name = ?',
  )
  const remove = database.prepare('DELETE FROM snapshots WHERE name = ?')
  // Ids are remembered with the snapshots that have them: a disk is made to write once for both.
  let lastId = Number(database.prepare('SELECT id FROM last_id').get()!.id)
  return {
    get: name => {
      const row = byName.get(name)
      return row && snapshotOf(row)
    },
    hasChildren: name => children.get(name) !== undefined,
    list: () => all.all().map(snapshotOf),
    nextId: () => String(++lastId),
    insert: snapshot => void write(() => insert.run(...valuesOf(snapshot))),
    replace: (name, snapshot) => void write(() => update.run(...valuesOf(snapshot), name)),
    delete: name => void write(() => remove.run(name)),
    lastId: () => lastId,
    [Symbol.dispose]: () => database.close(),
  }
}

function openDatabase(path: string): DatabaseSync {
  let database: DatabaseSync | undefined
  try {
    database = new DatabaseSync(path)
    database.exec('PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA locking_mode = EXCLUSIVE;')
    const version = Number(database.prepare('PRAGMA user_version').get()!.user_version)
    if (version > SCHEMA_VERSION) {
      throw new CodedError(
        'failed-precondition',
        `Cannot open "${path}": a newer release wrote it (schema ${version})`,
      )
    }
    const found = database.prepare('PRAGMA quick_check(1)').get()!.quick_check
    if (found !== 'ok') throw damaged(path, String(found))
    database.exec(`BEGIN IMMEDIATE; ${SCHEMA} PRAGMA user_version = ${SCHEMA_VERSION}; COMMIT;`)
    return database
  } catch (cause) {
    database?.close()
    throw cause instanceof CodedError ? cause : describeFailure(path, cause)
  }
}

/** SQLite's primary result codes (sqlite.org/rescode.html). */
const SQLITE_BUSY = 5
const SQLITE_CORRUPT = 11
const SQLITE_FULL = 13
const SQLITE_NOTADB = 26

function resultCodeOf(error: unknown): number | undefined {
  // Extended codes keep the primary one in their low byte.
  return error instanceof Error && 'errcode' in error ? Number(error.errcode) & 0xff : undefined
}

/** Changes the table. A change that fails has changed nothing. */
function write<T>(change: () => T): T {
  try {
    return change()
  } catch (cause) {
    const code = resultCodeOf(cause) === SQLITE_FULL ? 'unavailable' : 'internal'
    throw new CodedError(code, `Cannot write the snapshot table: ${messageOf(cause)}`, {cause})
  }
}

function describeFailure(path: string, cause: unknown): CodedError {
  switch (resultCodeOf(cause)) {
    case SQLITE_BUSY:
      return new CodedError(
        'failed-precondition',
        `Cannot open the snapshot table "${path}": another daemon has it open`,
      )
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return isBoltFile(path)
        ? new CodedError(
            'failed-precondition',
            `Cannot open the snapshot table "${path}": another implementation wrote it; start with another --root, or remove its images and directory first`,
          )
        : damaged(path, messageOf(cause))
    default:
      return new CodedError(
        'failed-precondition',
        `Cannot open the snapshot table "${path}": ${messageOf(cause)}`,
        {cause},
      )
  }
}

function damaged(path: string, problem: string): CodedError {
  return new CodedError(
    'corrupt',
    `Cannot open the snapshot table "${path}": it is damaged (${problem}); restore it, or remove the images that use this snapshotter and its root directory`,
  )
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

function valuesOf(
  snapshot: Snapshot,
): [string, number, string | null, string, string, number, number, number, number] {
  const {name, id, parent, kind, labels, createdAt, updatedAt, usage} = snapshot
  return [
    name,
    Number(id),
    parent ?? null,
    kind,
    JSON.stringify(labels),
    createdAt.getTime(),
    updatedAt.getTime(),
    usage.size,
    usage.inodes,
  ]
}

function snapshotOf(row: Record<string, SQLOutputValue>): Snapshot {
  return {
    id: String(row.id),
    name: String(row.name),
    parent: row.parent === null ? undefined : String(row.parent),
    kind: row.kind as SnapshotKind,
    labels: parseLabels(row),
    createdAt: new Date(Number(row.created_ms)),
    updatedAt: new Date(Number(row.updated_ms)),
    usage: {size: Number(row.size), inodes: Number(row.inodes)},
  }
}

function parseLabels(row: Record<string, SQLOutputValue>): Record<string, string> {
  try {
    return JSON.parse(String(row.labels))
  } catch (cause) {
    throw new CodedError('corrupt', `Cannot read the labels of snapshot "${row.name}"`, {cause})
  }
}
