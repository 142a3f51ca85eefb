// Lazily mounted layers of snapshots: each is mounted at its snapshot's files, checked before anybody gets them, and mounted
// again when it was lost.

import {CodedError, describeError} from '../errors/coded-error.ts'
import type {LayerMounter, SnapshotDirectories, SnapshotLog} from './ports.ts'
import {isRemote, type Snapshot} from './snapshot.ts'

export interface LazyMountsOptions {
  readonly directories: SnapshotDirectories
  readonly mounter: LayerMounter
  readonly log: SnapshotLog
}

export class LazyMounts {
  readonly #directories: SnapshotDirectories
  readonly #mounter: LayerMounter
  readonly #log: SnapshotLog
  /** By mountpoint. */
  readonly #mountingAgain = new Map<string, Promise<void>>()

  constructor({directories, mounter, log}: LazyMountsOptions) {
    this.#directories = directories
    this.#mounter = mounter
    this.#log = log
  }

  /** Mounts the layer that `labels` describe at the snapshot's files; throws when it cannot be lazy. */
  async mount(
    snapshot: Snapshot,
    labels: Readonly<Record<string, string>>,
    signal: AbortSignal,
  ): Promise<void> {
    const mountpoint = this.#directories.filesOf(snapshot.id)
    this.#log.info({key: snapshot.name}, `preparing filesystem mount at mountpoint=${mountpoint}`)
    await this.#mounter.mount(mountpoint, labels, signal)
  }

  /** Says that `ancestors` of a snapshot's are part of the image that `labels` describe. */
  share({id}: Snapshot, labels: Readonly<Record<string, string>>, ancestors: readonly Snapshot[]): void {
    const below = ancestors.filter(isRemote).map(ancestor => this.#directories.filesOf(ancestor.id))
    this.#mounter.share(this.#directories.filesOf(id), labels, below)
  }

  /** Says that a layer is going to be mounted over those of `ancestors`, topmost first. */
  expectStart(labels: Readonly<Record<string, string>>, ancestors: readonly Snapshot[]): void {
    const below = ancestors.filter(isRemote).map(({id}) => this.#directories.filesOf(id))
    this.#mounter.expectStart(below, labels)
  }

  /** Throws `unavailable` unless every lazy one of `snapshots`, topmost first, can be used. */
  async check(snapshots: readonly Snapshot[], signal: AbortSignal): Promise<void> {
    const lazy = snapshots.filter(isRemote)
    await Promise.all(
      lazy.map(async snapshot => {
        try {
          await this.#checkLayer(snapshot, signal)
        } catch (cause) {
          this.#log.warn({'snapshot-id': snapshot.id, error: describeError(cause)}, 'layer is unavailable')
          throw new CodedError(
            'unavailable',
            `Cannot use layer "${snapshot.id}" (${snapshot.name}): it is unavailable`,
            {cause},
          )
        }
      }),
    )
    this.#mounter.expectReads(lazy.map(({id}) => this.#directories.filesOf(id)))
  }

  /** Mounts all lazy ones of `snapshots` after a restart; resolves to the names of those that could not be. */
  async restore(snapshots: Iterable<Snapshot>, signal: AbortSignal): Promise<readonly string[]> {
    const failed = await Promise.all(
      [...snapshots].filter(isRemote).map(async ({id, name, labels}) => {
        try {
          await this.#mounter.mount(this.#directories.filesOf(id), labels, signal)
          return []
        } catch (error) {
          this.#log.warn(
            {'snapshot-id': id, name, error: describeError(error)},
            'failed to restore remote snapshot',
          )
          return [name]
        }
      }),
    )
    return failed.flat()
  }

  /** Unmounts what is mounted for the snapshot `id`, if anything. */
  unmount(id: string): Promise<void> {
    return this.#mounter.unmount(this.#directories.filesOf(id))
  }

  /** A layer that could not be restored, or was lost, is mounted again when it is needed. */
  async #checkLayer({id, labels}: Snapshot, signal: AbortSignal): Promise<void> {
    const mountpoint = this.#directories.filesOf(id)
    try {
      await this.#mounter.check(mountpoint, labels, signal)
    } catch (error) {
      signal.throwIfAborted()
      this.#log.info({mountpoint, error: describeError(error)}, 'mounting a layer again')
      // Not the caller's signal: others may wait for the same mount.
      const mounting =
        this.#mountingAgain.get(mountpoint) ??
        this.#mounter
          .mount(mountpoint, labels, new AbortController().signal)
          .finally(() => this.#mountingAgain.delete(mountpoint))
      this.#mountingAgain.set(mountpoint, mounting)
      await mounting
    }
  }
}
