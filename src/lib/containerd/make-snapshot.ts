// Prepare and View of containerd's snapshots service, also after a containerd that was killed.

import {messageOf} from '../errors/coded-error.ts'
import type {ClientCallOptions, ContainerdClient} from './client.ts'
import type {Labels} from './gc-labels.ts'
import {Snapshots} from './proto/snapshots_pb.ts'
import type {Mount} from './proto/types_pb.ts'

export interface SnapshotRequest {
  readonly snapshotter: string
  readonly key: string
  /** The chain id that it starts from; empty for the first layer. */
  readonly parent: string
  readonly labels: Labels
}

/**
 * A containerd that is killed after it made a snapshot's directory, and before that is in its database, gives the number
 * to the next snapshot too, and finds the directory in its way. It removes it as it fails: the second try is free.
 */
const LEFT_BY_A_KILLED_ONE = /failed to rename: .*: file exists/

/** Makes an active snapshot, or a view, and resolves to its mounts. Throws `already-exists` for a key in use. */
export async function makeSnapshot(
  client: ContainerdClient,
  kind: 'prepare' | 'view',
  request: SnapshotRequest,
  options: ClientCallOptions,
): Promise<readonly Mount[]> {
  const make = async () =>
    kind === 'prepare'
      ? await client.call(Snapshots.method.prepare, request, options)
      : await client.call(Snapshots.method.view, request, options)
  try {
    return (await make()).mounts
  } catch (error) {
    if (!LEFT_BY_A_KILLED_ONE.test(messageOf(error))) throw error
    return (await make()).mounts
  }
}
