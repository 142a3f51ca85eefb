// Bringing the kubelet's images into another snapshotter before pods are switched to it.

import type {ConnectOptions} from '../containerd/client.ts'
import {type ContainerdStore, openContainerdStore} from '../containerd/store.ts'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {readConfig, readImageTree} from '../image/image-tree.ts'
import {hostPlatform} from '../oci/platform.ts'
import {openRemoteSnapshotter} from '../rpull/remote-snapshotter.ts'
import {findMissingImages, KUBERNETES, type MissingImage} from './missing-images.ts'

export interface MoveImagesOptions extends ConnectOptions {
  /** Where they are to be. */
  readonly snapshotter: string
  readonly pauseImage: string | undefined
  readonly signal: AbortSignal
  /** Told of each that has been brought. */
  readonly onImage: (name: string) => void
}

/**
 * Brings what the snapshotter does not have: from containerd's content where that is complete, else by `pull`, which is told the
 * name. Throws `failed-precondition` with all that could not be brought.
 */
export async function bringImages(
  options: MoveImagesOptions & {readonly pull: (name: string) => Promise<void>},
): Promise<void> {
  const {snapshotter, signal, pull, onImage} = options
  await using store = await openContainerdStore({...options, namespace: KUBERNETES})
  await using _lease = await store.lease({signal})
  const {missing} = await findMissingImages(store, options)
  const failed: string[] = []
  for (const image of missing) {
    const {name} = image.record
    try {
      if (image.isComplete) await unpack(store, image, options)
      else await pull(name)
      onImage(name)
    } catch (error) {
      signal.throwIfAborted()
      failed.push(`"${name}" (${describeError(error)})`)
    }
  }
  if (failed.length === 0) return
  throw new CodedError(
    'failed-precondition',
    `Cannot bring into "${snapshotter}" what the kubelet has: ${failed.join(', ')}. Make their registry reachable from here (ctr-remote uses docker's credentials of this user), or remove them with "crictl rmi", and try again`,
  )
}

/**
 * The way back: what the snapshotter does not have is unpacked where its layers are here; else its name is taken away, so that
 * the kubelet pulls it again. Resolves to the names that were.
 */
export async function bringBackImages(options: MoveImagesOptions): Promise<string[]> {
  const {signal, onImage} = options
  await using store = await openContainerdStore({...options, namespace: KUBERNETES})
  await using _lease = await store.lease({signal})
  const {missing} = await findMissingImages(store, options)
  const forgotten: string[] = []
  for (const image of missing) {
    if (image.isComplete) {
      await unpack(store, image, options)
      onImage(image.record.name)
    } else {
      await forget(store, image, signal)
      forgotten.push(image.record.name)
    }
  }
  return forgotten
}

async function unpack(
  store: ContainerdStore,
  {record}: MissingImage,
  {snapshotter, signal}: MoveImagesOptions,
): Promise<void> {
  const tree = await readImageTree(store.content, record.target, [hostPlatform()], {signal})
  const {manifest} = tree.manifests[0]!
  const config = await readConfig(store.content, manifest, {signal})
  const snapshots = await openRemoteSnapshotter(store, {name: snapshotter, reference: record.name, signal})
  await snapshots.unpack({manifest, config, signal})
}

/** All names of the image: the kubelet finds it by any of them. */
async function forget(store: ContainerdStore, {record}: MissingImage, signal: AbortSignal): Promise<void> {
  for (const {name, target} of await store.images.list({signal})) {
    if (target.digest !== record.target.digest) continue
    await store.images.remove(name, {signal}).catch(error => {
      if (!hasCode(error, 'not-found')) throw error
    })
  }
}
