// The snapshotter is in another mount namespace than containerd, which cannot see what it mounts.

import {afterAll, beforeAll, expect, it} from 'vitest'
import {describeWith} from '../support/requires.ts'
import {openStage, type Stage} from './lazy-stage.ts'

const namespace = `mount-namespaces-${process.pid}`

describeWith(
  ['root', 'containerd', 'ctr', 'runc', 'unshare'],
  'a snapshotter in a mount namespace of its own',
  () => {
    let stage: Stage
    beforeAll(async () => {
      stage = await openStage({backend: 'auto', under: ['unshare', '--mount', '--propagation', 'private']})
    })
    afterAll(() => stage?.[Symbol.asyncDispose]())

    it('says at its start that its mounts are not seen outside', () => {
      const warned = stage.snapshotter
        .log()
        .filter(({msg}) => /are not seen outside of its mount namespace/.test(String(msg)))
      expect(warned).toMatchObject([{level: 'warning'}])
    })

    it('mounts nothing lazily, says why, and containers have their files', async () => {
      const {layers} = JSON.parse(await stage.ctrRemote(namespace, 'image', 'rpull', '--json', stage.lazy))
      expect(layers).toMatchObject(
        layers.map(() => ({
          state: 'fetched',
          reason: expect.stringMatching(/\(containerd\) does not see the mount/),
        })),
      )
      const told = stage.snapshotter.log().filter(({level}) => level === 'error')
      expect(told).toMatchObject([
        {msg: 'lazy layers are refused: who asks for them cannot see their mounts'},
      ])
      const run = ['run', '--rm', '--snapshotter=stargz', stage.lazy, `${namespace}-runs`]
      expect(await stage.ctr(namespace, ...run)).toBe('hello\n')
    })
  },
)
