// How the snapshot graph changes: pure checks that turn a request into the one record to write.
// Rules and error codes are those of containerd's core/snapshots/storage.

import {CodedError} from '../errors/coded-error.ts'
import type {Snapshot, SnapshotKind, Usage} from './snapshot.ts'

/** Looks a snapshot up by name. */
export type Lookup = (name: string) => Snapshot | undefined

/** The largest label, key and value together, bytes: containerd's limit. */
const MAX_LABEL_SIZE = 4096

export interface NewSnapshot {
  readonly id: string
  readonly key: string
  readonly parent: string
  readonly kind: Exclude<SnapshotKind, 'committed'>
  readonly labels: Readonly<Record<string, string>>
  readonly now: Date
}

/** A fresh active or view snapshot. Throws `already-exists`, `not-found` (parent), `invalid-argument`. */
export function createSnapshot(lookup: Lookup, request: NewSnapshot): Snapshot {
  const {id, key, parent, kind, labels, now} = request
  checkName(key)
  checkLabels(labels)
  if (lookup(key))
    throw new CodedError('already-exists', `Cannot create snapshot "${key}": it exists already`)
  if (parent !== '') {
    const base = lookup(parent)
    if (!base) {
      throw new CodedError(
        'not-found',
        `Cannot find snapshot "${parent}", the parent of "${key}"; if the snapshotter's data were lost, remove the image and its containers, and pull it again`,
      )
    }
    if (base.kind !== 'committed') {
      throw new CodedError(
        'invalid-argument',
        `Cannot use snapshot "${parent}" as a parent: it is not committed`,
      )
    }
  }
  const usage = {size: 0, inodes: 0}
  return {id, name: key, parent: parent || undefined, kind, labels, createdAt: now, updatedAt: now, usage}
}

export interface CommitRequest {
  readonly key: string
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly usage: Usage
  readonly now: Date
}

/** The committed snapshot that replaces active snapshot `key`. Throws `already-exists`, `failed-precondition`. */
export function commitSnapshot(lookup: Lookup, request: CommitRequest): Snapshot {
  const {key, name, labels, usage, now} = request
  checkName(name)
  checkLabels(labels)
  if (lookup(name))
    throw new CodedError('already-exists', `Cannot commit snapshot "${name}": it exists already`)
  const active = requireSnapshot(lookup, key)
  if (active.kind !== 'active') {
    throw new CodedError(
      'failed-precondition',
      `Cannot commit snapshot "${key}": it is ${active.kind}, not active`,
    )
  }
  return {...active, name, kind: 'committed', labels, usage, createdAt: now, updatedAt: now}
}

/** The snapshot to delete. Throws `not-found`, and `failed-precondition` while it is somebody's parent. */
export function removeSnapshot(lookup: Lookup, name: string, hasChildren: boolean): Snapshot {
  const snapshot = requireSnapshot(lookup, name)
  if (hasChildren) {
    throw new CodedError(
      'failed-precondition',
      `Cannot remove snapshot "${name}": other snapshots are based on it`,
    )
  }
  return snapshot
}

/**
 * The snapshot with labels changed. `paths` are protobuf field paths: `labels`, or `labels.<key>`; none means all
 * labels. Nothing else of a snapshot can be changed: `invalid-argument`.
 */
export function updateSnapshot(
  lookup: Lookup,
  name: string,
  labels: Readonly<Record<string, string>>,
  paths: readonly string[],
  now: Date,
): Snapshot {
  const snapshot = requireSnapshot(lookup, name)
  const whole = paths.length === 0 || paths.includes('labels')
  const changed: Record<string, string> = whole ? {...labels} : {...snapshot.labels}
  for (const path of paths) {
    if (path === 'labels') continue
    if (!path.startsWith('labels.')) {
      throw new CodedError(
        'invalid-argument',
        `Cannot update field "${path}" of snapshot "${name}": only labels can change`,
      )
    }
    const key = path.slice('labels.'.length)
    const value = labels[key]
    if (value === undefined) delete changed[key]
    else changed[key] = value
  }
  checkLabels(changed)
  return {...snapshot, labels: changed, updatedAt: now}
}

/** The snapshot named `name`, or `not-found`. */
export function requireSnapshot(lookup: Lookup, name: string): Snapshot {
  const snapshot = lookup(name)
  if (!snapshot) throw new CodedError('not-found', `Cannot find snapshot "${name}"`)
  return snapshot
}

/** The committed snapshots below `snapshot`, its parent first. Throws `internal` when the graph is broken. */
export function ancestorsOf(lookup: Lookup, snapshot: Snapshot): Snapshot[] {
  const ancestors: Snapshot[] = []
  const seen = new Set<string>()
  for (let name = snapshot.parent; name !== undefined; ) {
    const parent = lookup(name)
    if (!parent || seen.has(name)) {
      throw new CodedError(
        'internal',
        `Cannot follow the parents of snapshot "${snapshot.name}": "${name}" is missing`,
      )
    }
    seen.add(name)
    ancestors.push(parent)
    name = parent.parent
  }
  return ancestors
}

function checkName(name: string): void {
  if (name === '') throw new CodedError('invalid-argument', 'Cannot use an empty snapshot name')
}

function checkLabels(labels: Readonly<Record<string, string>>): void {
  for (const [key, value] of Object.entries(labels)) {
    const size = Buffer.byteLength(key) + Buffer.byteLength(value)
    if (size > MAX_LABEL_SIZE) {
      throw new CodedError(
        'invalid-argument',
        `Cannot use label "${key.slice(0, 40)}": ${size} bytes exceed the limit of ${MAX_LABEL_SIZE}`,
      )
    }
  }
}
