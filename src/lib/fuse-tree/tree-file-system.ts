// The file systems of whole layers, for kernels that cannot mount EROFS images from files: a directory per layer, which
// overlayfs takes as it is. There are two for the whole daemon. overlayfs asks for extended attributes of every file that
// it looks up, and the kernel remembers only of a whole file system that there are none; so layers without any, which
// most are, have one to themselves, in which a walk costs half as much.

import {mkdir, rm} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError} from '../errors/coded-error.ts'
import type {FuseLog} from '../fuse/fuse-log.ts'
import type {Session} from '../fuse/fuse-session.ts'
import type {Keeper} from '../fuse/keeper.ts'
import {type LastingSession, type LostListener, openLastingSession} from '../fuse/lasting-session.ts'
import {encodeInvalidateEntry, ROOT_NODE} from '../fuse/protocol.ts'
import type {LazyDevice} from '../layer/ports.ts'
import {dropCache} from '../native/system-calls.ts'
import type {DirectoryNode} from '../vfs/file-tree.ts'
import type {TreeEntry} from './served-layer.ts'
import {encodeTree, type OpaqueMarks} from './tree-encode.ts'
import {createTreeHandler} from './tree-handler.ts'
import {layerIdOf} from './tree-nodes.ts'
import {closeBackings, closePassthrough, openPassthrough, type Passthrough} from './tree-passthrough.ts'
import {createStateFile, type LayerState, type StateFile} from './tree-state.ts'
import {openTreeTable} from './tree-table.ts'

export interface TreeFileSystemOptions {
  /** An absolute path without symlinks; made when it is not there. `-xattrs` behind it is the second mount's. */
  readonly mountpoint: string
  /** Threads that answer, for each of the two mounts. 2 by default. */
  readonly workers?: number
  /** How long a reader waits for data before it gets EIO. 30 seconds by default. */
  readonly deadlineMs?: number
  /** KiB that the kernel reads ahead of a reader, or around a page of a mapped file. 256 by default, as of data files. */
  readonly readAheadKb?: number
  /**
   * Lets the kernel (Linux 6.9) read large files by itself, if they are complete when they are first opened: from copies
   * below this directory, which is made when it is not there, and belongs to us alone. Costs their size on disk for as long as they are mounted,
   * and a request for every open. Off by default.
   */
  readonly passthroughDirectory?: string | undefined
  /** Without one, the mounts die with this process. */
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

interface AddedLayer {
  readonly session: Session<TreeEntry>
  readonly path: string
  readonly state: StateFile | undefined
  readonly passthrough: Passthrough | undefined
}

type Kind = 'bare-tree' | 'tree'

export class TreeFileSystem {
  readonly #passthroughDirectory: string | undefined
  readonly #mountpoints: Readonly<Record<Kind, string>>
  /** For layers without extended attributes, and for those that have some. */
  readonly #bare: LastingSession<TreeEntry>
  readonly #withXattrs: LastingSession<TreeEntry>
  readonly #layers: Map<string, AddedLayer>
  /** Names by the number that they have in inode numbers. */
  readonly #names = new Map<number, string>()

  private constructor(
    {passthroughDirectory}: TreeFileSystemOptions,
    mountpoints: Readonly<Record<Kind, string>>,
    sessions: Readonly<Record<Kind, LastingSession<TreeEntry>>>,
    layers: Map<string, AddedLayer>,
  ) {
    this.#passthroughDirectory = passthroughDirectory
    this.#mountpoints = mountpoints
    this.#bare = sessions['bare-tree']
    this.#withXattrs = sessions.tree
    this.#layers = layers
  }

  static async open(options: TreeFileSystemOptions): Promise<TreeFileSystem> {
    const layers = new Map<string, AddedLayer>()
    const mountpoints = {'bare-tree': options.mountpoint, tree: `${options.mountpoint}-xattrs`}
    const open = (kind: Kind) =>
      openLastingSession<TreeEntry>({
        kind,
        createHandler: host =>
          createTreeHandler(host, {bare: kind === 'bare-tree', stateFiles: name => layers.get(name)?.state}),
        name: kind,
        mountpoint: mountpoints[kind],
        workers: options.workers ?? 2,
        deadlineMs: options.deadlineMs ?? 30_000,
        readAheadKb: options.readAheadKb ?? 256,
        passthrough: options.passthroughDirectory !== undefined,
        exec: true,
        changing: true,
        accessLists: kind === 'tree',
        keeper: options.keeper,
        log: options.log,
      })
    const bare = await open('bare-tree')
    const tree = await open('tree').catch(async error => {
      await bare.close(bare.isAdopted ? 'leave' : 'unmount')
      throw error
    })
    const {passthroughDirectory} = options
    if (passthroughDirectory !== undefined) {
      const adopted = bare.isAdopted || tree.isAdopted
      // Otherwise what is in it belongs to mounts that are gone.
      if (!adopted) await rm(passthroughDirectory, {recursive: true, force: true})
      await mkdir(passthroughDirectory, {recursive: true, mode: 0o700})
    }
    return new TreeFileSystem(options, mountpoints, {'bare-tree': bare, tree}, layers)
  }

