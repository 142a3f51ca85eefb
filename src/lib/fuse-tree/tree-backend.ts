// Layers as directories of the tree file system, bound to where they are wanted.

import {dirname} from 'node:path'
import type {MountableLayer, MountBackend, MountKind} from '../layer/ports.ts'
import {detachAll, findMount} from '../mount/mount-table.ts'
import {requireSeen, type Seen, seenAt} from '../mount/seen-mount.ts'
import {MS_BIND, mount as mountSystem} from '../native/system-calls.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {OpaqueMarks} from './tree-encode.ts'
import type {TreeFileSystem} from './tree-file-system.ts'

/** `opaque`: the extended attributes that overlayfs looks at here. */
export function createTreeBackend(trees: TreeFileSystem, opaque: OpaqueMarks): MountBackend {
  const seen = new Map<string, Seen>()
  /** Until every layer of the last run is mounted: what is mounted then may be taken over. */
  let isRestoring = true

  async function mount(layer: MountableLayer, mountpoint: string, options: CallOptions): Promise<MountKind> {
    const {device} = layer
    const source =
      (await trees.pathOf(device.name)) ??
      (await trees.add({device, tree: await layer.tree(options), opaque, state: () => layer.state()}))
    // It may have outlived the last daemon, unless the file system that it is of has not.
    const [here, there] = [await findMount(mountpoint), await findMount(dirname(source))]
    if (!isRestoring || !trees.adopted || !here || here.device !== there?.device) {
      await detachAll(mountpoint)
      mountSystem({source, target: mountpoint, type: 'none', flags: MS_BIND, data: ''})
    }
    seen.set(mountpoint, await seenAt(mountpoint))
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
    check: async mountpoint => {
      // Noticed here, a file system that is lost is opened anew, and all is mounted again.
      await trees.refresh()
      await requireSeen(mountpoint, seen.get(mountpoint))
    },
    onLost: listener => trees.onLost(listener),
    unmount: async mountpoint => {
      seen.delete(mountpoint)
      await detachAll(mountpoint)
    },
    release: name => trees.remove(name),
    resume: () => {
      isRestoring = false
      trees.resume()
    },
    close: how => trees.close(how),
  }
}
