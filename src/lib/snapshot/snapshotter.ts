// The snapshotter: containerd's snapshots service over a graph, directories and a layer mounter.
// A layer that can be mounted lazily becomes a committed snapshot at once; everything else is plain overlayfs.

import pLimit from 'p-limit'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {parseFilters} from './filter.ts'
import {LazyMounts} from './lazy-mounts.ts'
import {type MountContext, mountsOf} from './mounts.ts'
import type {LayerMounter, SnapshotDirectories, SnapshotDisk, SnapshotLog, SnapshotTable} from './ports.ts'
import {
  isRemote,
  type MountSpec,
  REMOTE_LABEL,
  REMOTE_LABEL_VALUE,
  type Snapshot,
  type SnapshotKind,
  TARGET_LABEL,
  type Usage,
} from './snapshot.ts'
import {
  ancestorsOf,
  commitSnapshot,
  createSnapshot,
  removeSnapshot,
  requireSnapshot,
  updateSnapshot,
} from './transitions.ts'

type Labels = Readonly<Record<string, string>>

/** containerd's snapshots service, without gRPC. Errors are `CodedError`s. */
export interface Snapshotter {
  prepare(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<MountSpec[]>
  view(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<MountSpec[]>
  mounts(key: string, signal: AbortSignal): Promise<MountSpec[]>
  commit(name: string, key: string, labels: Labels): Promise<void>
  /** Forgets a snapshot; its directory goes with the next `cleanup`. */
  remove(key: string): Promise<void>
  stat(key: string): Snapshot
  update(name: string, labels: Labels, paths: readonly string[]): Snapshot
  walk(filters: readonly string[]): AsyncIterable<Snapshot>
  usage(key: string): Promise<Usage>
  /** Unmounts and deletes the directories of snapshots that are gone. */
  cleanup(): Promise<void>
  /** Makes every lazily mounted layer readable again after a restart; resolves to the names that could not be. */
  restore(signal: AbortSignal): Promise<readonly string[]>
  /** Unmounts every lazily mounted layer, leaving the snapshots known. */
  unmountAll(): Promise<void>
}

export interface SnapshotterOptions {
  readonly table: SnapshotTable
  readonly directories: SnapshotDirectories
  readonly mounter: LayerMounter
  readonly disk: SnapshotDisk
  readonly overlayOptions: readonly string[]
  readonly log: SnapshotLog
  readonly now: () => Date
}

export function createSnapshotter(options: SnapshotterOptions): Snapshotter {
  return new TableSnapshotter(options)
}

class TableSnapshotter implements Snapshotter {
  readonly #table: SnapshotTable
  readonly #directories: SnapshotDirectories
  readonly #disk: SnapshotDisk
  readonly #lazy: LazyMounts
  readonly #mountContext: MountContext
  readonly #log: SnapshotLog
  readonly #now: () => Date
  readonly #oneCleanupAtATime = pLimit(1)

  constructor({table, directories, mounter, disk, overlayOptions, log, now}: SnapshotterOptions) {
    this.#table = table
    this.#directories = directories
    this.#disk = disk
    this.#log = log
    this.#now = now
    this.#lazy = new LazyMounts({directories, mounter, log})
    this.#mountContext = {
      filesOf: ({id}) => directories.filesOf(id),
      workOf: ({id}) => directories.workOf(id),
      overlayOptions,
    }
  }

  async prepare(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<MountSpec[]> {
    const target = labels[TARGET_LABEL]
    if (target === undefined)
      return this.#mountsForNew(await this.#create('active', key, parent, labels), signal)
    this.#requireNoTarget(target, labels)
    const snapshot = await this.#create('active', key, parent, labels)
    const ancestors = ancestorsOf(this.#lookup, snapshot)
    this.#lazy.share(snapshot, labels, ancestors)
    this.#lazy.expectStart(labels, ancestors)
    try {
      await this.#lazy.mount(snapshot, labels, signal)
    } catch (error) {
      // Not lazy: the caller gets ordinary mounts, and downloads and unpacks the layer itself.
      this.#log.warn(
        {key, 'remote-snapshot-prepared': 'false', parent, error: describeError(error)},
        'failed to prepare remote snapshot',
      )
      return this.#mountsForNew(snapshot, signal)
    }
    await this.#commitLazy(snapshot, target, labels)
    this.#log.debug({key, 'remote-snapshot-prepared': 'true', parent}, 'prepared remote snapshot')
    throw targetExists(target)
  }

  async view(key: string, parent: string, labels: Labels, signal: AbortSignal): Promise<MountSpec[]> {
    return this.#mountsForNew(await this.#create('view', key, parent, labels), signal)
  }

  async mounts(key: string, signal: AbortSignal): Promise<MountSpec[]> {
    const snapshot = requireSnapshot(this.#lookup, key)
    requireMountable(snapshot)
    return this.#mountsFor(snapshot, signal)
  }

  async commit(name: string, key: string, labels: Labels): Promise<void> {
    const active = requireSnapshot(this.#lookup, key)
    const usage = await this.#directories.usage(active.id)
    const committed = commitSnapshot(this.#lookup, {key, name, labels, usage, now: this.#now()})
    this.#table.replace(key, committed)
  }

  async remove(key: string): Promise<void> {
    removeSnapshot(this.#lookup, key, this.#table.hasChildren(key))
    this.#table.delete(key)
  }

  stat(key: string): Snapshot {
    return requireSnapshot(this.#lookup, key)
  }

  update(name: string, labels: Labels, paths: readonly string[]): Snapshot {
    const kept = this.#table.get(name)
    const wanted = kept && isRemote(kept) ? {...labels, [REMOTE_LABEL]: REMOTE_LABEL_VALUE} : labels
    const updated = updateSnapshot(this.#lookup, name, wanted, paths, this.#now())
    this.#table.replace(name, updated)
    return updated
  }

  async *walk(filters: readonly string[]): AsyncIterable<Snapshot> {
    const passes = await parseFilters(filters)
    for (const snapshot of this.#table.list()) if (passes(snapshot)) yield snapshot
  }

  async usage(key: string): Promise<Usage> {
    const snapshot = requireSnapshot(this.#lookup, key)
    return snapshot.kind === 'active' ? this.#directories.usage(snapshot.id) : snapshot.usage
  }

  cleanup(): Promise<void> {
    return this.#oneCleanupAtATime(() => this.#cleanUp())
  }

  async restore(signal: AbortSignal): Promise<readonly string[]> {
    const snapshots = [...this.#table.list()]
    for (const snapshot of snapshots) this.#share(snapshot)
    return await this.#lazy.restore(snapshots, signal)
  }

  async unmountAll(): Promise<void> {
    for (const snapshot of [...this.#table.list()].filter(isRemote)) await this.#lazy.unmount(snapshot.id)
  }

  #share(snapshot: Snapshot): void {
    try {
      this.#lazy.share(snapshot, snapshot.labels, ancestorsOf(this.#lookup, snapshot))
    } catch (error) {
      // Whoever uses a snapshot whose parents are lost hears of it.
      if (!hasCode(error, 'internal')) throw error
    }
  }

  readonly #lookup = (name: string): Snapshot | undefined => this.#table.get(name)

  async #create(kind: 'active' | 'view', key: string, parent: string, labels: Labels): Promise<Snapshot> {
    const request = {id: this.#table.nextId(), key, parent, kind, labels, now: this.#now()}
    const snapshot = createSnapshot(this.#lookup, request)
    // The record comes first: a crash in between leaves a record that can be removed, never a directory mistaken for
    // another snapshot's.
    this.#table.insert(snapshot)
    try {
      await this.#makeDirectories(snapshot, kind)
    } catch (error) {
      this.#table.delete(key)
      throw error
    }
    return snapshot
  }

  async #makeDirectories({id, parent}: Snapshot, kind: 'active' | 'view'): Promise<void> {
    const base = parent === undefined ? undefined : requireSnapshot(this.#lookup, parent)
    const like = base && this.#directories.filesOf(base.id)
    try {
      await this.#directories.create(id, kind, like)
    } catch (error) {
      if (!hasCode(error, 'unavailable')) throw error
      // The disk is full, and layers are there to be fetched again.
      await this.#disk.makeRoom()
      await this.#directories.create(id, kind, like)
    }
  }

  /**
   * Commits `snapshot`, whose files are mounted lazily, as `target`. There is no fallback: the layer is mounted over the
   * directory that a caller would unpack into.
   */
  async #commitLazy(snapshot: Snapshot, target: string, labels: Labels): Promise<void> {
    const {name: key, id} = snapshot
    const committed = {...labels, [REMOTE_LABEL]: REMOTE_LABEL_VALUE}
    const request = {key, name: target, labels: committed, usage: {size: 0, inodes: 0}, now: this.#now()}
    try {
      this.#table.replace(key, commitSnapshot(this.#lookup, request))
    } catch (error) {
      await this.#lazy.unmount(id)
      this.#table.delete(key)
      // Another request prepared the same layer meanwhile; its mount serves both.
      if (!hasCode(error, 'already-exists')) throw error
    }
  }

  async #mountsFor(snapshot: Snapshot, signal: AbortSignal): Promise<MountSpec[]> {
    const ancestors = ancestorsOf(this.#lookup, snapshot)
    await this.#lazy.check(ancestors, signal)
    return mountsOf(snapshot, ancestors, this.#mountContext)
  }

  /** The mounts of a snapshot that was just made; when there are none to give, it is as if it had not been made. */
  async #mountsForNew(snapshot: Snapshot, signal: AbortSignal): Promise<MountSpec[]> {
    try {
      return await this.#mountsFor(snapshot, signal)
    } catch (error) {
      this.#table.delete(snapshot.name)
      throw error
    }
  }

  #requireNoTarget(target: string, labels: Labels): void {
    const known = this.#table.get(target)
    if (!known) return
    this.#lazy.share(known, labels, [known, ...ancestorsOf(this.#lookup, known)])
    throw targetExists(target)
  }

  async #cleanUp(): Promise<void> {
    // Directories first: one that is made meanwhile has had its record before, and is not seen as nobody's.
    const found = await this.#directories.list()
    const known = new Set([...this.#table.list()].map(snapshot => snapshot.id))
    const problems: unknown[] = []
    for (const id of found) {
      if (known.has(id)) continue
      try {
        await this.#lazy.unmount(id)
        await this.#directories.remove(id)
      } catch (error) {
        problems.push(error)
      }
    }
    await this.#disk.tidy()
    // After the others: one directory that cannot be removed now is tried again next time, and must not keep the rest.
    if (problems.length > 0) throw problems[0]
  }
}

/** How a remote snapshotter says "done, do not download": containerd looks for this code. */
function targetExists(target: string): CodedError {
  return new CodedError('already-exists', `Target snapshot "${target}" exists`)
}

function requireMountable(
  snapshot: Snapshot,
): asserts snapshot is Snapshot & {kind: Exclude<SnapshotKind, 'committed'>} {
  if (snapshot.kind === 'committed') {
    throw new CodedError('failed-precondition', `Cannot mount snapshot "${snapshot.name}": it is committed`)
  }
}
