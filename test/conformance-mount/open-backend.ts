// Either backend over a directory of its own, for tests: mounts sample layers at places below it, and takes everything
// down when the test ends.

import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {onTestFinished} from 'vitest'
import {openDataFileSystem} from '../../src/lib/fuse/data-files.ts'
import {createErofsBackend} from '../../src/lib/fuse/erofs-backend.ts'
import type {Keeper} from '../../src/lib/fuse/keeper.ts'
import {createTreeBackend} from '../../src/lib/fuse/tree-backend.ts'
import type {OpaqueMarks} from '../../src/lib/fuse/tree-encode.ts'
import {openTreeFileSystem} from '../../src/lib/fuse/tree-file-system.ts'
import {digestOf} from '../../src/lib/io/sha256.ts'
import type {MountBackend} from '../../src/lib/layer/ports.ts'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {createSampleDevice, type SampleDevice} from './sample-device.ts'
import type {SampleLayer} from './sample-layer.ts'

export type BackendKind = 'erofs' | 'fuse'

export const BACKENDS: readonly BackendKind[] = ['erofs', 'fuse']

export interface MountedLayer {
  readonly path: string
  readonly device: SampleDevice
}

export interface TestBackend {
  /** The test's directory; anything below it is unmounted and deleted. */
  readonly directory: string
  readonly backend: MountBackend
  /** Lines of the log. */
  readonly log: readonly string[]
  /** Mounts a layer under a name, its device empty unless one is given. */
  mount(layer: SampleLayer, name?: string, device?: SampleDevice): Promise<MountedLayer>
  /** Unmounts a layer, and forgets its device. */
  unmount(name: string): Promise<void>
}

export interface TestBackendOptions {
  readonly opaque?: OpaqueMarks
  readonly keeper?: Keeper
  /** Of an earlier backend, to go on in. */
  readonly directory?: string
  readonly deadlineMs?: number
}

export async function openBackend(kind: BackendKind, options: TestBackendOptions = {}): Promise<TestBackend> {
  const directory = options.directory ?? (await ownDirectory())
  const lines: string[] = []
  const note = (fields: object, message: string) => void lines.push(`${message} ${JSON.stringify(fields)}`)
  const log = {info: note, warn: note, debug: () => {}}
  const {keeper, deadlineMs = 20_000} = options
  const settings = {mountpoint: join(directory, 'fuse'), keeper, deadlineMs, log}
  const backend =
    kind === 'erofs'
      ? createErofsBackend(await openDataFileSystem(settings))
      : createTreeBackend(await openTreeFileSystem(settings), options.opaque ?? 'trusted')
  let closed = false
  onTestFinished(async () => {
    if (!closed) await backend.close('unmount')
  })
  return {
    directory,
    log: lines,
    backend: {
      ...backend,
      close: async how => {
        closed = true
        await backend.close(how)
      },
    },
    mount: async (layer, name = 'layer', given) => {
      const path = join(directory, name)
      await mkdir(path, {recursive: true})
      const device = given ?? createSampleDevice(layer, directory, deviceName(name))
      if (!given) onTestFinished(() => device.close())
      const state = () => ({
        digest: digestOf(Buffer.from(name)),
        size: layer.size,
        fetchedSize: 4096 * device.presentBlocks(),
        error: undefined,
      })
      const file = async (fileName: string, make: () => Promise<Uint8Array>) => {
        const place = join(directory, `${name}.${fileName}`)
        await writeFile(place, await make())
        return place
      }
      const mountable = {
        device,
        state,
        file,
        isComplete: () => device.presentBlocks() === layer.size / 4096,
        tree: async () => layer.root,
      }
      await backend.mount(mountable, path, {})
      onTestFinished(() => backend.unmount(path))
      return {path, device}
    },
    unmount: async name => {
      await backend.unmount(join(directory, name))
      await backend.release(deviceName(name))
    },
  }
}

/** As the product names devices: digits of a digest. */
function deviceName(name: string): string {
  return digestOf(Buffer.from(name)).slice('sha256:'.length)
}

async function ownDirectory(): Promise<string> {
  const directory = await temporaryDirectory()
  // Before the directory is deleted, and after the backend has been closed.
  onTestFinished(() => unmountBelow(directory))
  return directory
}
