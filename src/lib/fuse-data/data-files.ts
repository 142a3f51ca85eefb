// The file system of the lazy data files, which EROFS mounts name as their `device=`: one for the whole daemon, however
// many layers there are.

import {open} from 'node:fs/promises'
import {join} from 'node:path'
import type {FuseLog} from '../fuse/fuse-log.ts'
import type {Keeper} from '../fuse/keeper.ts'
import {type LostListener, openLastingSession} from '../fuse/lasting-session.ts'
import {encodeInvalidateEntry, encodeInvalidateInode, ROOT_NODE} from '../fuse/protocol.ts'
import type {LazyDevice} from '../layer/ports.ts'
import {detachBelow} from '../mount/mount-table.ts'
import {dropCache} from '../native/system-calls.ts'
import {createDataHandler, nodeIdOf} from './data-handler.ts'

export interface DataFileSystemOptions {
  /** An absolute path without symlinks; made when it is not there. */
  readonly mountpoint: string
  /** Threads that answer, 17 MB each. 2 by default: with more, nothing was faster. */
  readonly workers?: number
  /** How long a reader waits for data before it gets EIO. 30 seconds by default. */
  readonly deadlineMs?: number
  /** Without one, the mount dies with this process. */
  readonly keeper?: Keeper | undefined
  /**
   * The mounts that name these files as their devices are below this directory. When there is no file system to take
   * over they are dead, and are detached before there is a new one: a later process could not tell them from its own.
   */
  readonly mountsBelow?: string
  readonly log: FuseLog
}

export interface DataFileSystem {
  /** True when the mount is an earlier process's: once all its devices have been added, call `resume`. */
  readonly adopted: boolean
  /** Serves a device; returns the path of its file. Adding it again changes nothing. Opens the file system anew if it was lost. */
  add(device: LazyDevice): Promise<string>
  /** How files that are opened from now on are read: for layers whose files stand in the order in which a start reads them, or others. */
  readAhead(order: keyof typeof READ_AHEAD_KB): void
  /**
   * Looks whether the file system is still there, and opens it anew if not. Resolves to a number that is another one after
   * that: mounts that name files of an earlier one are dead, or soon will be.
   */
  generation(): Promise<number>
  /** Called when the file system was lost and there is a new one: all mounts must be made anew. */
  onLost(listener: LostListener): void
  /** Ends the serving of a device that no mount uses any more. */
  remove(name: string): Promise<void>
  /** Gives back the page cache's copies of the file and of the sparse file behind it; file systems above keep theirs. */
  trim(name: string): Promise<void>
  /** Lets requests that an earlier process left unanswered come again. Before, those about unknown devices wait. */
  resume(): void
  /** `leave` leaves mount and descriptor to the next process, if there is a keeper; `unmount` ends both. */
  close(how: 'leave' | 'unmount'): Promise<void>
}

/**
 * KiB that the kernel reads ahead of a sequential reader, also beyond the file's end into the next one. EROFS reads ahead within
 * files; what comes of others is what a start reads next in an optimized layer, and elsewhere keeps a reader waiting for
 * chunks that nobody wants: with 256 there, starts behind 20 ms took a tenth to a third longer.
 */
const READ_AHEAD_KB = {optimized: 256, others: 4}

export async function openDataFileSystem(options: DataFileSystemOptions): Promise<DataFileSystem> {
  const {mountpoint, keeper, mountsBelow, log} = options
  const lasting = await openLastingSession({
    kind: 'data',
    createHandler: createDataHandler,
    name: 'data',
    mountpoint,
    workers: options.workers ?? 2,
    deadlineMs: options.deadlineMs ?? 30_000,
    readAheadKb: READ_AHEAD_KB.others,
    // The kernel reads the data files for EROFS, on which overlayfs must still fit.
    passthrough: false,
    exec: false,
    changing: false,
    keeper,
    onNew: mountsBelow === undefined ? undefined : () => detachBelow(mountsBelow, 'erofs'),
    log,
  })
  return {
    get adopted() {
      return lasting.isAdopted
    },
    add: async device => {
      const session = await lasting.current()
      session.add(device, {})
      return join(mountpoint, device.name)
    },
    readAhead: order => lasting.session.connection.readAhead(READ_AHEAD_KB[order]),
    generation: async () => {
      await lasting.current()
      return lasting.generation
    },
    onLost: listener => lasting.onLost(listener),
    remove: async name => {
      await lasting.delete(name)
      const {session} = lasting
      // Names and inodes are valid for ever, unless it is said otherwise.
      await session.notify(encodeInvalidateEntry(ROOT_NODE, Buffer.from(name)))
      await session.notify(encodeInvalidateInode(nodeIdOf(name)))
    },
    trim: async name => {
      const device = lasting.session.device(name)
      if (!device) return
      // Not by a notification, which waits for pages that are being read: a process that is killed while it waits for its
      // own answers never ends. Opening asks us nothing, because the name is known and OPEN is not implemented.
      await using file = await open(join(mountpoint, name))
      dropCache(file.fd)
      dropCache(device.fd)
    },
    resume: () => lasting.session.resume(),
    close: how => lasting.close(how),
  }
}
