// `image rpull` with a real containerd and its own snapshotter, which mounts nothing lazily: every layer falls back.

import {randomBytes} from 'node:crypto'
import {createServer} from 'node:http'
import type {AddressInfo} from 'node:net'
import {join} from 'node:path'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {ImageManifest} from '../../src/lib/oci/manifest.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {CONTAINERDS, stargzPlugin, startContainerd, type TestContainerd} from '../support/containerd.ts'
import {createUser, type Finished, type User} from '../support/ctr-remote.ts'
import {type FaultyRegistry, startFaultyRegistry} from '../support/faulty-registry.ts'
import {memoryContent} from '../support/memory-content.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeSampleImage, writeSampleIndex} from '../support/sample-image.ts'
import {writeShellImage} from '../support/shell-image.ts'

for (const {release, needs, programs} of CONTAINERDS) {
  describeWith(['root', 'runc', ...needs], `rpull into ${release}`, () => {
    let containerd: TestContainerd
    let user: User
    let registry: RunningRegistry
    let faulty: FaultyRegistry
    let ref: string

    beforeAll(async () => {
      user = await createUser()
      containerd = await startContainerd({programs, config: stargzPlugin(join(user.home, 'nobody.sock'))})
      const store = await openLocalStore(join(user.home, 'registry'))
      await using _ = await store.lease()
      await store.images.put('localhost/app:1', await writeShellImage(store.content))
      await store.images.put(
        'localhost/multi:1',
        (await writeSampleIndex(store.content, ['amd64', 'arm64'])).root,
      )
      registry = await serveRegistry(store)
      ref = `${registry.address}/app:1`
      faulty = await startFaultyRegistry()
    })
    afterAll(async () => {
      await faulty?.[Symbol.asyncDispose]()
      await registry?.[Symbol.asyncDispose]()
      await containerd?.[Symbol.asyncDispose]()
      await user?.[Symbol.asyncDispose]()
    })

    let count = 0
    const newNamespace = () => `rpull-${process.pid}-${++count}`

    const globals = (namespace: string) => [
      '--store',
      'containerd',
      '-a',
      containerd.address,
      '-n',
      namespace,
    ]

    const rpull = (namespace: string, ...argv: readonly string[]): Promise<Finished> =>
      user.run(...globals(namespace), 'images', 'rpull', ...argv)

    const ctr = (namespace: string, ...argv: readonly string[]) => containerd.ctr('-n', namespace, ...argv)

    /** Nothing that a command may leave: leases, ingests, unfinished snapshots. */
    async function expectTidy(namespace: string): Promise<void> {
      expect(await ctr(namespace, 'leases', 'ls', '-q')).toBe('')
      expect(await ctr(namespace, 'content', 'active')).not.toContain('ctr-remote')
      expect(await ctr(namespace, 'snapshots', 'ls')).not.toContain('Active')
    }

    it('leaves an image that ctr runs, which a collection does not touch, and says that nothing is lazy', async () => {
      const namespace = newNamespace()
      const {stdout, stderr, exitCode} = await rpull(namespace, '--snapshotter', 'overlayfs', ref)
      expect(exitCode, stderr).toBe(0)
      expect(stdout).toMatch(
        /^fetching sha256:[0-9a-f]{8}\.\.\. application\/vnd\.oci\.image\.manifest\.v1\+json$/m,
      )
      expect(stdout.match(/^fetching .*layer\.v1\.tar\+gzip$/gm)).toHaveLength(2)
      expect(stderr).toContain('no layer will be lazy: the snapshotter "overlayfs" mounts none by itself')
      await using store = await openStore(namespace)
      await store.collectGarbage()
      expect(await ctr(namespace, 'images', 'check')).toMatch(/app:1 .* complete \(\d+\/\d+\) .* true/)
      expect(await ctr(namespace, 'run', '--rm', ref, 'one', 'cat', '/data/file')).toBe('data\n')
      await expectTidy(namespace)
    })

    const openStore = async (namespace: string) => {
      const {openContainerdStore} = await import('../../src/lib/containerd/store.ts')
      return openContainerdStore({address: containerd.address, namespace})
    }

    it('tells the snapshotter what a remote one would need, with every layer', async () => {
      const namespace = newNamespace()
      await rpull(namespace, '--snapshotter', 'overlayfs', '--skip-content-verify', ref)
      const {target} = await imageOf(namespace)
      const keys = (await ctr(namespace, 'snapshots', 'ls')).match(/^sha256:\S+/gm)!
      const infos = await Promise.all(
        keys.map(async key => JSON.parse(await ctr(namespace, 'snapshots', 'info', key))),
      )
      for (const {Name, Labels} of infos) {
        expect(Labels).toMatchObject({
          'containerd.io/snapshot.ref': Name,
          'containerd.io/snapshot/remote/stargz.reference': ref,
          'containerd.io/snapshot/remote/stargz.prefetch': '10485760',
          'containerd.io/snapshot/remote/stargz.skipverify': 'true',
          'containerd.io/snapshot/cri.image-ref': ref,
          'containerd.io/snapshot/cri.manifest-digest': target.digest,
        })
      }
      expect(infos).toHaveLength(2)
    })

    async function imageOf(namespace: string) {
      await using store = await openStore(namespace)
      return (await store.images.get(ref))!
    }

    it('does next to nothing the second time', async () => {
      const namespace = newNamespace()
      await rpull(namespace, '--snapshotter', 'overlayfs', ref)
      const {stdout, stderr, exitCode} = await rpull(namespace, '--snapshotter', 'overlayfs', '--json', ref)
      expect(exitCode, stderr).toBe(0)
      const {name, layers} = JSON.parse(stdout)
      expect(name).toBe(ref)
      expect(layers.map(({state}: {state: string}) => state)).toEqual(['present', 'present'])
    })

    it('takes labels and platforms', async () => {
      const namespace = newNamespace()
      const argv = ['--snapshotter', 'overlayfs', '--label', 'a=b', '--all-platforms']
      const {exitCode, stderr} = await rpull(namespace, ...argv, `${registry.address}/multi:1`)
      expect(exitCode, stderr).toBe(0)
      expect(await ctr(namespace, 'images', 'ls')).toMatch(/multi:1 .* a=b/)
      expect((await ctr(namespace, 'snapshots', 'ls')).match(/^sha256:/gm)).toHaveLength(2)
    })

    /** An image of two layers that nobody has: containerd shares content between namespaces. */
    async function unknownImage(): Promise<string> {
      const content = memoryContent()
      const layers = ['a', 'b'].map(name => ({[name]: randomBytes(100_000).toString('hex')}))
      const {root} = await writeSampleImage(content, {layers})
      for (const [digest, bytes] of content.blobs)
        if (digest !== root.digest) faulty.addBlob('unknown', bytes)
      const manifest: ImageManifest = JSON.parse((await readBlob(content, root)).toString())
      faulty.addManifest('unknown', '1', manifest)
      return `${faulty.host}/unknown:1`
    }

    it('leaves nothing behind when it is interrupted while it fetches', async () => {
      const namespace = newNamespace()
      const blob = {method: 'GET', url: /\/blobs\//}
      // The config passes; the layers never end.
      faulty.inject(blob, {kind: 'headers', headers: {}}, 1)
      faulty.inject(blob, {kind: 'stall', afterBytes: 1000}, 2)
      const slow = await unknownImage()
      const before = faulty.requests.length
      const running = user.start(...globals(namespace), 'image', 'rpull', '--snapshotter', 'overlayfs', slow)
      await expect
        .poll(() => faulty.requests.slice(before).filter(({url}) => blob.url.test(url)).length, {
          timeout: 120_000,
        })
        .toBe(3)
      running.child.kill('SIGINT')
      const {exitCode, stderr} = await running.finished
      expect(exitCode, stderr).toBe(130)
      expect(await ctr(namespace, 'images', 'ls', '-q')).toBe('')
      await expectTidy(namespace)
    })

    it('leaves nothing behind when a layer is not what it claims', async () => {
      const namespace = newNamespace()
      faulty.inject({method: 'GET', url: /\/blobs\//}, {kind: 'headers', headers: {}}, 1)
      faulty.inject({method: 'GET', url: /\/blobs\//}, {kind: 'corrupt'}, 1)
      const {exitCode, stderr} = await rpull(namespace, '--snapshotter', 'overlayfs', await unknownImage())
      expect(exitCode).not.toBe(0)
      expect(stderr).toMatch(/sha256:/)
      expect(await ctr(namespace, 'images', 'ls', '-q')).toBe('')
      await expectTidy(namespace)
    })

    it('says how to add the snapshotter that containerd does not have', async () => {
      const namespace = newNamespace()
      const {exitCode, stderr} = await rpull(namespace, '--snapshotter', 'nothing', ref)
      expect(exitCode).toBe(5)
      expect(stderr).toMatch(/Cannot use the snapshotter "nothing": containerd .* has only .*overlayfs/)
    })

    it('says that the daemon of the snapshotter does not run, and where it should listen', async () => {
      const namespace = newNamespace()
      const {exitCode, stderr} = await rpull(namespace, ref)
      expect(exitCode).toBe(8)
      expect(stderr).toMatch(/nothing listens on ".*nobody\.sock"; start its daemon/)
      await expectTidy(namespace)
    })
  })
}

describe('rpull without containerd', () => {
  it('says that a local store has no snapshots, and asks no registry', async () => {
    await using user = await createUser()
    const asked: string[] = []
    const server = createServer((request, response) => {
      asked.push(request.url ?? '')
      response.writeHead(404).end()
    }).listen(0, '127.0.0.1')
    try {
      await new Promise(resolve => server.once('listening', resolve))
      const {port} = server.address() as AddressInfo
      const {exitCode, stderr} = await user.run('image', 'rpull', `127.0.0.1:${port}/app:1`)
      expect(exitCode).toBe(10)
      expect(stderr).toMatch(/Cannot pull .* lazily into the local store: .* --store containerd/)
      expect(asked).toEqual([])
    } finally {
      server.close()
    }
  })
})
