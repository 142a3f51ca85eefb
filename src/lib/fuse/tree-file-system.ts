// The file system of whole layers, for kernels that cannot mount EROFS images from files: one for the whole daemon, with a
// directory per layer that overlayfs takes as it is.

import {join} from 'node:path'
import {CodedError} from '../errors/coded-error.ts'
import {dropCache} from '../native/system-calls.ts'
import type {DirectoryNode} from '../vfs/file-tree.ts'
import type {Keeper} from './keeper.ts'
import {encodeInvalidateEntry, ROOT_NODE} from './protocol.ts'
import {type FuseLog, type LazyDevice, openSession} from './session.ts'
import {encodeTree, type OpaqueMarks} from './tree-encode.ts'
import type {TreeEntry} from './tree-handler.ts'
import {layerIdOf} from './tree-nodes.ts'
import {createStateFile, type LayerState, type StateFile} from './tree-state.ts'

export interface TreeFileSystemOptions {
  /** An absolute path without symlinks; made when it is not there. */
  readonly mountpoint: string
  /** Threads that answer. 3 by default. */
  readonly workers?: number
  /** How long a reader waits for data before it gets EIO. 30 seconds by default. */
  readonly deadlineMs?: number
  /** KiB that the kernel reads ahead of a sequential reader. 1024 by default. */
  readonly readAheadKb?: number
  /** Without one, the mount dies with this process. */
  readonly keeper?: Keeper | undefined
  readonly log: FuseLog
}

export interface TreeLayer {
  /** What a file holds starts at its node's `dataOffset`. */
  readonly device: LazyDevice
  /** The same tree after every restart: inode numbers derive from it. */
  readonly tree: DirectoryNode
  readonly opaque: OpaqueMarks
  /** How the layer is doing now, for `/.stargz-snapshotter/<digest>.json` in it; without this, there is no such file. */
  readonly state?: (() => LayerState) | undefined
}

export interface TreeFileSystem {
  /** True when the mount is an earlier process's: once all its layers have been added, call `resume`. */
  readonly adopted: boolean
  /**
   * Serves a layer; returns the path of its directory. Adding it again changes nothing. Throws `unsupported` for a tree
   * that cannot be served.
   */
  add(layer: TreeLayer): Promise<string>
  /** Ends the serving of a layer that no mount uses any more. */
  remove(name: string): Promise<void>
  /** Gives back the page cache's copy of a layer's sparse file; what readers have cached stays. */
  trim(name: string): Promise<void>
  /** Lets requests that an earlier process left unanswered come again. Before, those about unknown layers wait. */
  resume(): void
  /** `leave` leaves mount and descriptor to the next process, if there is a keeper; `unmount` ends both. */
  close(how: 'leave' | 'unmount'): Promise<void>
}

export async function openTreeFileSystem(options: TreeFileSystemOptions): Promise<TreeFileSystem> {
  const {mountpoint, keeper, log} = options
  const states = new Map<string, StateFile>()
  const names = new Map<number, string>()
  const session = await openSession<TreeEntry>({
    kind: 'tree',
    name: 'tree',
    mountpoint,
    workers: options.workers ?? 3,
    deadlineMs: options.deadlineMs ?? 30_000,
    readAheadKb: options.readAheadKb ?? 1024,
    passthrough: false,
    exec: true,
    changing: true,
    stateFiles: name => states.get(name),
    keeper,
    log,
  })
  return {
    adopted: session.connection.adopted,
    add: async ({device, tree, opaque, state}) => {
      const {name} = device
      const path = join(mountpoint, name)
      if (session.device(name)) return path
      const namesake = names.get(layerIdOf(name))
      if (namesake !== undefined) {
        throw new CodedError(
          'unsupported',
          `Cannot serve layer "${name}": its number is that of "${namesake}"`,
        )
      }
      const tables = encodeTree(tree, {opaque, dataSize: device.size})
      if (state) states.set(name, createStateFile(state))
      session.add(device, {tree: tables, stateName: state && `${state().digest}.json`})
      names.set(layerIdOf(name), name)
      return path
    },
    remove: async name => {
      await session.delete(name)
      states.delete(name)
      names.delete(layerIdOf(name))
      // The name is valid for ever, unless it is said otherwise; what is below goes with it.
      await session.notify(encodeInvalidateEntry(ROOT_NODE, Buffer.from(name)))
    },
    trim: async name => {
      const device = session.device(name)
      if (device) dropCache(device.fd)
    },
    resume: () => session.resume(),
    close: how => session.close(how),
  }
}