  /** True when the mounts are an earlier process's: once all their layers have been added, call `resume`. */
  get adopted(): boolean {
    return this.#bare.isAdopted
  }

  /**
   * Serves a layer; returns the path of its directory. Adding it again changes nothing. Throws `unsupported` for a tree
   * that cannot be served.
   */
  async add({device, tree, opaque, state}: TreeLayer): Promise<string> {
    const {name} = device
    const known = this.#layers.get(name)
    if (known && this.#isServed(known)) return known.path
    const namesake = this.#names.get(layerIdOf(name))
    if (namesake !== undefined && namesake !== name) {
      throw new CodedError('unsupported', `Cannot serve layer "${name}": its number is that of "${namesake}"`)
    }
    const tables = encodeTree(tree, {opaque, dataSize: device.size})
    const {hasXattrs, inodes} = openTreeTable(tables)
    const session = await (hasXattrs ? this.#withXattrs : this.#bare).current()
    // The kernel has let go of the copies with the connection.
    if (known?.passthrough) closePassthrough(name, known.passthrough, 'unmount')
    const path = join(this.#mountpoints[hasXattrs ? 'tree' : 'bare-tree'], name)
    const passthrough = passthroughOf(session, name, {inodes, directory: this.#passthroughDirectory})
    try {
      session.add(device, {tree: tables, stateName: state && `${state().digest}.json`, passthrough})
    } catch (error) {
      if (passthrough) closePassthrough(name, passthrough, 'unmount')
      throw error
    }
    this.#layers.set(name, {session, path, state: state && createStateFile(state), passthrough})
    this.#names.set(layerIdOf(name), name)
    return path
  }

  /** The path of a layer's directory; undefined when it must be added, for the first time or because it was lost. */
  async pathOf(name: string): Promise<string | undefined> {
    await this.refresh()
    const known = this.#layers.get(name)
    return known && this.#isServed(known) ? known.path : undefined
  }

  /** Looks whether the file systems are still there, and opens anew what is not. */
  async refresh(): Promise<void> {
    await this.#bare.current()
    await this.#withXattrs.current()
  }

  /** Called when one was lost and there is a new one: its layers must be added and mounted anew. */
  onLost(listener: LostListener): void {
    this.#bare.onLost(listener)
    this.#withXattrs.onLost(listener)
  }

  /** Ends the serving of a layer that no mount uses any more, and of which no file is open. */
  async remove(name: string): Promise<void> {
    const layer = this.#layers.get(name)
    if (!layer) return
    const {session, passthrough} = layer
    await Promise.all([this.#bare.delete(name), this.#withXattrs.delete(name)])
    if (passthrough) {
      if (this.#isServed(layer)) closeBackings(passthrough)
      closePassthrough(name, passthrough, 'unmount')
    }
    this.#layers.delete(name)
    this.#names.delete(layerIdOf(name))
    // The name is valid for ever, unless it is said otherwise; what is below goes with it.
    await session.notify(encodeInvalidateEntry(ROOT_NODE, Buffer.from(name)))
  }

  /** Gives back the page cache's copy of a layer's sparse file; what readers have cached stays. */
  async trim(name: string): Promise<void> {
    const device = this.#layers.get(name)?.session.device(name)
    if (device) dropCache(device.fd)
  }

  /** Lets requests that an earlier process left unanswered come again. Before, those about unknown layers wait. */
  resume(): void {
    this.#bare.session.resume()
    this.#withXattrs.session.resume()
  }

  /** `leave` leaves mounts and descriptors to the next process, if there is a keeper; `unmount` ends both. */
  async close(how: 'leave' | 'unmount'): Promise<void> {
    await Promise.all([this.#bare.close(how), this.#withXattrs.close(how)])
    // The kernel has let go of the copies with the mounts, if those are gone.
    for (const [name, {passthrough}] of this.#layers)
      if (passthrough) closePassthrough(name, passthrough, how)
  }

  /** True while the layer is in a session that serves. */
  #isServed({session}: AddedLayer): boolean {
    return session === this.#bare.session || session === this.#withXattrs.session
  }
}

/** undefined where passthrough is not wanted, or not known to the kernel. */
function passthroughOf(
  {connection}: Session<TreeEntry>,
  name: string,
  {inodes, directory}: {readonly inodes: number; readonly directory: string | undefined},
): Passthrough | undefined {
  if (directory === undefined || !connection.negotiated.passthrough) return undefined
  return openPassthrough(name, {session: connection.fd, inodes, directory, adopted: connection.adopted})
}
