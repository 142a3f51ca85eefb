// Layers as EROFS mounts: metadata from an image beside the layer, data from the layer's file in the data file system,
// or, once the layer is complete, from the plain file below it, so that no process of ours is involved any more.

import type {MountableLayer, MountBackend, MountKind} from '../layer/ports.ts'
import {mountErofs} from '../mount/mount-erofs.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {DataFileSystem} from './data-files.ts'
import {countMounts, detachAll, findMount} from './mount-table.ts'

export function createErofsBackend(dataFiles: DataFileSystem): MountBackend {
  async function mount(layer: MountableLayer, mountpoint: string, options: CallOptions): Promise<MountKind> {
    const {device} = layer
    const image = await layer.image(options)
    if (dataFiles.adopted && (await findMount(mountpoint))?.type === 'erofs') {
      // It has outlived the last daemon; whether it reads from us cannot be seen, so it may. A second one over it was
      // settled, and the first may still be in use.
      await dataFiles.add(device)
      return (await countMounts(mountpoint)) > 1 ? 'plain' : 'erofs'
    }
    // What may be mounted there reads from a daemon that is gone.
    await detachAll(mountpoint)
    const isComplete = layer.isComplete()
    const data = isComplete ? device.path : await dataFiles.add(device)
    mountErofs({image, data, target: mountpoint})
    return isComplete ? 'plain' : 'erofs'
  }

  /** Over the mount that there is: containers that use that one go on with it. */
  async function settle(layer: MountableLayer, mountpoint: string): Promise<MountKind> {
    const {device} = layer
    const image = await layer.image()
    mountErofs({image, data: device.path, target: mountpoint})
    await dataFiles.trim(device.name)
    return 'plain'
  }

  return {
    wantsImages: true,
    mount,
    settle,
    unmount: detachAll,
    release: name => dataFiles.remove(name),
    resume: () => dataFiles.resume(),
    close: how => dataFiles.close(how),
  }
}
