// The layers of a layer store in SQLite.

import type {SQLOutputValue} from 'node:sqlite'
import {CodedError} from '../errors/coded-error.ts'
import type {CountedLayer, StoredLayer, StoredLayerTable} from '../layer-store/stored-layer.ts'
import {type DatabaseOptions, openDatabase, writeDatabase} from './database.ts'

const SCHEMA = `
  CREATE TABLE IF NOT EXISTS layers (
    reference TEXT NOT NULL,
    name TEXT NOT NULL,
    layer TEXT NOT NULL,
    users INTEGER NOT NULL,
    PRIMARY KEY (reference, name)
  ) STRICT;
`

const TABLE = {
  what: 'table of stored layers',
  version: 1,
  schema: SCHEMA,
  remedy: 'remove it, and the images that were pulled through this store',
}

/** A table on disk. Nobody else can open it before it is disposed. */
export interface OpenStoredLayerTable extends StoredLayerTable, Disposable {}

/** Opens or creates the table at `path`. Throws `corrupt` for a damaged file, `failed-precondition` for one in use. */
export function openStoredLayerTable(
  path: string,
  {onFull}: Pick<DatabaseOptions, 'onFull'> = {},
): OpenStoredLayerTable {
  const options = {...TABLE, onFull}
  const database = openDatabase(path, options)
  const one = database.prepare('SELECT * FROM layers WHERE reference = ? AND name = ?')
  const all = database.prepare('SELECT * FROM layers ORDER BY rowid')
  const insert = database.prepare('INSERT OR IGNORE INTO layers VALUES (?, ?, ?, 0)')
  const count = database.prepare(
    'UPDATE layers SET users = max(0, users + ?) WHERE reference = ? AND name = ? RETURNING users',
  )
  const remove = database.prepare('DELETE FROM layers WHERE reference = ? AND name = ?')
  const write = (change: () => unknown): void => writeDatabase(path, options, change)
  return {
    get: ({reference, name}) => {
      const row = one.get(reference, name)
      return row && layerOf(row)
    },
    list: () => all.all().map(layerOf),
    add: layer => write(() => insert.run(layer.reference, layer.name, encodeLayer(layer))),
    count: ({reference, name}, change) => {
      let users = 0
      write(() => {
        users = Number(count.get(change, reference, name)?.users ?? 0)
      })
      return users
    },
    delete: ({reference, name}) => write(() => remove.run(reference, name)),
    [Symbol.dispose]: () => database.close(),
  }
}

function encodeLayer(layer: StoredLayer): string {
  const {digest, tocDigest, diffId, compressedSize, uncompressedSize, mediaType, labels} = layer
  return JSON.stringify({digest, tocDigest, diffId, compressedSize, uncompressedSize, mediaType, labels})
}

function layerOf(row: Record<string, SQLOutputValue>): CountedLayer {
  const {reference, name, layer, users} = row
  try {
    return {reference, name, users, ...JSON.parse(String(layer))}
  } catch (cause) {
    throw new CodedError('corrupt', `Cannot read layer ${name} of ${reference} in the ${TABLE.what}`, {cause})
  }
}
