// Somebody takes mounts away from the snapshotter: it notices, and no container starts without its files.

import {execFileSync} from 'node:child_process'
import {statSync, writeFileSync} from 'node:fs'
import {mkdtemp, rmdir} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {PATIENTLY} from '../support/patience.ts'
import {mountsBelow} from '../support/snapshotter.ts'
import {LARGE_SIZE} from './lazy-image.ts'
import {describeBackends, openStage, type Stage, treeAt} from './lazy-stage.ts'

/** Aborts a FUSE connection as an operator does; `/sys/fs/fuse/connections` is not mounted everywhere. */
async function abortConnection(mountpoint: string): Promise<void> {
  const {dev} = statSync(mountpoint)
  const control = await mkdtemp(join(tmpdir(), 'ctr-remote-fusectl-'))
  execFileSync('mount', ['-t', 'fusectl', 'fusectl', control])
  try {
    // A connection's name is the minor number of its device.
    writeFileSync(join(control, String((dev & 0xff) | ((dev >> 12) & 0xfff00)), 'abort'), '1')
  } finally {
    execFileSync('umount', [control])
    await rmdir(control)
  }
}

let count = 0
const newNamespace = () => `lost-mounts-${process.pid}-${++count}`

describeBackends('a mount of the snapshotter', backend => {
  let stage: Stage
  beforeAll(async () => {
    // Layers that are complete would not need what is taken away.
    stage = await openStage({backend, config: 'no_background_fetch = true\n'})
  })
  afterAll(() => stage?.[Symbol.asyncDispose]())

  /** Where the daemon serves what the layers read from. */
  const served = () =>
    join(stage.snapshotter.directory, 'root/stargz', backend === 'erofs' ? 'data' : 'trees')

  async function layerMounts(): Promise<string[]> {
    const mounts = await mountsBelow(stage.snapshotter.directory)
    return mounts.filter(path => path.includes('/snapshots/'))
  }

  async function pull(): Promise<string> {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    return namespace
  }

  const readAll = (namespace: string) =>
    stage.ctr(
      namespace,
      ...['run', '--rm', '--snapshotter=stargz', stage.lazy, `${namespace}-reads`],
      ...['busybox', 'wc', '-c', '/data/large', '/data/hello'],
    )
  const WHOLE = new RegExp(`${LARGE_SIZE} /data/large\\n.* 6 /data/hello\\n`)

  const status = async (namespace: string): Promise<{lastError?: string; lazy: boolean}[]> =>
    JSON.parse(await stage.ctrRemote(namespace, 'lazy', 'status', '--json', stage.lazy))

  const lostLines = () =>
    stage.snapshotter.log().filter(({msg}) => String(msg).startsWith('a file system of lazy layers was lost'))

  it('is made again for the next container when one layer was unmounted', async () => {
    const namespace = await pull()
    const mounts = await layerMounts()
    for (const path of mounts) {
      execFileSync('umount', ['-l', path])
      expect(await readAll(namespace), path).toMatch(WHOLE)
    }
    expect(new Set(await layerMounts())).toEqual(new Set(mounts))
  })

  it('is made again when something else was mounted over a layer', async () => {
    const namespace = await pull()
    const [path] = await layerMounts()
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', path!])
    expect(await readAll(namespace)).toMatch(WHOLE)
  })

  it('is served anew, without a restart, when its FUSE connection was aborted', async () => {
    const namespace = await pull()
    await using mounted = await stage.mount(namespace, 'stargz', stage.lazy)
    const before = lostLines().length
    await abortConnection(served())
    await expect.poll(() => lostLines().length, PATIENTLY).toBe(before + 1)
    expect(lostLines().at(-1)).toMatchObject({level: 'warning', error: expect.stringMatching(/was aborted/)})
    await expect
      .poll(async () => (await status(namespace)).map(({lastError = ''}) => lastError), PATIENTLY)
      .toContainEqual(
        expect.stringMatching(/was aborted, .*: containers that were running then get I\/O errors/),
      )
    // Nobody has read these, so that they are neither here nor in a cache of the kernel's.
    await expect(treeAt(join(mounted.path, 'small'))).rejects.toThrow()
    expect(await readAll(namespace)).toMatch(WHOLE)
    const other = await pull()
    expect((await status(other)).every(({lazy}) => lazy)).toBe(true)
    expect(await readAll(other)).toMatch(WHOLE)
  })

  it('is made anew when it was unmounted, while who reads through the old one goes on', async () => {
    const namespace = await pull()
    await using mounted = await stage.mount(namespace, 'stargz', stage.lazy)
    const before = lostLines().length
    execFileSync('umount', ['-l', served()])
    expect(await readAll(namespace)).toMatch(WHOLE)
    expect(lostLines()).toHaveLength(before + 1)
    expect(await treeAt(mounted.path)).toEqual(await stage.tree(namespace, 'stargz', stage.lazy))
    await stage.snapshotter.stop('SIGTERM')
    await stage.snapshotter.start()
    // It waits until containerd has noticed that the daemon is back.
    await pull()
    expect(await readAll(namespace)).toMatch(WHOLE)
  })
})
