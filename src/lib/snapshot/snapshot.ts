// The words of containerd's snapshots service (api/services/snapshots/v1): kinds, records, usage, mounts.

/** `view` and `active` snapshots can be mounted; only `committed` ones can be parents. */
export type SnapshotKind = 'view' | 'active' | 'committed'

/** A node of the snapshot graph. */
export interface Snapshot {
  /** Names the directory; never reused, kept when an active snapshot is committed under another name. */
  readonly id: string
  /** The key of an active or view snapshot, the name of a committed one; unique. */
  readonly name: string
  readonly parent: string | undefined
  readonly kind: SnapshotKind
  readonly labels: Readonly<Record<string, string>>
  readonly createdAt: Date
  readonly updatedAt: Date
  /** What a committed snapshot's own directory takes on disk. */
  readonly usage: Usage
}

/** Disk space in bytes, and the number of inodes. */
export interface Usage {
  readonly size: number
  readonly inodes: number
}

/** What a caller hands to mount(2), as containerd's `types.Mount`. */
export interface MountSpec {
  readonly type: string
  readonly source: string
  readonly options: readonly string[]
}

/** Labels that steer a snapshotter. */
export const TARGET_LABEL = 'containerd.io/snapshot.ref'
/** Our mark on a snapshot whose directory is a lazily mounted layer; value and key are the reference's. */
export const REMOTE_LABEL = 'containerd.io/snapshot/remote'
export const REMOTE_LABEL_VALUE = 'remote snapshot'

export function isRemote(snapshot: Snapshot): boolean {
  return REMOTE_LABEL in snapshot.labels
}
