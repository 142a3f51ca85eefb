// The images of a layer store in SQLite.

import type {StoredImage, StoredImageTable} from '../layer-store/stored-image.ts'
import {type DatabaseOptions, openDatabase, writeDatabase} from './database.ts'

const TABLE = {
  what: 'table of stored images',
  version: 1,
  schema: 'CREATE TABLE IF NOT EXISTS images (id TEXT PRIMARY KEY, image TEXT NOT NULL) STRICT;',
  remedy: 'remove it, and pull the images again',
}

/** A table on disk. Nobody else can open it before it is disposed. */
export interface OpenStoredImageTable extends StoredImageTable, Disposable {}

/** Opens or creates the table at `path`. Throws `corrupt` for a damaged file, `failed-precondition` for one in use. */
export function openStoredImageTable(
  path: string,
  {onFull}: Pick<DatabaseOptions, 'onFull'> = {},
): OpenStoredImageTable {
  const options = {...TABLE, onFull}
  const database = openDatabase(path, options)
  const all = database.prepare('SELECT image FROM images ORDER BY rowid')
  const put = database.prepare('INSERT OR REPLACE INTO images VALUES (?, ?)')
  const remove = database.prepare('DELETE FROM images WHERE id = ?')
  const write = (change: () => unknown): void => writeDatabase(path, options, change)
  return {
    list: () => all.all().map(({image}): StoredImage => JSON.parse(String(image))),
    put: image => write(() => put.run(image.id, JSON.stringify(image))),
    delete: id => write(() => remove.run(id)),
    [Symbol.dispose]: () => database.close(),
  }
}
