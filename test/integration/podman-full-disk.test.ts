// The layer store's disk is full: Podman pulls by itself, what is mounted goes on, and room makes all well again.

import {execFileSync} from 'node:child_process'
import {closeSync, openSync, rmSync, symlinkSync, writeSync} from 'node:fs'
import {mkdtemp, rmdir} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {listLazyLayers} from '../../src/lib/snapshotter-client/snapshotter-client.ts'
import {layerStoreDirectory} from '../support/layer-store.ts'
import {startPodman, type TestPodman} from '../support/podman.ts'
import {describeWith} from '../support/requires.ts'
import {type PodmanStage, startPodmanStage} from './podman-stage.ts'

const MIB = 1 << 20
/** Of the disk: the store keeps 8 MiB of it for when it is full, and the image has more than the rest. */
const DISK_SIZE = 34 * MIB

describeWith(['root', 'podman', 'runc', 'perl'], 'a layer store on a small disk', () => {
  let stage: PodmanStage
  let podman: TestPodman
  let disk: string
  const undo = new AsyncDisposableStack()
  const image = (tag: string) => stage.image(tag)

  beforeAll(async () => {
    disk = await mkdtemp(join(tmpdir(), 'ctr-remote-disk-'))
    undo.defer(() => rmdir(disk))
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_SIZE},mode=700`, 'tmpfs', disk])
    undo.defer(() => void execFileSync('umount', ['-l', disk]))
    const directory = await layerStoreDirectory()
    symlinkSync(disk, join(directory, 'root'))
    stage = undo.use(await startPodmanStage({directory}))
    const layerStores = [stage.store.mountpoint]
    podman = undo.use(await startPodman({layerStores, insecure: [stage.registry.address]}))
  })
  afterAll(() => undo.disposeAsync())

  /** Writes until nothing is left. */
  function fillDisk(): void {
    const file = openSync(join(disk, 'filler'), 'a')
    try {
      for (;;) writeSync(file, Buffer.alloc(4096))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    } finally {
      closeSync(file)
    }
  }

  const sum = ['busybox', 'sha256sum', '/data/large']

  it('reads what does not fit', async () => {
    const expected = await podman.podman('run', '--rm', '-q', image('plain'), ...sum)
    await podman.podman('rmi', image('plain'))
    expect(await podman.podman('run', '--rm', '-q', image('esgz'), ...sum)).toBe(expected)
    await podman.podman('rmi', image('esgz'))
  })

  it('leaves images to Podman while there is no room, and is not stopped by it', async () => {
    fillDisk()
    await stage.store.stop('SIGKILL')
    fillDisk()
    await stage.store.start()
    expect(await podman.podman('run', '--rm', '-q', image('esgz'))).toBe('hello\n')
    expect(await podman.podman('run', '--rm', image('esgz'))).toBe('hello\n')
    await podman.podman('rmi', image('esgz'))
    rmSync(join(disk, 'filler'))
    expect(await podman.podman('run', '--rm', '-q', image('zstdchunked'))).toBe('hello\n')
    const layers = await listLazyLayers({address: stage.store.address, reference: image('zstdchunked')})
    expect(layers.map(({lazy}) => lazy)).toEqual([true, true, true, true])
    await podman.podman('rmi', image('zstdchunked'))
  })
})
