// The image commands on a real containerd, with `ctr` as judge of what they leave there.

import {execFile as execFileWithCallback} from 'node:child_process'
import {randomBytes} from 'node:crypto'
import {readdir, readFile, stat, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {gzipSync} from 'node:zlib'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {Content} from '../../src/lib/containerd/proto/content_pb.ts'
import {openContainerdStore} from '../../src/lib/containerd/store.ts'
import {encodeJson, type ImageManifest} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {hostPlatform} from '../../src/lib/oci/platform.ts'
import {CONTAINERDS, startContainerd} from '../support/containerd.ts'
import {type FaultyRegistry, startFaultyRegistry} from '../support/faulty-registry.ts'
import {describeWith} from '../support/requires.ts'
import {tarOf} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {type Scene, startScene} from './scene.ts'

const execFile = promisify(execFileWithCallback)

for (const {release, needs, programs} of CONTAINERDS) {
  describeWith(['root', 'runc', 'skopeo', ...needs], `images on ${release}`, () => {
    let scene: Scene
    beforeAll(async () => {
      scene = await startScene(programs)
    })
    afterAll(() => scene?.[Symbol.asyncDispose]())

    async function contentLabels(namespace: string): Promise<Map<string, Record<string, string>>> {
      const text = await scene.containerd.ctr('-n', namespace, 'content', 'ls')
      const lines = text.trim().split('\n').slice(1)
      return new Map(
        lines.map(line => {
          // A column is padded with as many tabs as its widest cell takes, such as the age of a blob.
          const [digest = '', , , labels = ''] = line.split(/\t+/)
          const pairs = labels.split(',').filter(pair => pair.includes('='))
          return [digest.trim(), Object.fromEntries(pairs.map(pair => pair.split(/=(.*)/s).slice(0, 2)))]
        }),
      )
    }

    it('pulls an image that ctr finds complete, unpacked and runnable', async () => {
      const {ref, globals} = await scene.withApp()
      expect(await scene.containerd.ctr(...globals, 'images', 'check')).toMatch(
        /app:1 .* complete \(\d+\/\d+\) .* true/,
      )
      expect(await scene.ok(...globals, 'image', 'check')).toMatch(/app:1 .* complete \(\d+\/\d+\) .* true/)
      expect(await scene.containerd.ctr(...globals, 'run', '--rm', '--net-host', ref, 'by-ctr')).toBe(
        'data\n',
      )
      await scene.expectTidy(globals[1]!)
    })

    it('pulls with the labels that containerd and nerdctl need', async () => {
      const {ref, globals} = await scene.withApp()
      const labels = await contentLabels(globals[1]!)
      await using store = await openContainerdStore({
        address: scene.containerd.address,
        namespace: globals[1],
      })
      const {target} = (await store.images.get(ref))!
      await using blob = await store.content.open(target)
      const manifest = JSON.parse(Buffer.from(await blob.read(0, target.size)).toString())
      expect(labels.get(target.digest)).toMatchObject({
        'containerd.io/gc.ref.content.config': manifest.config.digest,
        'containerd.io/gc.ref.content.l.0': manifest.layers[0].digest,
        'containerd.io/gc.ref.content.l.1': manifest.layers[1].digest,
      })
      expect(Object.keys(labels.get(manifest.config.digest)!)).toContain(
        'containerd.io/gc.ref.snapshot.overlayfs',
      )
      for (const layer of manifest.layers) {
        expect(labels.get(layer.digest)).toMatchObject({
          'containerd.io/uncompressed': expect.stringMatching(/^sha256:/),
          'containerd.io/distribution.source.127.0.0.1': 'app',
        })
      }
    })

    it('pulls labels, platforms, and without unpacking', async () => {
      const globals = ['-n', scene.newNamespace()]
      const ref = `${scene.host}/multi:1`
      await scene.ok(
        ...globals,
        'image',
        'pull',
        '-q',
        '--no-unpack',
        '--label',
        'a=b',
        '--platform',
        'linux/arm64',
        ref,
      )
      expect(await scene.containerd.ctr(...globals, 'images', 'ls')).toMatch(/multi:1 .* a=b/)
      // The index, and one manifest with its config and layer.
      expect((await contentLabels(globals[1]!)).size).toBe(4)
      expect(await scene.containerd.ctr(...globals, 'snapshots', 'ls')).not.toContain('sha256')
      await scene.ok(...globals, 'image', 'pull', '-q', '--all-platforms', ref)
      // A second manifest with its config and layer.
      expect((await contentLabels(globals[1]!)).size).toBe(7)
      await scene.expectTidy(globals[1]!)
    })

    it('names the platform that a conversion lacks, instead of a digest', async () => {
      const globals = ['-n', scene.newNamespace()]
      await scene.ok(...globals, 'image', 'pull', '-q', '--platform', 'linux/arm64', `${scene.host}/multi:1`)
      const convert = [
        'image',
        'convert',
        '-q',
        '--oci',
        '--estargz',
        '--all-platforms',
        `${scene.host}/multi:1`,
        'x:1',
      ]
      const {exitCode, stderr} = await scene.user.run(...globals, ...convert)
      expect(exitCode).toBe(3)
      expect(stderr).toMatch(/Cannot find the manifest sha256:.* for linux\/amd64 .*--all-platforms/)
      await scene.expectTidy(globals[1]!)
    })

    it('converts, pushes and removes with everything gone at the end', async () => {
      const {ref, globals} = await scene.withApp()
      const target = `${scene.host}/app:esgz`
      await scene.ok(...globals, 'image', 'convert', '-q', '--oci', '--estargz', ref, target)
      expect(await scene.containerd.ctr(...globals, 'images', 'check', `name==${target}`)).toMatch(
        /complete \(\d+\/\d+\)/,
      )
      expect(await scene.ok(...globals, 'image', 'verify', target)).not.toBe('')
      await scene.ok(...globals, 'image', 'push', '-q', target)
      await scene.containerd.ctr(...globals, 'images', 'rm', target)
      await scene.containerd.ctr(...globals, 'images', 'pull', '--plain-http', target)
      expect(await scene.containerd.ctr(...globals, 'run', '--rm', '--net-host', target, 'converted')).toBe(
        'data\n',
      )
      await scene.ok(...globals, 'image', 'rm', '--sync', ref, target)
      expect((await contentLabels(globals[1]!)).size).toBe(0)
      expect(await scene.containerd.ctr(...globals, 'snapshots', 'ls')).not.toContain('sha256')
    })

    it.each([
      ['convert', ['--estargz']],
      ['optimize', ['--entrypoint', '["cat"]', '--args', '["/data/file"]']],
    ])('%s writes what skopeo, ctr and nerdctl can use', async (command, flags) => {
      const {ref, globals} = await scene.withApp()
      const target = `${scene.host}/judged:${command}`
      const digest = await scene.ok(...globals, 'image', command, '-q', '--oci', ...flags, ref, target)
      const manifest = JSON.parse(
        await scene.containerd.ctr(...globals, 'content', 'get', digest),
      ) as ImageManifest
      const labels = await contentLabels(globals[1])
      // What nerdctl and the garbage collector look for.
      expect(labels.get(digest)).toMatchObject({
        'containerd.io/gc.ref.content.config': manifest.config.digest,
        'containerd.io/gc.ref.content.l.0': manifest.layers[0]!.digest,
        'containerd.io/gc.ref.content.l.1': manifest.layers[1]!.digest,
      })
      const config = JSON.parse(
        await scene.containerd.ctr(...globals, 'content', 'get', manifest.config.digest),
      )
      for (const [index, layer] of manifest.layers.entries()) {
        expect(labels.get(layer.digest)).toMatchObject({
          'containerd.io/uncompressed': config.rootfs.diff_ids[index],
        })
      }
      await scene.ok(...globals, 'image', 'push', '-q', target)
      const copy = join(await temporaryDirectory(), 'copy')
      // It checks every digest on the way.
      await execFile('skopeo', ['copy', '-q', '--src-tls-verify=false', `docker://${target}`, `dir:${copy}`])
      expect(digestOf(await readFile(join(copy, 'manifest.json')))).toBe(digest)
      const archive = join(copy, 'archive.tar')
      await scene.containerd.ctr(...globals, 'images', 'export', archive, target)
      const {stdout} = await execFile('skopeo', ['inspect', `oci-archive:${archive}`])
      expect(JSON.parse(stdout).Layers).toEqual(manifest.layers.map(layer => layer.digest))
    })

    it('converts twice at once, and while garbage is collected all the time', async () => {
      const {ref, globals} = await scene.withApp()
      await using store = await openContainerdStore({
        address: scene.containerd.address,
        namespace: globals[1],
      })
      let done = false
      const collecting = (async () => {
        while (!done) await store.collectGarbage()
      })()
      const convert = (target: string) =>
        scene.ok(
          ...globals,
          'image',
          'convert',
          '-q',
          '--oci',
          '--estargz',
          '--estargz-chunk-size',
          '65536',
          ref,
          target,
        )
      const digests = await Promise.all([convert('one:1'), convert('two:1')])
      done = true
      await collecting
      expect(digests[0]).toBe(digests[1])
      for (const name of ['one:1', 'two:1']) {
        expect(await scene.containerd.ctr(...globals, 'images', 'check', `name==${name}`)).toMatch(
          /complete \(\d+\/\d+\)/,
        )
      }
      await scene.expectTidy(globals[1]!)
    })

    it('imports archives ready to run, or not', async () => {
      const {ref, globals} = await scene.withApp()
      const archive = join(await temporaryDirectory(), 'app.tar')
      await scene.ok(...globals, 'image', 'export', '-q', archive, ref)
      for (const [flags, isUnpacked] of [
        [[], 'true'],
        [['--no-unpack'], 'false'],
      ] as const) {
        const namespace = scene.newNamespace()
        expect(await scene.ok('-n', namespace, 'image', 'import', '-q', ...flags, archive)).toBe(ref)
        expect(await scene.containerd.ctr('-n', namespace, 'images', 'check')).toMatch(
          new RegExp(`app:1 .* complete \\(\\d+/\\d+\\) .* ${isUnpacked}`),
        )
        await scene.expectTidy(namespace)
      }
    })

    it('labels images', async () => {
      const {ref, globals} = await scene.withApp()
      expect(await scene.ok(...globals, 'image', 'label', ref, 'b=2', 'a=1')).toBe('a=1,b=2')
      expect(await scene.ok(...globals, 'image', 'label', ref, 'b=', 'c=3')).toBe('a=1,c=3')
      expect(await scene.containerd.ctr(...globals, 'images', 'ls')).toMatch(/a=1,c=3/)
      expect(await scene.ok(...globals, 'image', 'label', '--replace-all', ref, 'd=4')).toBe('d=4')
    })

    it('mounts images, read-only or writable, and unmounts them', async () => {
      const {ref, globals} = await scene.withApp()
      const target = await temporaryDirectory()
      expect(await scene.ok(...globals, 'image', 'mount', ref, target)).toBe(target)
      expect(await readFile(join(target, 'data/file'), 'utf8')).toBe('data\n')
      await expect(writeFile(join(target, 'x'), '')).rejects.toThrow(/EROFS/)
      // What keeps it does not end while it is mounted.
      const leases = await scene.containerd.ctr(...globals, 'leases', 'ls')
      const keeping = leases.split('\n').filter(line => line.startsWith(target))
      expect(keeping).toEqual([expect.not.stringContaining('containerd.io/gc.expire')])
      await scene.ok(...globals, 'image', 'unmount', '--rm', target)
      await scene.ok(...globals, 'image', 'mount', '--rw', ref, target)
      await writeFile(join(target, 'x'), '')
      await scene.ok(...globals, 'image', 'unmount', '--rm', target)
      await expect(stat(join(target, 'data'))).rejects.toThrow(/ENOENT/)
      await scene.expectTidy(globals[1]!)
    })

    it('imports, runs as far as there is anything to run, and mounts an image without layers', async () => {
      const globals = ['-n', scene.newNamespace()] as const
      const path = join(await temporaryDirectory(), 'empty.tar')
      const config = {
        os: 'linux',
        architecture: hostPlatform().architecture,
        rootfs: {type: 'layers', diff_ids: null},
      }
      const manifest = [{Config: 'c.json', RepoTags: ['docker.io/library/empty:1'], Layers: null}]
      await writeFile(
        path,
        tarOf({'manifest.json': JSON.stringify(manifest), 'c.json': JSON.stringify(config)}),
      )
      await scene.ok(...globals, 'image', 'import', path)
      expect(await scene.ok(...globals, 'image', 'check')).toMatch(/empty:1 .* complete \(2\/2\) .* true/)
      await scene.ok(...globals, 'image', 'convert', '--estargz', '--oci', 'empty:1', 'empty:esgz')
      const target = await temporaryDirectory()
      await scene.ok(...globals, 'image', 'mount', 'empty:1', target)
      expect(await readdir(target)).toEqual([])
      await scene.ok(...globals, 'image', 'unmount', '--rm', target)
      await scene.expectTidy(globals[1]!)
    })

    it('leaves nothing of a mount that fails', async () => {
      const {ref, globals} = await scene.withApp()
      expect(
        (await scene.user.run(...globals, 'image', 'mount', ref, '/no/such/directory')).exitCode,
      ).not.toBe(0)
      await scene.expectTidy(globals[1]!)
    })

    it('says which store containerd commands need', async () => {
      const {exitCode, stderr} = await scene.user.run('--store', 'local', 'image', 'check')
      expect(exitCode).toBe(5)
      expect(stderr).toMatch(/Cannot check images: this needs containerd/)
    })

    it('ends with a clear error when containerd is killed in the middle of a pull, and pulls again', async () => {
      await using mortal = await startContainerd({programs})
      await using slow = await startSlowRegistry()
      const pull = ['-a', mortal.address, 'image', 'pull', '--progress', 'plain', `${slow.host}/large:1`]
      const running = scene.user.start(...pull)
      while (!(await mortal.ctr('content', 'active')).includes('ctr-remote')) {
        if (running.child.exitCode !== null) throw new Error('It was too fast')
      }
      await mortal.kill()
      const {exitCode, stderr} = await running.finished
      expect(exitCode).not.toBe(0)
      expect(stderr).toMatch(/^ctr-remote: Cannot .*containerd ".*", namespace "default"/m)
      await mortal.restart()
      const again = await scene.user.run(...pull)
      expect(again.exitCode, again.stderr).toBe(0)
      expect(await mortal.ctr('images', 'check')).toMatch(/complete \(2\/2\) .* true/)
      expect(await mortal.ctr('leases', 'ls', '-q')).toBe('')
      await scene.ok('-a', mortal.address, 'image', 'rm', '--sync', `${slow.host}/large:1`)
      expect(await mortal.ctr('content', 'ls', '-q')).toBe('')
      expect(await mortal.ctr('content', 'active')).not.toContain('ctr-remote')
    })

    it('goes on where a pull that was killed stopped', async () => {
      await using slow = await startSlowRegistry()
      const namespace = scene.newNamespace()
      await using store = await openContainerdStore({address: scene.containerd.address, namespace})
      const pull = ['-n', namespace, 'image', 'pull', '-q', `${slow.host}/large:1`]
      const running = scene.user.start(...pull)
      for (let offset = 0n; offset < 4n << 20n; ) {
        const {statuses} = await store.client.call(Content.method.listStatuses, {}, {doing: 'look'})
        offset = statuses.map(status => status.offset).sort((a, b) => Number(b - a))[0] ?? 0n
        if (running.child.exitCode !== null) throw new Error('It was too fast')
      }
      running.child.kill('SIGKILL')
      await expect(running.finished).rejects.toThrow(/SIGKILL/)
      await scene.ok(...pull)
      const ranges = slow.requests.flatMap(({method, headers}) =>
        method === 'GET' ? (headers.range ?? []) : [],
      )
      expect(ranges).toEqual([expect.stringMatching(/^bytes=[1-9]\d{6,}-/)])
      expect(await scene.containerd.ctr('-n', namespace, 'images', 'check')).toMatch(
        /complete \(2\/2\) .* true/,
      )
      // What the killed one had prepared to unpack into is nobody's now, and goes when containerd next collects.
      await store.collectGarbage()
      await scene.expectTidy(namespace)
    })

    it.each(['SIGINT', 'SIGTERM'] as const)('leaves nothing behind of a pull that %s ends', async signal => {
      await using slow = await startSlowRegistry()
      const namespace = scene.newNamespace()
      const running = scene.user.start(
        '-n',
        namespace,
        'image',
        'pull',
        '--progress',
        'plain',
        `${slow.host}/large:1`,
      )
      while (!(await scene.containerd.ctr('-n', namespace, 'content', 'active')).includes('ctr-remote')) {
        if (running.child.exitCode !== null) throw new Error('It was too fast')
      }
      running.child.kill(signal)
      expect((await running.finished).exitCode).toBe(signal === 'SIGINT' ? 130 : 143)
      await scene.expectTidy(namespace)
      await using store = await openContainerdStore({address: scene.containerd.address, namespace})
      await store.collectGarbage()
      expect((await contentLabels(namespace)).size).toBe(0)
    })
  })
}

/** A registry with `large:1`, one layer that takes seconds when it is first read, and no time afterwards. */
async function startSlowRegistry(): Promise<FaultyRegistry> {
  const slow = await startFaultyRegistry()
  const tar = tarOf({large: randomBytes(16 * 1024 * 1024)})
  const layer = slow.addBlob('large', gzipSync(tar, {level: 1}), OCI_LAYER_GZIP)
  const rootfs = {type: 'layers', diff_ids: [digestOf(tar)]}
  const config = slow.addBlob('large', encodeJson({os: 'linux', architecture: 'amd64', rootfs}), OCI_CONFIG)
  const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer]}
  slow.addManifest('large', '1', manifest)
  slow.inject({method: 'GET', url: new RegExp(layer.digest)}, {kind: 'slow', delayMs: 3})
  return slow
}
