// What the daemon keeps on disk of snapshots: `<root>/snapshotter/{metadata.db,ballast,snapshots/<id>/{fs,work}}`.

import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {SnapshotDirectories, SnapshotTable} from '../../lib/snapshot/ports.ts'
import {Ballast} from '../../lib/state/ballast.ts'
import {openSnapshotDirectories} from '../../lib/state/snapshot-directories.ts'
import {openSnapshotTable} from '../../lib/state/sqlite-snapshot-table.ts'

export interface State extends Disposable {
  readonly table: SnapshotTable
  readonly directories: SnapshotDirectories
  readonly ballast: Ballast
}

/**
 * Opens the state below `root`; whoever opens it has it alone until disposed: `failed-precondition` for anybody else.
 * Throws `corrupt` when the table is damaged, or does not belong to the directories, and `unavailable` on a full disk that
 * nothing of ours can be spared on.
 */
export async function openState(root: string): Promise<State> {
  const directory = join(root, 'snapshotter')
  await mkdir(directory, {recursive: true, mode: 0o700})
  const ballast = new Ballast(join(directory, 'ballast'))
  const table = openSnapshotTable(join(directory, 'metadata.db'), {onFull: () => ballast.release()})
  try {
    const directories = await openSnapshotDirectories(directory)
    const newest = Math.max(0, ...(await directories.list()).map(Number).filter(Number.isSafeInteger))
    if (newest > table.lastId()) {
      throw new CodedError(
        'corrupt',
        `Cannot use "${directory}": its metadata.db is gone or older than its snapshots; restore it, or remove the images that use this snapshotter and the directory`,
      )
    }
    await ballast.carry()
    const close = () => {
      ballast[Symbol.dispose]()
      table[Symbol.dispose]()
    }
    return {table, directories, ballast, [Symbol.dispose]: close}
  } catch (error) {
    table[Symbol.dispose]()
    throw error
  }
}
