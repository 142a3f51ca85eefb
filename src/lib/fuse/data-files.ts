// The file system of the lazy data files, which EROFS mounts name as their `device=`: one for the whole daemon, however
// many layers there are.

import {open} from 'node:fs/promises'
import {join} from 'node:path'
import type {LazyDevice} from '../layer/ports.ts'
import {dropCache} from '../native/system-calls.ts'
import {nodeIdOf} from './data-handler.ts'
import type {Keeper} from './keeper.ts'
import {detachBelow} from './mount-table.ts'
import {encodeInvalidateEntry, encodeInvalidateInode, ROOT_NODE} from './protocol.ts'
import {type FuseLog, openSession} from './session.ts'

export interface DataFileSystemOptions {
  /** An absolute path without symlinks; made when it is not there. */
  readonly mountpoint: string
  /** Threads that answer, 17 MB each. 2 by default: with more, nothing was faster. */
  readonly workers?: number
  /** How long a reader waits for data before it gets EIO. 30 seconds by default. */
  readonly deadlineMs?: number
  /**
   * KiB that the kernel reads ahead of a sequential reader, also beyond the file's end into the next one. 256 by default:
   * of files in no order it then brings 1.65 times what is read; with 1024, 2.5 times, in hardly fewer requests.
   */
  readonly readAheadKb?: number
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
  /** Serves a device; returns the path of its file. Adding it again changes nothing. */
  add(device: LazyDevice): Promise<string>
  /** Ends the serving of a device that no mount uses any more. */
  remove(name: string): Promise<void>
  /** Gives back the page cache's copies of the file and of the sparse file behind it; file systems above keep theirs. */
  trim(name: string): Promise<void>
  /** Lets requests that an earlier process left unanswered come again. Before, those about unknown devices wait. */
  resume(): void
  /** `leave` leaves mount and descriptor to the next process, if there is a keeper; `unmount` ends both. */
  close(how: 'leave' | 'unmount'): Promise<void>
}

export async function openDataFileSystem(options: DataFileSystemOptions): Promise<DataFileSystem> {
  const {mountpoint, keeper, mountsBelow, log} = options
  const session = await openSession({
    kind: 'data',
    name: 'data',
    mountpoint,
    workers: options.workers ?? 2,
    deadlineMs: options.deadlineMs ?? 30_000,
    readAheadKb: options.readAheadKb ?? 256,
    // The kernel reads the data files for EROFS, on which overlayfs must still fit.
    passthrough: false,
    exec: false,
    changing: false,
    keeper,
    onNew: mountsBelow === undefined ? undefined : () => detachBelow(mountsBelow, 'erofs'),
    log,
  })
  return {
    adopted: session.connection.adopted,
    add: async device => {
      session.add(device, {})
      return join(mountpoint, device.name)
    },
    remove: async name => {
      await session.delete(name)
      // Names and inodes are valid for ever, unless it is said otherwise.
      await session.notify(encodeInvalidateEntry(ROOT_NODE, Buffer.from(name)))
      await session.notify(encodeInvalidateInode(nodeIdOf(name)))
    },
    trim: async name => {
      const device = session.device(name)
      if (!device) return
      // Not by a notification, which waits for pages that are being read: a process that is killed while it waits for its
      // own answers never ends. Opening asks us nothing, because the name is known and OPEN is not implemented.
      await using file = await open(join(mountpoint, name))
      dropCache(file.fd)
      dropCache(device.fd)
    },
    resume: () => session.resume(),
    close: how => session.close(how),
  }
}
