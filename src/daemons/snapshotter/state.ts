// What the daemon keeps on disk of snapshots: `<root>/snapshotter/{metadata.db,snapshots/<id>/{fs,work}}`.

import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {SnapshotDirectories, SnapshotTable} from '../../lib/snapshot/ports.ts'
import {openSnapshotDirectories} from '../../lib/state/snapshot-directories.ts'
import {openSnapshotTable} from '../../lib/state/sqlite-snapshot-table.ts'

export interface State extends Disposable {
  readonly table: SnapshotTable
  readonly directories: SnapshotDirectories
}

/**
 * Opens the state below `root`; whoever opens it has it alone until disposed: `failed-precondition` for anybody else.
 * Throws `corrupt` when the table is damaged, or does not belong to the directories.
 */
export async function openState(root: string): Promise<State> {
  const directory = join(root, 'snapshotter')
  await mkdir(directory, {recursive: true, mode: 0o700}).catch(cause => {
    throw new CodedError('permission-denied', `Cannot make the root directory "${directory}"`, {cause})
  })
  const table = openSnapshotTable(join(directory, 'metadata.db'))
  try {
    const directories = await openSnapshotDirectories(directory)
    const newest = Math.max(0, ...(await directories.list()).map(Number).filter(Number.isSafeInteger))
    if (newest > table.lastId()) {
      throw new CodedError(
        'corrupt',
        `Cannot use "${directory}": its metadata.db is gone or older than its snapshots; restore it, or remove the images that use this snapshotter and the directory`,
      )
    }
    return {table, directories, [Symbol.dispose]: () => table[Symbol.dispose]()}
  } catch (error) {
    table[Symbol.dispose]()
    throw error
  }
}
