// The snapshotter on disk: `<root>/snapshotter/{metadata.db,snapshots/<id>/{fs,work}}`, as in the reference.

import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {LayerMounter, SnapshotLog} from '../../lib/snapshot/ports.ts'
import {createSnapshotter, type Snapshotter} from '../../lib/snapshot/snapshotter.ts'
import {openSnapshotDirectories} from '../../lib/state/snapshot-directories.ts'
import {openSnapshotTable} from '../../lib/state/sqlite-snapshot-table.ts'
import {overlayOptionsOfThisMachine} from './overlay-options.ts'

export interface OpenSnapshotter extends Disposable {
  readonly snapshotter: Snapshotter
}

/**
 * Opens the state below `root`; whoever opens it first has it alone until disposed: `failed-precondition` for anybody
 * else, `corrupt` when the table is damaged.
 */
export async function openSnapshotter(
  root: string,
  mounter: LayerMounter,
  log: SnapshotLog,
): Promise<OpenSnapshotter> {
  const directory = join(root, 'snapshotter')
  await mkdir(directory, {recursive: true, mode: 0o700}).catch(cause => {
    throw new CodedError('permission-denied', `Cannot make the root directory "${directory}"`, {cause})
  })
  const table = openSnapshotTable(join(directory, 'metadata.db'))
  try {
    const snapshotter = createSnapshotter({
      table,
      directories: await openSnapshotDirectories(directory),
      mounter,
      overlayOptions: overlayOptionsOfThisMachine(),
      log,
      now: () => new Date(),
    })
    return {snapshotter, [Symbol.dispose]: () => table[Symbol.dispose]()}
  } catch (error) {
    table[Symbol.dispose]()
    throw error
  }
}
