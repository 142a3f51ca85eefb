// The snapshot table in SQLite: one file, write-ahead log, one writer, durable before a call returns.

import type {SQLOutputValue} from 'node:sqlite'
import {CodedError} from '../errors/coded-error.ts'
import type {SnapshotTable} from '../snapshot/ports.ts'
import type {Snapshot, SnapshotKind} from '../snapshot/snapshot.ts'
import {type DatabaseOptions, openDatabase, writeDatabase} from './database.ts'

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
 * Opens or creates the table at `path`; `':memory:'` keeps it in memory. Throws `corrupt` for a damaged file,
 * `failed-precondition` for one that another process has open, or that is not ours, and `unavailable` on a full disk.
 */
export function openSnapshotTable(
  path: string,
  {onFull}: Pick<DatabaseOptions, 'onFull'> = {},
): OpenSnapshotTable {
  const table = {
    what: 'snapshot table',
    version: SCHEMA_VERSION,
    schema: SCHEMA,
    remedy: 'restore it, or remove the images that use this snapshotter and its root directory',
    onFull,
  }
  const database = openDatabase(path, table)
  const write = (change: () => unknown): void => writeDatabase(path, table, change)
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
    insert: snapshot => write(() => insert.run(...valuesOf(snapshot))),
    replace: (name, snapshot) => write(() => update.run(...valuesOf(snapshot), name)),
    delete: name => write(() => remove.run(name)),
    lastId: () => lastId,
    [Symbol.dispose]: () => database.close(),
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
