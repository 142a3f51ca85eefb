// The snapshotter's root directory is lost while containerd's records of its snapshots stay.

import {rmSync} from 'node:fs'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {CONTAINERDS} from '../support/containerd.ts'
import {describeWith} from '../support/requires.ts'
import {openStage, type Stage} from './lazy-stage.ts'

let count = 0
const newNamespace = () => `lost-data-${process.pid}-${++count}`

for (const {release, needs, programs} of CONTAINERDS) {
  describeWith(['root', 'runc', ...needs], `a snapshotter that lost its data, with ${release}`, () => {
    let stage: Stage
    beforeAll(async () => {
      stage = await openStage({backend: 'auto', programs})
    })
    afterAll(() => stage?.[Symbol.asyncDispose]())

    async function loseData(): Promise<void> {
      await stage.snapshotter.stop('SIGINT')
      rmSync(join(stage.snapshotter.directory, 'root'), {recursive: true})
      await stage.snapshotter.start()
    }

    const run = (namespace: string, ...more: readonly string[]) =>
      stage.ctr(namespace, 'run', ...more, '--snapshotter=stargz', stage.lazy, `${namespace}-runs`)

    it('has them again by the next pull', async () => {
      const namespace = newNamespace()
      await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
      await loseData()
      const {layers} = JSON.parse(await stage.ctrRemote(namespace, 'image', 'rpull', '--json', stage.lazy))
      expect(layers.map(({state}: {state: string}) => state)).toEqual(
        stage.lazyManifest.layers.map(() => 'lazy'),
      )
      expect(await run(namespace, '--rm')).toBe('hello\n')
    })

    it('says what to remove while a container is based on what was lost', async () => {
      const namespace = newNamespace()
      await stage.ctrRemote(namespace, 'image', 'rpull', stage.lazy)
      expect(await run(namespace)).toBe('hello\n')
      await loseData()
      const globals = ['--store', 'containerd', '-a', stage.containerd.address, '-n', namespace]
      const pull = () => stage.user.run(...globals, 'image', 'rpull', stage.lazy)
      const {exitCode, stderr} = await pull()
      expect(exitCode).not.toBe(0)
      expect(stderr).toMatch(/the snapshotter lost its data, and containers .* remove these and the image/)
      await stage.ctr(namespace, 'containers', 'rm', `${namespace}-runs`)
      expect(await pull()).toMatchObject({exitCode: 0, stderr: ''})
      expect(await run(namespace, '--rm')).toBe('hello\n')
    })
  })
}
