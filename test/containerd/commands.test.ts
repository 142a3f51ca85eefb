// The commands on a real containerd, with `ctr` as judge of what they leave there.

import {execFile} from 'node:child_process'
import {randomBytes} from 'node:crypto'
import {readFile, stat, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {gzipSync} from 'node:zlib'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {openContainerdStore} from '../../src/lib/containerd/store.ts'
import {digestOf} from '../../src/lib/io/sha256.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {type RunningRegistry, serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {CONTAINERDS, startContainerd, type TestContainerd} from '../support/containerd.ts'
import {CTR_REMOTE, createUser, type Finished, type User} from '../support/ctr-remote.ts'
import {type FaultyRegistry, startFaultyRegistry} from '../support/faulty-registry.ts'
import {describeWith} from '../support/requires.ts'
import {tarOf, writeSampleIndex} from '../support/sample-image.ts'
import {writeShellImage} from '../support/shell-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

for (const {release, needs, programs} of CONTAINERDS) {
  describeWith(['root', 'runc', ...needs], `on ${release}`, () => {
    let containerd: TestContainerd
    let user: User
    let registry: RunningRegistry
    /** A registry with `app:1`, which runs, and `multi:1` for amd64 and arm64. */
    let host: string

    beforeAll(async () => {
      containerd = await startContainerd({programs})
      user = await createUser({CTR_REMOTE_STORE: 'containerd', CONTAINERD_ADDRESS: containerd.address})
      const store = await openLocalStore(join(user.home, 'registry'))
      await using _ = await store.lease()
      const app = await writeShellImage(store.content, {Entrypoint: ['/bin/cat', '/data/file'], Cmd: []})
      await store.images.put('localhost/app:1', app)
      await store.images.put(
        'localhost/multi:1',
        (await writeSampleIndex(store.content, ['amd64', 'arm64'])).root,
      )
      registry = await serveRegistry(store)
      host = registry.address
    })
    afterAll(async () => {
      await registry?.[Symbol.asyncDispose]()
      await user?.[Symbol.asyncDispose]()
      await containerd?.[Symbol.asyncDispose]()
    })

    async function ok(...argv: readonly string[]): Promise<string> {
      const {exitCode, stdout, stderr} = await user.run(...argv)
      expect(exitCode, `${argv.join(' ')}: ${stderr}`).toBe(0)
      return stdout.trimEnd()
    }

    let count = 0
    const newNamespace = () => `commands-${process.pid}-${++count}`

    /** In a namespace of its own, with `app:1` pulled and unpacked. */
    async function withApp(): Promise<{readonly ref: string; readonly globals: readonly string[]}> {
      const globals = ['-n', newNamespace()]
      const ref = `${host}/app:1`
      await ok(...globals, 'image', 'pull', '-q', ref)
      return {ref, globals}
    }

    async function contentLabels(namespace: string): Promise<Map<string, Record<string, string>>> {
      const text = await containerd.ctr('-n', namespace, 'content', 'ls')
      const lines = text.trim().split('\n').slice(1)
      return new Map(
        lines.map(line => {
          const [digest = '', , , labels = ''] = line.split('\t')
          const pairs = labels.split(',').filter(pair => pair.includes('='))
          return [digest.trim(), Object.fromEntries(pairs.map(pair => pair.split(/=(.*)/s).slice(0, 2)))]
        }),
      )
    }

    /** Nothing that a command may leave: leases, ingests, containers, tasks, unfinished snapshots. */
    async function expectTidy(namespace: string): Promise<void> {
      const ctr = (...args: string[]) => containerd.ctr('-n', namespace, ...args)
      expect(await ctr('leases', 'ls', '-q')).toBe('')
      expect(await ctr('content', 'active')).not.toContain('ctr-remote')
      expect(await ctr('containers', 'ls', '-q')).toBe('')
      expect(await ctr('tasks', 'ls', '-q')).toBe('')
      expect(await ctr('snapshots', 'ls')).not.toContain('Active')
    }

    it('pulls an image that ctr finds complete, unpacked and runnable', async () => {
      const {ref, globals} = await withApp()
      expect(await containerd.ctr(...globals, 'images', 'check')).toMatch(
        /app:1 .* complete \(\d+\/\d+\) .* true/,
      )
      expect(await ok(...globals, 'image', 'check')).toMatch(/app:1 .* complete \(\d+\/\d+\) .* true/)
      expect(await containerd.ctr(...globals, 'run', '--rm', '--net-host', ref, 'by-ctr')).toBe('data\n')
      await expectTidy(globals[1]!)
    })

    it('pulls with the labels that containerd and nerdctl need', async () => {
      const {ref, globals} = await withApp()
      const labels = await contentLabels(globals[1]!)
      await using store = await openContainerdStore({address: containerd.address, namespace: globals[1]})
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
      const globals = ['-n', newNamespace()]
      const ref = `${host}/multi:1`
      await ok(
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
      expect(await containerd.ctr(...globals, 'images', 'ls')).toMatch(/multi:1 .* a=b/)
      // The index, and one manifest with its config and layer.
      expect((await contentLabels(globals[1]!)).size).toBe(4)
      expect(await containerd.ctr(...globals, 'snapshots', 'ls')).not.toContain('sha256')
      await ok(...globals, 'image', 'pull', '-q', '--all-platforms', ref)
      // A second manifest with its config and layer.
      expect((await contentLabels(globals[1]!)).size).toBe(7)
      await expectTidy(globals[1]!)
    })

    it('names the platform that a conversion lacks, instead of a digest', async () => {
      const globals = ['-n', newNamespace()]
      await ok(...globals, 'image', 'pull', '-q', '--platform', 'linux/arm64', `${host}/multi:1`)
      const convert = [
        'image',
        'convert',
        '-q',
        '--oci',
        '--estargz',
        '--all-platforms',
        `${host}/multi:1`,
        'x:1',
      ]
      const {exitCode, stderr} = await user.run(...globals, ...convert)
      expect(exitCode).toBe(3)
      expect(stderr).toMatch(/Cannot find the manifest sha256:.* for linux\/amd64 .*--all-platforms/)
      await expectTidy(globals[1]!)
    })

    it('converts, pushes and removes with everything gone at the end', async () => {
      const {ref, globals} = await withApp()
      const target = `${host}/app:esgz`
      await ok(...globals, 'image', 'convert', '-q', '--oci', '--estargz', ref, target)
      expect(await containerd.ctr(...globals, 'images', 'check', `name==${target}`)).toMatch(
        /complete \(\d+\/\d+\)/,
      )
      expect(await ok(...globals, 'image', 'verify', target)).not.toBe('')
      await ok(...globals, 'image', 'push', '-q', target)
      await containerd.ctr(...globals, 'images', 'rm', target)
      await containerd.ctr(...globals, 'images', 'pull', '--plain-http', target)
      expect(await containerd.ctr(...globals, 'run', '--rm', '--net-host', target, 'converted')).toBe(
        'data\n',
      )
      await ok(...globals, 'image', 'rm', '--sync', ref, target)
      expect((await contentLabels(globals[1]!)).size).toBe(0)
      expect(await containerd.ctr(...globals, 'snapshots', 'ls')).not.toContain('sha256')
    })

    it('converts twice at once, and while garbage is collected all the time', async () => {
      const {ref, globals} = await withApp()
      await using store = await openContainerdStore({address: containerd.address, namespace: globals[1]})
      let done = false
      const collecting = (async () => {
        while (!done) await store.collectGarbage()
      })()
      const convert = (target: string) =>
        ok(
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
        expect(await containerd.ctr(...globals, 'images', 'check', `name==${name}`)).toMatch(
          /complete \(\d+\/\d+\)/,
        )
      }
      await expectTidy(globals[1]!)
    })

    it('labels images', async () => {
      const {ref, globals} = await withApp()
      expect(await ok(...globals, 'image', 'label', ref, 'b=2', 'a=1')).toBe('a=1,b=2')
      expect(await ok(...globals, 'image', 'label', ref, 'b=', 'c=3')).toBe('a=1,c=3')
      expect(await containerd.ctr(...globals, 'images', 'ls')).toMatch(/a=1,c=3/)
      expect(await ok(...globals, 'image', 'label', '--replace-all', ref, 'd=4')).toBe('d=4')
    })

    it('mounts images, read-only or writable, and unmounts them', async () => {
      const {ref, globals} = await withApp()
      const target = await temporaryDirectory()
      expect(await ok(...globals, 'image', 'mount', ref, target)).toBe(target)
      expect(await readFile(join(target, 'data/file'), 'utf8')).toBe('data\n')
      await expect(writeFile(join(target, 'x'), '')).rejects.toThrow(/EROFS/)
      await ok(...globals, 'image', 'unmount', '--rm', target)
      await ok(...globals, 'image', 'mount', '--rw', ref, target)
      await writeFile(join(target, 'x'), '')
      await ok(...globals, 'image', 'unmount', '--rm', target)
      await expect(stat(join(target, 'data'))).rejects.toThrow(/ENOENT/)
      await expectTidy(globals[1]!)
    })

    it('leaves nothing of a mount that fails', async () => {
      const {ref, globals} = await withApp()
      expect((await user.run(...globals, 'image', 'mount', ref, '/no/such/directory')).exitCode).not.toBe(0)
      await expectTidy(globals[1]!)
    })

    it('says which store containerd commands need', async () => {
      const {exitCode, stderr} = await user.run('--store', 'local', 'image', 'check')
      expect(exitCode).toBe(5)
      expect(stderr).toMatch(/Cannot check images: this needs containerd/)
    })

    it('ends with a clear error when containerd is killed in the middle of a pull, and pulls again', async () => {
      await using mortal = await startContainerd({programs})
      await using slow = await startSlowRegistry()
      const pull = ['-a', mortal.address, 'image', 'pull', '--progress', 'plain', `${slow.host}/large:1`]
      const running = user.start(...pull)
      while (!(await mortal.ctr('content', 'active')).includes('ctr-remote')) {
        if (running.child.exitCode !== null) throw new Error('It was too fast')
      }
      await mortal.kill()
      const {exitCode, stderr} = await running.finished
      expect(exitCode).not.toBe(0)
      expect(stderr).toMatch(/^ctr-remote: Cannot .*containerd ".*", namespace "default"/m)
      await mortal.restart()
      const again = await user.run(...pull)
      expect(again.exitCode, again.stderr).toBe(0)
      expect(await mortal.ctr('images', 'check')).toMatch(/complete \(2\/2\) .* true/)
      expect(await mortal.ctr('leases', 'ls', '-q')).toBe('')
      await ok('-a', mortal.address, 'image', 'rm', '--sync', `${slow.host}/large:1`)
      expect(await mortal.ctr('content', 'ls', '-q')).toBe('')
      expect(await mortal.ctr('content', 'active')).not.toContain('ctr-remote')
    })

    it.each(['SIGINT', 'SIGTERM'] as const)('leaves nothing behind of a pull that %s ends', async signal => {
      await using slow = await startSlowRegistry()
      const namespace = newNamespace()
      const running = user.start(
        '-n',
        namespace,
        'image',
        'pull',
        '--progress',
        'plain',
        `${slow.host}/large:1`,
      )
      while (!(await containerd.ctr('-n', namespace, 'content', 'active')).includes('ctr-remote')) {
        if (running.child.exitCode !== null) throw new Error('It was too fast')
      }
      running.child.kill(signal)
      expect((await running.finished).exitCode).toBe(signal === 'SIGINT' ? 130 : 143)
      await expectTidy(namespace)
      await using store = await openContainerdStore({address: containerd.address, namespace})
      await store.collectGarbage()
      expect((await contentLabels(namespace)).size).toBe(0)
    })

    async function runs(argv: readonly string[], expected: Partial<Finished>): Promise<void> {
      const {ref, globals} = await withApp()
      const split = argv.indexOf('IMAGE')
      const words = ['run', '--rm', ...argv.slice(0, split), ref, 'test', ...argv.slice(split + 1)]
      const finished = await user.run(...globals, ...words)
      expect(finished).toMatchObject({exitCode: 0, stderr: '', ...expected})
      await expectTidy(globals[1]!)
    }

    const sh = (script: string) => ['IMAGE', 'sh', '-c', script]

    it.each([
      ['what the image says', ['IMAGE'], {stdout: 'data\n'}],
      [
        'a command of its own, flags and all',
        ['IMAGE', 'cat', '-n', '/data/file'],
        {stdout: '     1\tdata\n'},
      ],
      ['to its exit code', sh('exit 7'), {exitCode: 7, stdout: ''}],
      ['with both outputs apart', sh('echo out; echo err >&2'), {stdout: 'out\n', stderr: 'err\n'}],
      [
        'much output to its end',
        sh('cat /bin/sh /bin/sh /bin/sh | cat; echo end'),
        {stdout: expect.stringMatching(/end\n$/)},
      ],
      ['as root', sh('id -u; id -g; id -G'), {stdout: '0\n0\n0\n'}],
      [
        'as a user of the image',
        ['--user', 'web', ...sh('id -u; id -g; id -G')],
        {stdout: '33\n44\n44 55\n'},
      ],
      ['as ids', ['-u', '5:6', ...sh('id -u; id -g')], {stdout: '5\n6\n'}],
      ['with variables', ['--env', 'A=1', '--env', 'B=x y', ...sh('echo "$A$B"')], {stdout: '1x y\n'}],
      ['elsewhere', ['--cwd', '/tmp', ...sh('pwd')], {stdout: '/tmp\n'}],
      [
        'with a mount',
        ['--mount', 'type=bind,src=/etc,dst=/m,options=rbind:ro', ...sh('ls /m/passwd')],
        {stdout: '/m/passwd\n'},
      ],
      ['without output', ['--null-io', ...sh('echo x; exit 3')], {exitCode: 3, stdout: ''}],
      [
        'read-only',
        ['--read-only', ...sh('touch /x')],
        {exitCode: 1, stderr: expect.stringMatching(/Read-only/)},
      ],
      ['with its own loopback alone', sh('ls /sys/class/net'), {stdout: 'lo\n'}],
    ] as const)('runs %s', async (_, argv, expected) => {
      await runs(argv, expected)
    })

    it('keeps the order of words that occur twice', async () => {
      await runs(['IMAGE', 'sh', '-c', 'echo "$@"', 'sh', 'b', 'a', 'b', '--rm', 'test', 'a'], {
        stdout: 'b a b --rm test a\n',
      })
    })

    it('runs with more power when asked', async () => {
      const power = (flags: string[]) =>
        runs([...flags, ...sh('touch /proc/sys/kernel/hostname && echo yes')], {stdout: 'yes\n'})
      await power(['--privileged'])
      await expect(power([])).rejects.toThrow()
    })

    it('says what is wrong with a program, and leaves nothing', async () => {
      await runs(['IMAGE', 'no-such-program'], {
        exitCode: 1,
        stdout: '',
        stderr: expect.stringMatching(
          /^ctr-remote: Cannot create the task of "test" .*no-such-program.* not found/,
        ),
      })
    })

    it('keeps the container without --rm, and refuses its name to another', async () => {
      const {ref, globals} = await withApp()
      expect(await ok(...globals, 'run', '--label', 'x=y', ref, 'kept')).toBe('data')
      expect(await containerd.ctr(...globals, 'containers', 'label', 'kept', 'a=b')).toMatch(/x=y/)
      const {exitCode, stderr} = await user.run(...globals, 'run', ref, 'kept')
      expect({exitCode, stderr}).toEqual({
        exitCode: 4,
        stderr: 'ctr-remote: Cannot run "kept": there is a container of this name\n',
      })
      expect(await containerd.ctr(...globals, 'tasks', 'ls', '-q')).toBe('')
      await containerd.ctr(...globals, 'containers', 'rm', 'kept')
      await expectTidy(globals[1]!)
    })

    it('detaches, and writes down ids', async () => {
      const {ref, globals} = await withApp()
      const directory = await temporaryDirectory()
      const [pidFile, cidFile] = [join(directory, 'pid'), join(directory, 'cid')]
      const flags = ['-d', '--null-io', '--pid-file', pidFile, '--cidfile', cidFile]
      await ok(...globals, 'run', ...flags, ref, 'background', 'sleep', '1000')
      const pid = await readFile(pidFile, 'utf8')
      expect(await containerd.ctr(...globals, 'tasks', 'ls')).toMatch(
        new RegExp(`background +${pid} +RUNNING`),
      )
      expect(await readFile(cidFile, 'utf8')).toBe('background')
      await containerd.ctr(...globals, 'tasks', 'rm', '--force', 'background')
      await containerd.ctr(...globals, 'containers', 'rm', 'background')
      const again = await user.run(...globals, 'run', '-d', '--cidfile', cidFile, ref, 'again', 'sleep', '1')
      expect(again.exitCode).toBe(4)
      await expectTidy(globals[1]!)
    })

    it('passes signals on', async () => {
      const {ref, globals} = await withApp()
      const script =
        'trap "echo usr" USR1; trap "echo term; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
      const running = user.start(...globals, 'run', '--rm', ref, 'signals', 'sh', '-c', script)
      await running.line('stdout', /ready/)
      running.child.kill('SIGUSR1')
      await running.line('stdout', /usr/)
      running.child.kill('SIGTERM')
      expect(await running.finished).toMatchObject({exitCode: 5, stdout: 'ready\nusr\nterm\n'})
      await expectTidy(globals[1]!)
    })

    it('kills what does not listen', async () => {
      const {ref, globals} = await withApp()
      const running = user.start(
        ...globals,
        'run',
        '--rm',
        ref,
        'deaf',
        'sh',
        '-c',
        'n=0; trap "n=\\$((n+1)); echo no \\$n" INT; echo ready; while :; do sleep 0.1; done',
      )
      await running.line('stdout', /ready/)
      for (const request of [1, 2, 3]) {
        running.child.kill('SIGINT')
        await running.line('stdout', new RegExp(`no ${request}`))
      }
      running.child.kill('SIGINT')
      expect((await running.finished).exitCode).toBe(137)
      await expectTidy(globals[1]!)
    })

    it('gives a container a terminal of the right size', async () => {
      const {ref, globals} = await withApp()
      const words = [
        ...globals,
        'run',
        '--rm',
        '-t',
        ref,
        'terminal',
        'sh',
        '-c',
        '"stty size; echo $TERM; exit 3"',
      ]
      const command = `stty rows 33 cols 77; ${CTR_REMOTE} -a ${containerd.address} ${words.join(' ')}`
      const finished = await promisify(execFile)('script', ['-qec', command, '/dev/null']).catch(
        error => error,
      )
      expect(finished.code).toBe(3)
      expect(finished.stdout).toMatch(/33 77\r\nxterm\r\n/)
      await expectTidy(globals[1]!)
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
