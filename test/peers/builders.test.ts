// What Podman (and with it Buildah) writes of a build, in our hands; BuildKit's outputs are in test/integration/docker.test.ts.

import {writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {createUser, type User} from '../support/ctr-remote.ts'
import {PODMANS, startPodman, type TestPodman} from '../support/podman.ts'
import {describeWith} from '../support/requires.ts'
import {writeShellImage} from '../support/shell-image.ts'

for (const {release, needs, programs} of PODMANS) {
  describeWith(['root', 'runc', ...needs], `a build by ${release}`, () => {
    let user: User
    let registry: RunningRegistry
    let podman: TestPodman
    beforeAll(async () => {
      user = await createUser()
      const store = await openLocalStore(join(user.home, 'registry'))
      {
        await using _ = await store.lease()
        const Cmd = ['/bin/sh', '-c', 'cat /data/file']
        await store.images.put('localhost/base:1', await writeShellImage(store.content, {Cmd}))
      }
      registry = await serveRegistry(store)
      podman = await startPodman({programs, insecure: [registry.address]})
      const containerfile = join(user.home, 'Containerfile')
      await writeFile(containerfile, `FROM ${registry.address}/base:1\nRUN cat /data/file >/built\n`)
      const flags = ['-q', '--network=none', '-t', 'localhost/built', '-f', containerfile]
      await podman.podman('build', ...flags, user.home)
    })
    afterAll(async () => {
      await podman?.[Symbol.asyncDispose]()
      await registry?.[Symbol.asyncDispose]()
      await user?.[Symbol.asyncDispose]()
    })

    async function ctrRemote(...argv: readonly string[]): Promise<string> {
      const {exitCode, stdout, stderr} = await user.run(...argv)
      expect(exitCode, stdout + stderr).toBe(0)
      return stdout + stderr
    }

    // Podman 4 leaves the layers of the base as they are.
    if (programs !== undefined) {
      it('pushed as zstd:chunked is lazy and sound as it is', async () => {
        const name = `${registry.address}/built:chunked`
        const flags = ['--compression-format', 'zstd:chunked', '--force-compression']
        await podman.podman('push', '-q', ...flags, 'localhost/built', `docker://${name}`)
        expect(await ctrRemote('image', 'verify', `docker://${name}`)).toMatch(/zstd:chunked/)
      })
    }

    it('pushed as ever becomes eStargz, optimized for its workload', async () => {
      const name = `${registry.address}/built:gzip`
      await podman.podman('push', '-q', 'localhost/built', `docker://${name}`)
      await ctrRemote('image', 'optimize', '--oci', `docker://${name}`, `docker://${name}-esgz`)
      expect(await ctrRemote('image', 'verify', `docker://${name}-esgz`)).toMatch(/eStargz/)
    })
  })
}
