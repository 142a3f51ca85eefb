// containerd's snapshots service over a `Snapshotter`: messages to arguments, snapshots to messages.

import {setImmediate} from 'node:timers/promises'
import type {MessageInitShape} from '@bufbuild/protobuf'
import {timestampFromDate} from '@bufbuild/protobuf/wkt'
import pLimit from 'p-limit'
import {type InfoSchema, Snapshots} from '../../lib/containerd/proto/snapshots_pb.ts'
import type {MountSchema} from '../../lib/containerd/proto/types_pb.ts'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {MountSpec, Snapshot, SnapshotKind} from '../../lib/snapshot/snapshot.ts'
import type {Snapshotter} from '../../lib/snapshot/snapshotter.ts'
import type {GrpcServer} from '../process/grpc-server.ts'

/** Snapshots in one message of a list, as containerd sends them. */
const LIST_BATCH = 100

/** snapshots.proto, `enum Kind`. */
const KINDS: Readonly<Record<SnapshotKind, number>> = {view: 1, active: 2, committed: 3}

export interface SnapshotsServiceOptions {
  /** Called before a process is given mounts. */
  readonly onCaller: (caller: number | undefined) => Promise<void>
  /** Called when the snapshot that labels describe has been prepared, or could not be. */
  readonly onPrepared?: (labels: Readonly<Record<string, string>>, durationMs: number) => void
}

/** Adds `containerd.services.snapshots.v1.Snapshots` to a server. */
export function serveSnapshots(
  server: GrpcServer,
  snapshotter: Snapshotter,
  {onCaller, onPrepared}: SnapshotsServiceOptions,
): void {
  // Each change waits for the disk, in the only thread: a burst of them must not keep others, a new connection's handshake
  // among them, waiting until all are done.
  const oneAtATime = pLimit(1)
  const turn = () => oneAtATime(() => setImmediate())
  server.add(Snapshots, {
    prepare: async ({key, parent, labels}, {signal, caller}) => {
      const started = performance.now()
      try {
        await onCaller(caller)
        await turn()
        return {mounts: (await snapshotter.prepare(key, parent, labels, signal)).map(mountMessage)}
      } finally {
        onPrepared?.(labels, performance.now() - started)
      }
    },
    view: async ({key, parent, labels}, {signal, caller}) => {
      await onCaller(caller)
      await turn()
      return {mounts: (await snapshotter.view(key, parent, labels, signal)).map(mountMessage)}
    },
    mounts: async ({key}, {signal, caller}) => {
      await onCaller(caller)
      return {mounts: (await snapshotter.mounts(key, signal)).map(mountMessage)}
    },
    commit: async ({name, key, labels}) => {
      await turn()
      await snapshotter.commit(name, key, labels)
      return {}
    },
    remove: async ({key}) => {
      await turn()
      await snapshotter.remove(key)
      return {}
    },
    stat: async ({key}) => ({info: infoMessage(snapshotter.stat(key))}),
    update: async ({info, updateMask}) => {
      await turn()
      if (!info) throw new CodedError('invalid-argument', 'Cannot update a snapshot without its info')
      return {info: infoMessage(snapshotter.update(info.name, info.labels, updateMask?.paths ?? []))}
    },
    list: async function* ({filters}) {
      let batch: MessageInitShape<typeof InfoSchema>[] = []
      for await (const snapshot of snapshotter.walk(filters)) {
        batch.push(infoMessage(snapshot))
        if (batch.length < LIST_BATCH) continue
        yield {info: batch}
        batch = []
      }
      if (batch.length > 0) yield {info: batch}
    },
    usage: async ({key}) => {
      const {size, inodes} = await snapshotter.usage(key)
      return {size: BigInt(size), inodes: BigInt(inodes)}
    },
    cleanup: async () => {
      await snapshotter.cleanup()
      return {}
    },
  })
}

function mountMessage({type, source, options}: MountSpec): MessageInitShape<typeof MountSchema> {
  return {type, source, options: [...options]}
}

function infoMessage(snapshot: Snapshot): MessageInitShape<typeof InfoSchema> {
  const {name, parent, kind, createdAt, updatedAt, labels} = snapshot
  return {
    name,
    parent: parent ?? '',
    kind: KINDS[kind],
    createdAt: timestampFromDate(createdAt),
    updatedAt: timestampFromDate(updatedAt),
    labels: {...labels},
  }
}
