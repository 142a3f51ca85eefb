// Layers as EROFS mounts: metadata from an image beside the layer, data from the layer's file in the data file system,
// or, once the layer is complete, from the plain file below it, so that no process of ours is involved any more.

import type {MountableLayer, MountBackend, MountKind} from '../layer/ports.ts'
import {EXACT_READ_AHEAD_KB, mountErofs} from '../mount/mount-erofs.ts'
import {countMounts, detachAll, findMount} from '../mount/mount-table.ts'
import {lostMount, requireSeen, type Seen, seenAt} from '../mount/seen-mount.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {DataFileSystem} from './data-files.ts'

export function createErofsBackend(dataFiles: DataFileSystem): MountBackend {
  const made = new Map<string, Made>()
  /** Until every layer of the last run is mounted: what is mounted then may be taken over. */
  let isRestoring = true

  /** Notes what is mounted at `mountpoint` now. */
  async function note(mountpoint: string, kind: MountKind): Promise<MountKind> {
    const generation = kind === 'plain' ? undefined : await dataFiles.generation()
    made.set(mountpoint, {generation, seen: await seenAt(mountpoint)})
    return kind
  }

  async function mount(layer: MountableLayer, mountpoint: string, options: CallOptions): Promise<MountKind> {
    const {device} = layer
    const image = await layer.image(options)
    if (isRestoring && dataFiles.adopted && (await findMount(mountpoint))?.type === 'erofs') {
      // It has outlived the last daemon; whether it reads from us cannot be seen, so it may. A second one over it was
      // settled, and the first may still be in use.
      await dataFiles.add(device)
      return note(mountpoint, (await countMounts(mountpoint)) > 1 ? 'plain' : 'erofs')
    }
    // What may be mounted there reads from a daemon that is gone, or is not ours.
    await detachAll(mountpoint)
    const isComplete = layer.isComplete()
    const data = isComplete ? device.path : await dataFiles.add(device)
    // The kernel opens the file now, and goes by what holds now.
    dataFiles.readAhead(layer.isOptimized && !layer.hasPlan ? 'optimized' : 'others')
    const readAheadKb = layer.hasPlan && !isComplete ? EXACT_READ_AHEAD_KB : undefined
    mountErofs({image, data, target: mountpoint, readAheadKb})
    return note(mountpoint, isComplete ? 'plain' : 'erofs')
  }

  /** Over the mount that there is: containers that use that one go on with it. */
  async function settle(layer: MountableLayer, mountpoint: string): Promise<MountKind> {
    const {device} = layer
    const image = await layer.image()
    mountErofs({image, data: device.path, target: mountpoint})
    await note(mountpoint, 'plain')
    await dataFiles.trim(device.name)
    return 'plain'
  }

  async function check(mountpoint: string): Promise<void> {
    const {seen, generation} = made.get(mountpoint) ?? {}
    if (generation !== undefined && generation !== (await dataFiles.generation())) throw lostMount(mountpoint)
    await requireSeen(mountpoint, seen)
  }

  return {
    wantsImages: true,
    mount,
    settle,
    check,
    onLost: listener => dataFiles.onLost(listener),
    unmount: async mountpoint => {
      made.delete(mountpoint)
      await detachAll(mountpoint)
    },
    release: name => dataFiles.remove(name),
    resume: () => {
      isRestoring = false
      dataFiles.resume()
    },
    close: how => dataFiles.close(how),
  }
}

/** A mount as it was made. */
interface Made {
  /** Of the data files that it reads from; undefined when it reads from a plain file. */
  readonly generation: number | undefined
  readonly seen: Seen
}
