// A backend over a directory of its own, for the running test: mounts sample layers at places below it, and takes
// everything down when the test ends.

import {mkdir} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {describe, onTestFinished} from 'vitest'
import type {OpaqueMarks} from '../../src/lib/fuse-tree/tree-encode.ts'
import type {MountableLayer, MountBackend} from '../../src/lib/layer/ports.ts'
import {canMountErofs} from '../../src/lib/mount/mount-erofs.ts'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {type BackendKind, createBackend, deviceName, mountableLayer} from './create-backend.ts'
import {createSampleDevice, type SampleDevice} from './sample-device.ts'
import type {SampleLayer} from './sample-layer.ts'

/** Whether this kernel mounts EROFS images from files. */
export const hasErofs = process.getuid?.() === 0 && (await canMountErofs(tmpdir()))

/** A suite for each backend; where the kernel cannot have one, it is skipped under a name that says so. */
export function describeBackends(body: (kind: BackendKind) => void): void {
  describe('through fuse', () => body('fuse'))
  if (hasErofs) describe('through erofs', () => body('erofs'))
  else
    describe.skip('through erofs (not run: this kernel mounts no EROFS images from files)', () =>
      body('erofs'))
}

export interface MountedLayer {
  readonly path: string
  readonly device: SampleDevice
  readonly mountable: MountableLayer
}

export interface TestBackend {
  /** The test's directory; what is below it is unmounted and deleted. */
  readonly directory: string
  readonly backend: MountBackend
  /** Ends the serving; the end of the test does it otherwise. */
  close(): Promise<void>
  /** Lines of the log. */
  readonly log: readonly string[]
  /** Mounts a layer under a name, its device empty unless one is given. */
  mount(layer: SampleLayer, name?: string, device?: SampleDevice): Promise<MountedLayer>
  /** Unmounts a layer, and forgets its device. */
  unmount(name: string): Promise<void>
}

export interface TestBackendOptions {
  readonly opaque?: OpaqueMarks
  readonly deadlineMs?: number
}

export async function openBackend(kind: BackendKind, options: TestBackendOptions = {}): Promise<TestBackend> {
  const directory = await mountDirectory()
  const lines: string[] = []
  const note = (fields: object, message: string) => void lines.push(`${message} ${JSON.stringify(fields)}`)
  const log = {info: note, warn: note, debug: () => {}}
  const backend = await createBackend(kind, {...options, directory, log})
  let closed: Promise<void> | undefined
  const close = () => (closed ??= backend.close('unmount'))
  onTestFinished(close)
  return {
    directory,
    log: lines,
    backend,
    close,
    mount: async (layer, name = 'layer', given) => {
      const path = join(directory, name)
      await mkdir(path, {recursive: true})
      const device = given ?? createSampleDevice(layer, directory, deviceName(name))
      if (!given) onTestFinished(() => device.close())
      const mountable = mountableLayer(directory, layer, device)
      await backend.mount(mountable, path, {})
      onTestFinished(() => backend.unmount(path))
      return {path, device, mountable}
    },
    unmount: async name => {
      await backend.unmount(join(directory, name))
      await backend.release(deviceName(name))
    },
  }
}

/** A temporary directory from which everything is unmounted before it is deleted. */
export async function mountDirectory(): Promise<string> {
  const directory = await temporaryDirectory()
  onTestFinished(() => unmountBelow(directory))
  return directory
}
