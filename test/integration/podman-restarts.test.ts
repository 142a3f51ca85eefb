// The layer store is killed while a container reads and Podman works: everybody waits, and gets every byte right.

import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {startPodman, type TestPodman} from '../support/podman.ts'
import {describeWith} from '../support/requires.ts'
import {SMALL_GROUPS} from './lazy-image.ts'
import {type PodmanStage, startPodmanStage} from './podman-stage.ts'

/** How often it is killed; more by hand: `KILLS=30 vitest run test/integration/podman-restarts.test.ts`. */
const KILLS = Number(process.env.KILLS ?? 6)

for (const face of ['layer', 'image'] as const) {
  describeWith(['root', 'podman', 'runc', 'perl'], `an additional ${face} store that is killed`, () => {
    let stage: PodmanStage
    let podman: TestPodman
    const image = (tag: string) => stage.image(tag)

    beforeAll(async () => {
      stage = await startPodmanStage()
      const {mountpoint, directory} = stage.store
      const stores =
        face === 'layer' ? {layerStores: [mountpoint]} : {imageStores: [join(directory, 'root/images')]}
      podman = await startPodman({...stores, insecure: [stage.registry.address]})
      if (face === 'image') await remote('rpull', image('esgz'))
    })
    afterAll(async () => {
      await podman?.[Symbol.asyncDispose]()
      await stage?.[Symbol.asyncDispose]()
    })

    /** `ctr-remote` with the stage's store, which must succeed. */
    async function remote(command: string, reference: string): Promise<void> {
      const address = ['--store', 'podman', '--store-address', stage.store.address]
      const {exitCode, stderr} = await stage.user.run('image', command, ...address, reference)
      expect(exitCode, stderr).toBe(0)
    }

    /** The sums of all files of a directory of the image, in the order of their names. */
    const sums = (directory: string) => [
      'busybox',
      'sh',
      '-c',
      `cd /${directory} && for file in *; do busybox sha256sum "$file" || exit 1; done`,
    ]

    /** What Podman may be doing when the store ends, each whole. */
    const WORKS: readonly (() => Promise<unknown>)[] = [
      async () => expect(await podman.podman('run', '--rm', image('esgz'))).toBe('hello\n'),
      async () => expect(await podman.podman('images', '-q')).not.toBe(''),
      ...(face === 'layer'
        ? [
            async () => podman.podman('pull', '-q', image('zstdchunked')),
            async () => podman.podman('rmi', image('zstdchunked')),
          ]
        : []),
      async () => expect(await podman.podman('ps', '-q')).not.toBe(''),
    ]

    const title = `has neither readers nor Podman fail, killed ${KILLS} times meanwhile`
    it(title, {timeout: 120_000 + KILLS * 30_000}, async () => {
      const wanted: string[] = []
      for (let group = 0; group < Math.min(KILLS, SMALL_GROUPS); group++) {
        wanted.push(await podman.podman('run', '--rm', '-q', image('plain'), ...sums(`small/${group}`)))
      }
      await podman.podman('run', '-d', '--name', 'reader', image('esgz'), 'sleep', '100000')
      for (let kill = 0; kill < KILLS; kill++) {
        const group = kill % SMALL_GROUPS
        const reading = podman.attempt('exec', 'reader', ...sums(`small/${group}`))
        const working = WORKS[kill % WORKS.length]!()
        const ended = Promise.allSettled([reading, working])
        await stage.store.stop('SIGKILL')
        await stage.store.start()
        await ended
        expect(await reading, `kill ${kill}`).toMatchObject({exitCode: 0, stdout: wanted[group]!})
        await working
      }
      const large = await podman.podman('exec', 'reader', 'busybox', 'sha256sum', '/data/large')
      expect(large).toBe(
        await podman.podman('run', '--rm', image('plain'), 'busybox', 'sha256sum', '/data/large'),
      )
      await podman.podman('rm', '--force', '--time', '0', 'reader')
    })
  })
}
