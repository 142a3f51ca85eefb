// A disk that is full, or nearly: fetching ahead leaves room for others, and everything that frees room works.

import {execFileSync} from 'node:child_process'
import {closeSync, existsSync, openSync, rmSync, statfsSync, symlinkSync, writeSync} from 'node:fs'
import {mkdtemp, rmdir} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {PATIENTLY} from '../support/patience.ts'
import {describeWith} from '../support/requires.ts'
import {snapshotterDirectory} from '../support/snapshotter.ts'
import {LARGE_SIZE} from './lazy-image.ts'
import {openStage, type Stage} from './lazy-stage.ts'

const MIB = 1 << 20
/** Of the disk; its reserve is a tenth. */
const DISK_SIZE = 60 * MIB

let count = 0
const newNamespace = () => `full-disk-${process.pid}-${++count}`

describeWith(['root', 'containerd', 'ctr', 'runc'], 'a snapshotter on a small disk', () => {
  let stage: Stage
  let disk: string
  const undo = new AsyncDisposableStack()

  beforeAll(async () => {
    disk = await mkdtemp(join(tmpdir(), 'ctr-remote-disk-'))
    undo.defer(() => rmdir(disk))
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${DISK_SIZE},mode=700`, 'tmpfs', disk])
    undo.defer(() => void execFileSync('umount', ['-l', disk]))
    const directory = await snapshotterDirectory()
    symlinkSync(disk, join(directory, 'root'))
    // EROFS images cannot be mounted from a tmpfs.
    stage = undo.use(await openStage({backend: 'fuse', directory}))
  })
  afterAll(() => undo.disposeAsync())

  const freeSpace = () => {
    const {bsize, bavail} = statfsSync(disk)
    return bsize * bavail
  }
  const filler = () => join(disk, 'filler')
  const ballast = () => join(disk, 'snapshotter/ballast')

  /** Writes until so much is left, 0 for none. */
  function fillDisk(left: number): void {
    const file = openSync(filler(), 'a')
    try {
      while (freeSpace() > left) writeSync(file, Buffer.alloc(Math.min(MIB, freeSpace() - left)))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
    } finally {
      closeSync(file)
    }
  }

  async function removeImage(namespace: string): Promise<void> {
    await stage.ctr(namespace, 'images', 'rm', '--sync', stage.lazy)
  }

  const layers = async () =>
    JSON.parse(await stage.ctrRemote('default', 'lazy', 'status', '--json')) as {
      fetched: number
      size: number
    }[]

  it('fills layers up to the reserve, and no further', async () => {
    const namespace = newNamespace()
    const reserve = DISK_SIZE / 10
    fillDisk(reserve + 9 * MIB)
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    const told = () =>
      stage.snapshotter
        .log()
        .filter(({error}) => /^Cannot fetch ahead: the disk .*nearly full/.test(String(error)))
    await expect.poll(told, PATIENTLY).not.toEqual([])
    expect(freeSpace()).toBeGreaterThan(reserve)
    expect((await layers()).some(({fetched, size}) => fetched < size)).toBe(true)
    const run = ['run', '--rm', '--snapshotter=stargz', stage.lazy, `${namespace}-reads`]
    expect(await stage.ctr(namespace, ...run, 'busybox', 'wc', '-c', '/data/large')).toBe(
      `${LARGE_SIZE} /data/large\n`,
    )
    rmSync(filler())
    await removeImage(namespace)
  })

  it('starts when it is full, and removes images, whose layers make room again', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    await expect
      .poll(async () => (await layers()).every(({fetched, size}) => fetched === size), PATIENTLY)
      .toBe(true)
    expect(existsSync(ballast())).toBe(true)
    fillDisk(0)
    await stage.snapshotter.stop('SIGKILL')
    fillDisk(0)
    await stage.snapshotter.start()
    // containerd waits for seconds before it tries to reach a daemon again that it found gone, and its collector does not.
    const usage = ['snapshots', '--snapshotter', 'stargz', 'usage']
    const reaches = () => stage.ctr(namespace, ...usage).then(Boolean, () => false)
    await expect.poll(reaches, PATIENTLY).toBe(true)
    const before = freeSpace()
    await removeImage(namespace)
    await expect.poll(freeSpace, PATIENTLY).toBeGreaterThan(before + MIB)
    expect(existsSync(ballast())).toBe(false)
    rmSync(filler())
    await stage.snapshotter.stop('SIGTERM')
    await stage.snapshotter.start()
    expect(existsSync(ballast())).toBe(true)
  })

  it('runs containers when the last byte is gone', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    await expect
      .poll(async () => (await layers()).every(({fetched, size}) => fetched === size), PATIENTLY)
      .toBe(true)
    fillDisk(0)
    const run = ['run', '--rm', '--snapshotter=stargz', stage.lazy, `${namespace}-runs`]
    expect(await stage.ctr(namespace, ...run)).toBe('hello\n')
    rmSync(filler())
    await removeImage(namespace)
    await expect.poll(() => existsSync(ballast()), PATIENTLY).toBe(true)
  })
})
