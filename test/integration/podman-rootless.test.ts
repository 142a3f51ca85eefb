// Rootless Podman: it and the layer store share a user namespace, in which the kernel mounts FUSE and no EROFS.

import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {PODMANS, startPodman, type TestPodman} from '../support/podman.ts'
import {describeWith} from '../support/requires.ts'
import {LARGE_SIZE} from './lazy-image.ts'
import {type PodmanStage, startPodmanStage} from './podman-stage.ts'

for (const {release, needs, programs} of PODMANS) {
  describeWith(['root', 'runc', 'perl', 'unshare', 'nsenter', ...needs], `${release}, rootless`, () => {
    let stage: PodmanStage
    beforeAll(async () => {
      stage = await startPodmanStage({rootless: true})
    })
    afterAll(() => stage?.[Symbol.asyncDispose]())

    const start = (stores: {
      readonly layerStores?: readonly string[]
      readonly imageStores?: readonly string[]
    }) => startPodman({...stores, programs, insecure: [stage.registry.address], rootless: stage.store.pid})

    it('runs an image from the additional layer store, of which little has been sent', async () => {
      await using podman: TestPodman = await start({layerStores: [stage.store.mountpoint]})
      stage.sent = 0
      expect(await podman.podman('run', '--rm', '-q', stage.image('esgz'))).toBe('hello\n')
      expect(stage.sent).toBeLessThan(LARGE_SIZE)
      expect(stage.store.log()).toContainEqual(expect.objectContaining({backend: 'fuse'}))
      await podman.attempt('rmi', stage.image('esgz'))
    })

    it('runs an image from the additional image store, and again when the registry is gone', async () => {
      await using podman: TestPodman = await start({
        imageStores: [join(stage.store.directory, 'root/images')],
      })
      const image = stage.image('zstdchunked')
      const rpull = ['image', 'rpull', '--store', 'podman', '--store-address', stage.store.address]
      expect(await stage.user.run(...rpull, image)).toEqual({exitCode: 0, stdout: `${image}\n`, stderr: ''})
      expect(await podman.podman('run', '--rm', image)).toBe('hello\n')
      stage.sent = 0
      expect(await podman.podman('run', '--rm', '--pull', 'never', image)).toBe('hello\n')
      expect(stage.sent).toBe(0)
    })
  })
}
