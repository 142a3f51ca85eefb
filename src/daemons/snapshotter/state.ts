// What the daemon keeps on disk of snapshots: `<root>/snapshotter/{metadata.db,snapshots/<id>/{fs,work}}`.

import {mkdir, realpath} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, codeOf} from '../../lib/errors/coded-error.ts'
import type {SnapshotDirectories, SnapshotTable} from '../../lib/snapshot/ports.ts'
import {openSnapshotDirectories} from '../../lib/state/snapshot-directories.ts'
import {openSnapshotTable} from '../../lib/state/sqlite-snapshot-table.ts'

export interface State extends Disposable {
  readonly table: SnapshotTable
  readonly directories: SnapshotDirectories
}

/**
 * Makes the root directory where it is missing. Resolves to its path without symlinks, which is how the kernel's list of
 * mounts knows what is mounted below it.
 */
export async function makeRoot(root: string): Promise<string> {
  try {
    await mkdir(root, {recursive: true, mode: 0o700})
    return await realpath(root)
  } catch (cause) {
    throw new CodedError(codeOf(cause), `Cannot make the root directory "${root}"`, {cause})
  }
}

/**
 * Opens the state below `root`; whoever opens it has it alone until disposed: `failed-precondition` for anybody else.
 * Throws `corrupt` when the table is damaged, or does not belong to the directories.
 */
export async function openState(root: string): Promise<State> {
  const directory = join(root, 'snapshotter')
  await mkdir(directory, {recursive: true, mode: 0o700})
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
