// Images mounted for people to look into. Mount, snapshot and lease have one name: the directory.

import {createLeaseNamed, deleteLease} from '../containerd/session-lease.ts'
import {createSnapshot, mountSnapshot, removeSnapshot} from '../containerd/snapshot-mounts.ts'
import type {ContainerdStore} from '../containerd/store.ts'
import {unpackImage} from '../containerd/unpack.ts'
import {readConfig, readImageTree} from '../image/image-tree.ts'
import {unmountBelow} from '../mount/mounts.ts'
import type {ImageRecord} from '../oci/image-store.ts'
import type {Platform} from '../oci/platform.ts'

export interface MountImageOptions {
  /** An absolute path. */
  readonly target: string
  readonly platform: Platform
  readonly snapshotter: string
  readonly writable: boolean
  readonly signal: AbortSignal
}

/** Mounts an image; whatever fails leaves nothing behind. */
export async function mountImage(
  store: ContainerdStore,
  image: ImageRecord,
  options: MountImageOptions,
): Promise<void> {
  await using undo = new AsyncDisposableStack()
  await mountUnderLease(store, image, {...options, undo})
  // Only now: giving the lease back can fail, too.
  undo.move()
}

async function mountUnderLease(
  store: ContainerdStore,
  image: ImageRecord,
  options: MountImageOptions & {readonly undo: AsyncDisposableStack},
): Promise<void> {
  const {target, snapshotter, writable, signal, undo} = options
  await using _lease = await store.lease({signal})
  const tree = await readImageTree(store.content, image.target, [options.platform], {signal})
  const {manifest} = tree.manifests[0]!
  const config = await readConfig(store.content, manifest, {signal})
  const parent = await unpackImage(store, {snapshotter, manifest, config, signal})
  const mounts = await createSnapshot(store, {snapshotter, key: target, parent, writable, signal})
  undo.defer(() => removeSnapshot(store, snapshotter, target))
  await createLeaseNamed(store.client, target, [{type: `snapshots/${snapshotter}`, id: target}], {signal})
  undo.defer(() => deleteLease(store.client, target))
  await mountSnapshot(mounts, target, {signal})
  undo.defer(() => unmountBelow(target))
}

/** Unmounts a directory; with `remove`, its snapshot goes too. What is gone already is no error. */
export async function unmountImage(
  store: ContainerdStore,
  target: string,
  options: {readonly remove: boolean; readonly snapshotter: string},
): Promise<void> {
  await unmountBelow(target)
  if (!options.remove) return
  await removeSnapshot(store, options.snapshotter, target)
  await deleteLease(store.client, target)
}
