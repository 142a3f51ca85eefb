// Which mounts make a snapshot visible: binds where one directory is enough, overlayfs otherwise.

import type {MountSpec, Snapshot} from './snapshot.ts'

/** Where a snapshot's files are, and what the kernel's overlayfs wants to be told. */
export interface MountContext {
  /** The directory of a snapshot's own files. */
  readonly filesOf: (snapshot: Snapshot) => string
  /** overlayfs's work directory of an active snapshot. */
  readonly workOf: (snapshot: Snapshot) => string
  /** Options for every overlay mount: `index=off`, and `userxattr` in a user namespace. */
  readonly overlayOptions: readonly string[]
}

/** The mounts of an active or view snapshot over `ancestors`, its parent first. */
export function mountsOf(
  snapshot: Snapshot,
  ancestors: readonly Snapshot[],
  context: MountContext,
): MountSpec[] {
  const access = snapshot.kind === 'view' ? 'ro' : 'rw'
  const [parent] = ancestors
  if (!parent) return [bind(context.filesOf(snapshot), access)]
  if (snapshot.kind === 'view' && ancestors.length === 1) return [bind(context.filesOf(parent), 'ro')]
  const writable =
    snapshot.kind === 'active'
      ? [`workdir=${context.workOf(snapshot)}`, `upperdir=${context.filesOf(snapshot)}`]
      : []
  const lower = ancestors.map(context.filesOf).join(':')
  return [
    {
      type: 'overlay',
      source: 'overlay',
      options: [...context.overlayOptions, ...writable, `lowerdir=${lower}`],
    },
  ]
}

function bind(source: string, access: 'ro' | 'rw'): MountSpec {
  return {type: 'bind', source, options: [access, 'rbind']}
}
