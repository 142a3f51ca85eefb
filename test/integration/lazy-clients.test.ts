// Other people's clients with our snapshotter: the reference's ctr-remote, and containerd's transfer service.

import {afterAll, beforeAll, expect, it} from 'vitest'
import {runCommandOrThrow} from '../../src/lib/io/run-command.ts'
import {newerPrograms} from '../support/newer-programs.ts'
import {describeWith} from '../support/requires.ts'
import {openStage, type Stage} from './lazy-stage.ts'

/** Debian's package stargz-snapshotter. */
const REFERENCE = '/usr/bin/ctr-remote'

let count = 0
const newNamespace = () => `lazy-clients-${process.pid}-${++count}`

/** Whether every layer of the image is mounted, and none is in containerd. */
async function expectLazy(stage: Stage, namespace: string): Promise<void> {
  const content = await stage.ctr(namespace, 'content', 'ls', '-q')
  for (const {digest} of stage.lazyManifest.layers) expect(content).not.toContain(digest)
  const snapshots = await stage.ctr(namespace, 'snapshots', '--snapshotter', 'stargz', 'ls')
  expect(snapshots.match(/^sha256:.* Committed/gm)).toHaveLength(stage.lazyManifest.layers.length)
  expect(snapshots).not.toContain('Active')
}

describeWith(['root', 'containerd', 'ctr', 'runc', REFERENCE], "the reference's ctr-remote", () => {
  let stage: Stage
  beforeAll(async () => {
    stage = await openStage({backend: 'auto'})
  })
  afterAll(() => stage?.[Symbol.asyncDispose]())

  it('pulls lazily, and runs what it pulled', async () => {
    const namespace = newNamespace()
    const reference = async (...argv: readonly string[]): Promise<string> => {
      const globals = ['-a', stage.containerd.address, '-n', namespace]
      return (await runCommandOrThrow(REFERENCE, [...globals, ...argv])).stdout
    }
    await reference('images', 'rpull', '--plain-http', stage.lazy)
    await expectLazy(stage, namespace)
    const run = ['run', '--rm', '--snapshotter=stargz', stage.lazy, `${namespace}-a`]
    expect(await reference(...run)).toBe('hello')
  })

  it('pulls again what our own has pulled, and the other way round', async () => {
    const namespace = newNamespace()
    const argv = [
      '-a',
      stage.containerd.address,
      '-n',
      namespace,
      'images',
      'rpull',
      '--plain-http',
      stage.lazy,
    ]
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    await runCommandOrThrow(REFERENCE, argv)
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    await expectLazy(stage, namespace)
  })
})

describeWith(['root', 'newer-containerd'], "containerd's transfer service", () => {
  let stage: Stage
  beforeAll(async () => {
    stage = await openStage({
      backend: 'auto',
      programs: newerPrograms('containerd'),
      containerdConfig: `[[plugins."io.containerd.transfer.v1.local".unpack_config]]
  platform = "linux"
  snapshotter = "stargz"
`,
    })
  })
  afterAll(() => stage?.[Symbol.asyncDispose]())

  it('pulls lazily, without any program of ours but the snapshotter', async () => {
    const namespace = newNamespace()
    await stage.ctr(namespace, 'images', 'pull', '--plain-http', '--snapshotter=stargz', stage.lazy)
    await expectLazy(stage, namespace)
    const run = ['run', '--rm', '--snapshotter=stargz', stage.lazy, `${namespace}-a`]
    expect(await stage.ctr(namespace, ...run)).toBe('hello\n')
  })

  it('leaves what ours pulls and runs as well', async () => {
    const namespace = newNamespace()
    await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
    await expectLazy(stage, namespace)
    const run = ['run', '--rm', '--snapshotter=stargz', stage.lazy, `${namespace}-a`]
    expect(await stage.ctrRemote(namespace, ...run)).toBe('hello\n')
  })
})
