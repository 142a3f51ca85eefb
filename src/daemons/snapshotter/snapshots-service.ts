// containerd's snapshots service over a `Snapshotter`: messages to arguments, snapshots to messages.

import type {MessageInitShape} from '@bufbuild/protobuf'
import {timestampFromDate} from '@bufbuild/protobuf/wkt'
import {type InfoSchema, Snapshots} from '../../lib/containerd/proto/snapshots_pb.ts'
import type {MountSchema} from '../../lib/containerd/proto/types_pb.ts'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {MountSpec, Snapshot, SnapshotKind} from '../../lib/snapshot/snapshot.ts'
import type {Snapshotter} from '../../lib/snapshot/snapshotter.ts'
import type {GrpcServer} from '../grpc-server.ts'

/** Snapshots in one message of a list, as containerd sends them. */
const LIST_BATCH = 100

/** snapshots.proto, `enum Kind`. */
const KINDS: Readonly<Record<SnapshotKind, number>> = {view: 1, active: 2, committed: 3}

/** Adds `containerd.services.snapshots.v1.Snapshots` to a server. */
export function serveSnapshots(server: GrpcServer, snapshotter: Snapshotter): void {
  server.add(Snapshots, {
    prepare: async ({key, parent, labels}, {signal}) => ({
      mounts: (await snapshotter.prepare(key, parent, labels, signal)).map(mountMessage),
    }),
    view: async ({key, parent, labels}, {signal}) => ({
      mounts: (await snapshotter.view(key, parent, labels, signal)).map(mountMessage),
    }),
    mounts: async ({key}, {signal}) => ({
      mounts: (await snapshotter.mounts(key, signal)).map(mountMessage),
    }),
    commit: async ({name, key, labels}) => {
      await snapshotter.commit(name, key, labels)
      return {}
    },
    remove: async ({key}) => {
      await snapshotter.remove(key)
      return {}
    },
    stat: async ({key}) => ({info: infoMessage(snapshotter.stat(key))}),
    update: async ({info, updateMask}) => {
      if (!info) throw new CodedError('invalid-argument', 'Cannot update a snapshot without its info')
      return {info: infoMessage(snapshotter.update(info.name, info.labels, updateMask?.paths ?? []))}
    },
    list: async function* ({filters}) {
      let batch: MessageInitShape<typeof InfoSchema>[] = []
      for (const snapshot of snapshotter.walk(filters)) {
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
