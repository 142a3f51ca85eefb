// Podman and the images that the layer store shows as an additional image store: seen, run, built on and removed.

import {execFile} from 'node:child_process'
import {writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_INDEX} from '../../src/lib/oci/media-type.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {mountsBelow} from '../support/daemon.ts'
import {PODMANS, startPodman, type TestPodman} from '../support/podman.ts'
import {describeWith} from '../support/requires.ts'
import {writeBlob} from '../support/sample-image.ts'
import {ADDED_FILES, describeTree} from '../support/unpacked-tree.ts'
import {LARGE_SIZE} from './lazy-image.ts'
import {type PodmanStage, startPodmanStage} from './podman-stage.ts'

const run = promisify(execFile)

/** As images name it. */
const ARCHITECTURE = process.arch === 'x64' ? 'amd64' : process.arch

for (const {release, needs, programs} of PODMANS) {
  describeWith(
    ['root', 'runc', 'perl', 'getfattr', ...needs],
    `${release} with lazily mounted images`,
    () => {
      let stage: PodmanStage
      /** It knows no layer store and no registry. */
      let podman: TestPodman
      const image = (tag: string) => stage.image(tag)

      beforeAll(async () => {
        stage = await startPodmanStage()
        podman = await startPodman({programs, imageStores: [join(stage.store.directory, 'root/images')]})
      })
      afterAll(async () => {
        await podman?.[Symbol.asyncDispose]()
        await stage?.[Symbol.asyncDispose]()
      })

      /** `ctr-remote` with the stage's store. */
      const remote = (command: string, ...argv: readonly string[]) =>
        stage.user.run('image', command, '--store', 'podman', '--store-address', stage.store.address, ...argv)

      it('sees and runs an image of which little has been sent', async () => {
        stage.sent = 0
        const pulled = await remote('rpull', image('esgz'))
        expect(pulled).toEqual({exitCode: 0, stdout: `${image('esgz')}\n`, stderr: ''})
        expect(await podman.podman('images', '--format', '{{.Repository}}:{{.Tag}} {{.ReadOnly}}')).toBe(
          `${image('esgz')} true\n`,
        )
        expect(await podman.podman('run', '--rm', image('esgz'))).toBe('hello\n')
        expect(stage.sent).toBeLessThan(LARGE_SIZE)
      })

      it('shows the tree that Podman makes by itself', async () => {
        await using ordinary = await startPodman({programs, insecure: [stage.registry.address]})
        const describeImage = async (at: TestPodman, tag: string) => {
          const container = (await at.podman('create', '-q', image(tag))).trim()
          const path = (await at.podman('mount', container)).trim()
          // First asynchronously: the registry is in this process.
          await run('sh', ['-c', 'find . -type f -exec cat {} + >/dev/null'], {cwd: path})
          const isOther = (line: string) =>
            !ADDED_FILES.some(name => line.includes(`./${name}`)) && !line.startsWith('. ')
          const tree = describeTree(path).split('\n').filter(isOther).join('\n')
          await at.podman('rm', '--force', container)
          return tree
        }
        const expected = await describeImage(ordinary, 'plain')
        expect(expected.split('\n').length).toBeGreaterThan(500)
        expect(await describeImage(podman, 'esgz')).toBe(expected)
      })

      it('can be built on', async () => {
        const container = (await podman.podman('create', image('esgz'), 'cat', '/data/hello')).trim()
        await podman.podman('commit', '-q', container, 'localhost/committed')
        await podman.podman('rm', container)
        expect(await podman.podman('run', '--rm', 'localhost/committed')).toBe('hello\n')
        await podman.podman('rmi', 'localhost/committed')
      })

      it('can be built on by a Containerfile, and stays when Podman prunes', async () => {
        const containerfile = join(stage.home, 'Containerfile')
        await writeFile(containerfile, `FROM ${image('esgz')}\nRUN cp /data/hello /data/built\n`)
        await podman.podman(
          'build',
          '-q',
          '--network',
          'none',
          '-t',
          'localhost/built',
          '-f',
          containerfile,
          stage.home,
        )
        expect(await podman.podman('run', '--rm', 'localhost/built', 'cat', '/data/built')).toBe('hello\n')
        await podman.podman('rmi', 'localhost/built')

        await podman.podman('system', 'prune', '--all', '--force')
        expect(await podman.podman('run', '--rm', image('esgz'))).toBe('hello\n')
      })

      it('comes by digest, and out of an index of several platforms', async () => {
        const {digest, size, mediaType} = (await stage.local.images.get('localhost/app:esgz'))!.target
        const named = `${stage.registry.address}/app@${digest}`
        expect(await remote('rpull', named)).toMatchObject({exitCode: 0, stdout: `${named}\n`})
        expect(await podman.podman('run', '--rm', named)).toBe('hello\n')
        expect((await remote('rm', named)).stdout).toBe(`${named}\n`)

        const other = {mediaType, digest: digestOf('another platform'), size: 10}
        const manifests = [
          {...other, platform: {os: 'linux', architecture: 's390x'}},
          {mediaType, digest, size, platform: {os: 'linux', architecture: ARCHITECTURE}},
        ]
        const bytes = encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests})
        await stage.local.images.put(
          'localhost/app:index',
          await writeBlob(stage.local.content, bytes, OCI_INDEX),
        )
        expect((await remote('rpull', image('index'))).exitCode).toBe(0)
        expect(await podman.podman('run', '--rm', image('index'))).toBe('hello\n')
        expect((await remote('rm', image('index'))).exitCode).toBe(0)
        expect(await podman.podman('run', '--rm', image('esgz'))).toBe('hello\n')
      })

      it('has layers that are not lazy unpacked, and says why', async () => {
        const {exitCode, stderr} = await remote('rpull', image('plain'))
        expect(exitCode).toBe(0)
        expect(stderr.match(/is not lazy: .*it has no TOC/g)?.length).toBe(4)
        expect(await podman.podman('run', '--rm', image('plain'))).toBe('hello\n')
        expect((await remote('ls', '-q')).stdout.split('\n').sort()).toEqual([
          '',
          image('esgz'),
          image('plain'),
        ])
        expect(await remote('rm', image('plain'))).toMatchObject({exitCode: 0, stdout: `${image('plain')}\n`})
      })

      it('has images of both kinds of layers', async () => {
        const [plain, lazy] = await Promise.all(['plain', 'esgz'].map(tag => stage.manifestOf(tag)))
        const reference = await stage.putMixed('mixed', plain!, lazy!)
        const {exitCode, stderr} = await remote('rpull', reference)
        expect(exitCode).toBe(0)
        expect(stderr.match(/is not lazy: .*it has no TOC/g)?.length).toBe(1)
        expect(await podman.podman('run', '--rm', reference)).toBe('hello\n')
        expect((await remote('rm', reference)).exitCode).toBe(0)
      })

      it('brings private images with the credentials of the command, which the store remembers when it is killed', async () => {
        const [username, password] = ['somebody', 'no-word-of-this']
        await using registry = await serveRegistry(stage.local, {credentials: {username, password}})
        const reference = `${registry.address}/app:zstdchunked`
        const refused = await remote('rpull', reference)
        expect(refused.exitCode).not.toBe(0)
        expect(refused.stderr).toMatch(/401|unauthorized/i)
        const pulled = await remote('rpull', '--user', `${username}:${password}`, reference)
        expect(pulled).toEqual({exitCode: 0, stdout: `${reference}\n`, stderr: ''})
        await stage.store.stop('SIGKILL')
        await stage.store.start()
        const sum = ['busybox', 'sha256sum', '/data/large']
        expect(await podman.podman('run', '--rm', reference, ...sum)).toMatch(/^[0-9a-f]{64} /)
        expect(JSON.stringify(stage.store.log())).not.toContain(password)
        expect((await remote('rm', reference)).exitCode).toBe(0)
      })

      it('finds nothing rather than an empty image where nothing is mounted, and all of it after a start', async () => {
        await stage.store.stop('SIGINT')
        expect((await podman.attempt('run', '--rm', image('esgz'))).exitCode).not.toBe(0)
        stage.sent = 0
        await stage.store.start()
        expect(await podman.podman('run', '--rm', image('esgz'))).toBe('hello\n')
        expect(stage.sent).toBe(0)
      })

      it('keeps an image for as long as a container uses it', async () => {
        await podman.podman('run', '-d', '--name', 'user', image('esgz'), 'sleep', '1000')
        const refused = await remote('rm', image('esgz'))
        expect(refused.exitCode).not.toBe(0)
        expect(refused.stderr).toContain('a container uses it')
        expect(await podman.podman('exec', 'user', 'cat', '/data/hello')).toBe('hello\n')
        await podman.podman('rm', '--force', '--time', '0', 'user')
        expect((await remote('rm', image('esgz'))).exitCode).toBe(0)
        expect(await podman.podman('images', '-q')).toBe('')
        expect(await mountsBelow(join(stage.store.directory, 'root/mounts'))).toEqual([])
      })
    },
  )
}
