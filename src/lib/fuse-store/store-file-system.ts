// The file system at a store's mountpoint.

import {describeError} from '../errors/coded-error.ts'
import type {FuseLog} from '../fuse/fuse-log.ts'
import type {Keeper} from '../fuse/keeper.ts'
import {openLastingSession} from '../fuse/lasting-session.ts'
import {createStoreHandler} from './store-handler.ts'
import type {StoreTree} from './store-tree.ts'

export interface StoreFileSystemOptions {
  /** An absolute path without symlinks; made when it is not there. */
  readonly mountpoint: string
  readonly tree: StoreTree
  /** How long anybody waits for an answer, milliseconds. */
  readonly deadlineMs: number
  /** Without one, the mount dies with this process. */
  readonly keeper: Keeper | undefined
  readonly log: FuseLog
}

export interface StoreFileSystem {
  /** `leave` leaves mount and descriptor to the next process, if there is a keeper; `unmount` ends both. */
  close(how: 'leave' | 'unmount'): Promise<void>
}

/** Blobs are read from one end to the other, each READ by a request of its own to the registry. KiB. */
const READ_AHEAD = 1024

/** Serves `tree`; what an earlier process left unanswered is asked again. */
export async function openStoreFileSystem(options: StoreFileSystemOptions): Promise<StoreFileSystem> {
  const {mountpoint, tree, deadlineMs, keeper, log} = options
  const lasting = await openLastingSession({
    kind: 'deferring',
    createHandler: host =>
      createStoreHandler(host, {
        tree,
        deadlineMs,
        onFailure: (path, error) =>
          log.warn({path: path.join('/'), error: describeError(error)}, 'cannot answer for the layer store'),
      }),
    name: 'store',
    mountpoint,
    workers: 1,
    deadlineMs,
    readAheadKb: READ_AHEAD,
    passthrough: false,
    exec: false,
    changing: true,
    askAboutChanges: true,
    keeper,
    log,
  })
  lasting.onLost(() => lasting.session.resume())
  lasting.session.resume()
  return {close: how => lasting.close(how)}
}
