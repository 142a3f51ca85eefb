// What a snapshotter needs from outside: a table of snapshots, directories, and something that mounts layers.

import type {Snapshot, Usage} from './snapshot.ts'

/**
 * The table of snapshots, durable once a call returns. Calls are synchronous, so that a check and the write that
 * depends on it cannot be interleaved with another request's.
 */
export interface SnapshotTable {
  get(name: string): Snapshot | undefined
  /** True while some snapshot has `name` as its parent. */
  hasChildren(name: string): boolean
  list(): Iterable<Snapshot>
  /** A fresh id; never one that was used before, so that directories cannot be mixed up. */
  nextId(): string
  insert(snapshot: Snapshot): void
  /** Replaces the snapshot named `name`, which may change its name. */
  replace(name: string, snapshot: Snapshot): void
  delete(name: string): void
}

/** Directories of snapshots, by id. */
export interface SnapshotDirectories {
  filesOf(id: string): string
  workOf(id: string): string
  /** Makes a snapshot's directories; the owner and mode of `like` (a parent's files), where given, are taken over. */
  create(id: string, kind: 'active' | 'view', like: string | undefined): Promise<void>
  remove(id: string): Promise<void>
  /** Ids that have a directory. */
  list(): Promise<readonly string[]>
  usage(id: string): Promise<Usage>
}

/**
 * Mounts a lazily readable layer. It decides from a snapshot's labels alone whether and how a layer is lazy; this
 * package knows no image format.
 */
export interface LayerMounter {
  /**
   * Makes the layer that `labels` describe readable at `mountpoint`, or throws why it cannot be lazy. A mount that is there
   * from an earlier run is taken over, or replaced.
   */
  mount(mountpoint: string, labels: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void>
  /** Resolves when the layer at `mountpoint` can be used; throws `unavailable` when it cannot. */
  check(mountpoint: string, labels: Readonly<Record<string, string>>, signal: AbortSignal): Promise<void>
  unmount(mountpoint: string): Promise<void>
  /**
   * Says that what is mounted at `below` is part of the image that `labels` describe, too, as long as `mountpoint` is there:
   * it may be had from there when the image that brought it is gone. Labels that describe none say nothing.
   */
  share(mountpoint: string, labels: Readonly<Record<string, string>>, below: readonly string[]): void
  /**
   * Says that the layer that `labels` describe is going to be mounted over those at `below`, topmost first, so that a container
   * of its image is likely to start soon.
   */
  expectStart(below: readonly string[], labels: Readonly<Record<string, string>>): void
  /** Says that whoever asked has been given what is mounted, topmost first, as a root file system. */
  expectReads(mountpoints: readonly string[]): void
}

/** What a snapshotter tells its log. */
export interface SnapshotLog {
  info(fields: Readonly<Record<string, unknown>>, message: string): void
  warn(fields: Readonly<Record<string, unknown>>, message: string): void
  debug(fields: Readonly<Record<string, unknown>>, message: string): void
}

/** The disk that snapshots and layers are on. */
export interface SnapshotDisk {
  /** Called when it is full: frees what can be had again. */
  makeRoom(): Promise<void>
  /** Called when snapshots are gone: what was kept for them alone may go, as far as the limits ask. */
  tidy(): Promise<void>
}
