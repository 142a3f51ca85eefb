// Layers as directories of the tree file system, bound to where they are wanted.

import {dirname} from 'node:path'
import type {MountableLayer, MountBackend, MountKind} from '../layer/ports.ts'
import {MS_BIND, mount as mountSystem} from '../native/system-calls.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {detachAll, findMount} from './mount-table.ts'
import type {OpaqueMarks} from './tree-encode.ts'
import type {TreeFileSystem} from './tree-file-system.ts'

/** `opaque`: the extended attributes that overlayfs looks at here. */
export function createTreeBackend(trees: TreeFileSystem, opaque: OpaqueMarks): MountBackend {
  /** Directories by device. */
  const directories = new Map<string, string>()

  async function directoryOf(layer: MountableLayer, options: CallOptions): Promise<string> {
    const {device, state} = layer
    const known = directories.get(device.name)
    if (known !== undefined) return known
    const directory = await trees.add({device, tree: await layer.tree(options), opaque, state})
    directories.set(device.name, directory)
    return directory
  }

  async function mount(layer: MountableLayer, mountpoint: string, options: CallOptions): Promise<MountKind> {
    const source = await directoryOf(layer, options)
    // It may have outlived the last daemon, unless the file system that it is of has not.
    const [here, there] = [await findMount(mountpoint), await findMount(dirname(source))]
    if (trees.adopted && here && here.device === there?.device) return 'fuse'
    await detachAll(mountpoint)
    mountSystem({source, target: mountpoint, type: 'none', flags: MS_BIND, data: ''})
    return 'fuse'
  }

  return {
    wantsImages: false,
    mount,
    // Nothing to hand over; but what readers have cached, the sparse file below need not have in memory as well.
    settle: async ({device}) => {
      await trees.trim(device.name)
      return 'fuse'
    },
    unmount: detachAll,
    release: async name => {
      directories.delete(name)
      await trees.remove(name)
    },
    resume: () => trees.resume(),
    close: how => trees.close(how),
  }
}
