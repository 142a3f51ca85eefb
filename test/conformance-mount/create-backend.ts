// Either backend, and layers as it takes them, for whichever process serves them.

import {writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {encodeErofs} from '../../src/lib/erofs/encode-image.ts'
import type {FuseLog} from '../../src/lib/fuse/fuse-log.ts'
import type {Keeper} from '../../src/lib/fuse/keeper.ts'
import {openDataFileSystem} from '../../src/lib/fuse-data/data-files.ts'
import {createErofsBackend} from '../../src/lib/fuse-data/erofs-backend.ts'
import {createTreeBackend} from '../../src/lib/fuse-tree/tree-backend.ts'
import type {OpaqueMarks} from '../../src/lib/fuse-tree/tree-encode.ts'
import {TreeFileSystem} from '../../src/lib/fuse-tree/tree-file-system.ts'
import type {MountableLayer, MountBackend} from '../../src/lib/layer/ports.ts'
import type {SampleDevice} from './sample-device.ts'
import type {SampleLayer} from './sample-layer.ts'

export type BackendKind = 'erofs' | 'fuse'

export interface BackendSettings {
  readonly directory: string
  readonly opaque?: OpaqueMarks | undefined
  readonly keeper?: Keeper | undefined
  readonly deadlineMs?: number | undefined
  readonly log: FuseLog
}

export async function createBackend(kind: BackendKind, settings: BackendSettings): Promise<MountBackend> {
  const {directory, keeper, deadlineMs = 20_000, log, opaque = 'trusted'} = settings
  const options = {mountpoint: join(directory, 'fuse'), keeper, deadlineMs, log}
  return kind === 'erofs'
    ? createErofsBackend(await openDataFileSystem({...options, mountsBelow: directory}))
    : createTreeBackend(await TreeFileSystem.open(options), opaque)
}

/** A layer whose files beside its data are below `directory`. */
export function mountableLayer(
  directory: string,
  layer: SampleLayer,
  device: SampleDevice,
): Pick<MountableLayer, keyof MountableLayer> {
  return {
    device,
    state: () => ({
      digest: digestOf(Buffer.from(device.name)),
      size: layer.size,
      fetchedSize: 4096 * device.presentBlocks(),
      error: undefined,
    }),
    image: async () => {
      const path = join(directory, `${device.name}.erofs`)
      await writeFile(path, encodeErofs(layer.root, {blockSize: 4096, dataSize: device.size}))
      return path
    },
    isOptimized: false,
    hasPlan: false,
    isComplete: () => device.presentBlocks() === layer.size / 4096,
    tree: async () => layer.root,
  }
}

/** As the product names devices: digits of a digest. */
export function deviceName(name: string): string {
  return digestOf(Buffer.from(name)).slice('sha256:'.length)
}
