// The snapshotter: containerd's snapshots service over a graph, directories and a layer mounter.
// A layer that can be mounted lazily becomes a committed snapshot at once; everything else is plain overlayfs.

import pLimit from 'p-limit'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {parseFilters} from './filter.ts'
import {mountsOf} from './mounts.ts'
import type {LayerMounter, SnapshotDirectories, SnapshotLog, SnapshotTable} from './ports.ts'
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
  walk(filters: readonly string[]): Iterable<Snapshot>
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
  readonly overlayOptions: readonly string[]
  readonly log: SnapshotLog
  readonly now: () => Date
}

export function createSnapshotter(options: SnapshotterOptions): Snapshotter {
  const {table, directories, mounter, log, now} = options
  const lookup = (name: string) => table.get(name)
  const oneAtATime = pLimit(1)
  const mountingAgain = new Map<string, Promise<void>>()
  const mountContext = {
    filesOf: (snapshot: Snapshot) => directories.filesOf(snapshot.id),
    workOf: (snapshot: Snapshot) => directories.workOf(snapshot.id),
    overlayOptions: options.overlayOptions,
  }

  async function create(
    kind: 'active' | 'view',
    key: string,
    parent: string,
    labels: Labels,
  ): Promise<Snapshot> {
    const snapshot = createSnapshot(lookup, {id: table.nextId(), key, parent, kind, labels, now: now()})
    // The record comes first: a crash in between leaves a record that can be removed, never a directory mistaken for
    // another snapshot's.
    table.insert(snapshot)
    try {
      const base = snapshot.parent === undefined ? undefined : requireSnapshot(lookup, snapshot.parent)
      await directories.create(snapshot.id, kind, base && directories.filesOf(base.id))
    } catch (error) {
      table.delete(key)
      throw error
    }
    return snapshot
  }

  /** Commits `snapshot` as the lazily mounted layer `target`; throws when it cannot be lazy. */
  async function mountRemote(snapshot: Snapshot, labels: Labels, signal: AbortSignal): Promise<void> {
    const mountpoint = directories.filesOf(snapshot.id)
    log.info({key: snapshot.name}, `preparing filesystem mount at mountpoint=${mountpoint}`)
    await mounter.mount(mountpoint, labels, signal)
  }

  /** A layer that could not be restored, or was lost, is mounted again when it is needed. */
  async function checkLayer(snapshot: Snapshot, signal: AbortSignal): Promise<void> {
    const mountpoint = directories.filesOf(snapshot.id)
    try {
      await mounter.check(mountpoint, snapshot.labels, signal)
    } catch {
      signal.throwIfAborted()
      // Not the caller's signal: others may wait for the same mount.
      const mounting =
        mountingAgain.get(mountpoint) ??
        mounter
          .mount(mountpoint, snapshot.labels, new AbortController().signal)
          .finally(() => mountingAgain.delete(mountpoint))
      mountingAgain.set(mountpoint, mounting)
      await mounting
    }
  }

  async function checkAncestors(ancestors: readonly Snapshot[], signal: AbortSignal): Promise<void> {
    await Promise.all(
      ancestors.filter(isRemote).map(async snapshot => {
        try {
          await checkLayer(snapshot, signal)
        } catch (cause) {
          log.warn({'snapshot-id': snapshot.id, error: describeError(cause)}, 'layer is unavailable')
          throw new CodedError(
            'unavailable',
            `Cannot use layer "${snapshot.id}" (${snapshot.name}): it is unavailable`,
            {cause},
          )
        }
      }),
    )
  }

  async function mountsFor(snapshot: Snapshot, signal: AbortSignal): Promise<MountSpec[]> {
    const ancestors = ancestorsOf(lookup, snapshot)
    await checkAncestors(ancestors, signal)
    return mountsOf(snapshot, ancestors, mountContext)
  }

  /** The mounts of a snapshot that was just made; when there are none to give, it is as if it had not been made. */
  async function mountsForNew(snapshot: Snapshot, signal: AbortSignal): Promise<MountSpec[]> {
    try {
      return await mountsFor(snapshot, signal)
    } catch (error) {
      table.delete(snapshot.name)
      throw error
    }
  }

  async function prepare(
    key: string,
    parent: string,
    labels: Labels,
    signal: AbortSignal,
  ): Promise<MountSpec[]> {
    const target = labels[TARGET_LABEL]
    if (target !== undefined && table.get(target)) throw targetExists(target)
    const snapshot = await create('active', key, parent, labels)
    if (target === undefined) return mountsForNew(snapshot, signal)
    try {
      await mountRemote(snapshot, labels, signal)
    } catch (error) {
      // Not lazy: the caller gets ordinary mounts, and downloads and unpacks the layer itself.
      log.warn(
        {key, 'remote-snapshot-prepared': 'false', parent, error: describeError(error)},
        'failed to prepare remote snapshot',
      )
      return mountsForNew(snapshot, signal)
    }
    // No fallback from here on: the layer is mounted over the directory that a caller would unpack into.
    const committed = {...labels, [REMOTE_LABEL]: REMOTE_LABEL_VALUE}
    try {
      const usage = {size: 0, inodes: 0}
      table.replace(key, commitSnapshot(lookup, {key, name: target, labels: committed, usage, now: now()}))
    } catch (error) {
      await mounter.unmount(directories.filesOf(snapshot.id))
      table.delete(key)
      // Another request prepared the same layer meanwhile; its mount serves both.
      if (!hasCode(error, 'already-exists')) throw error
    }
    log.debug({key, 'remote-snapshot-prepared': 'true', parent}, 'prepared remote snapshot')
    throw targetExists(target)
  }

  async function cleanUp(): Promise<void> {
    // Directories first: one that is made meanwhile has had its record before, and is not seen as nobody's.
    const found = await directories.list()
    const known = new Set([...table.list()].map(snapshot => snapshot.id))
    const problems: unknown[] = []
    for (const id of found) {
      if (known.has(id)) continue
      try {
        await unmountRemote(id)
        await directories.remove(id)
      } catch (error) {
        problems.push(error)
      }
    }
    // After the others: one directory that cannot be removed now is tried again next time, and must not keep the rest.
    if (problems.length > 0) throw problems[0]
  }

  async function unmountRemote(id: string): Promise<void> {
    await mounter.unmount(directories.filesOf(id))
  }

  return {
    prepare,
    view: async (key, parent, labels, signal) =>
      mountsForNew(await create('view', key, parent, labels), signal),
    mounts: async (key, signal) => {
      const snapshot = requireSnapshot(lookup, key)
      requireMountable(snapshot)
      return mountsFor(snapshot, signal)
    },
    commit: async (name, key, labels) => {
      const active = requireSnapshot(lookup, key)
      const usage = await directories.usage(active.id)
      table.replace(key, commitSnapshot(lookup, {key, name, labels, usage, now: now()}))
    },
    remove: async key => {
      removeSnapshot(lookup, key, table.hasChildren(key))
      table.delete(key)
    },
    stat: key => requireSnapshot(lookup, key),
    update: (name, labels, paths) => {
      const kept = table.get(name)
      const wanted = kept && isRemote(kept) ? {...labels, [REMOTE_LABEL]: REMOTE_LABEL_VALUE} : labels
      const updated = updateSnapshot(lookup, name, wanted, paths, now())
      table.replace(name, updated)
      return updated
    },
    walk: function* (filters) {
      const passes = parseFilters(filters)
      for (const snapshot of table.list()) if (passes(snapshot)) yield snapshot
    },
    usage: async key => {
      const snapshot = requireSnapshot(lookup, key)
      return snapshot.kind === 'active' ? directories.usage(snapshot.id) : snapshot.usage
    },
    cleanup: () => oneAtATime(cleanUp),
    restore: async signal => {
      const remote = [...table.list()].filter(isRemote)
      const failed = await Promise.all(
        remote.map(async snapshot => {
          try {
            await mounter.mount(directories.filesOf(snapshot.id), snapshot.labels, signal)
            return []
          } catch (error) {
            log.warn(
              {'snapshot-id': snapshot.id, name: snapshot.name, error: describeError(error)},
              'failed to restore remote snapshot',
            )
            return [snapshot.name]
          }
        }),
      )
      return failed.flat()
    },
    unmountAll: async () => {
      for (const snapshot of [...table.list()].filter(isRemote)) await unmountRemote(snapshot.id)
    },
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
