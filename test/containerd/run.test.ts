// `run` on a real containerd, with `ctr` as judge of what it leaves there.

import {execFile} from 'node:child_process'
import {readdir, readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {CONTAINERDS} from '../support/containerd.ts'
import {CTR_REMOTE, type Finished} from '../support/ctr-remote.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {type PulledApp, type Scene, startScene} from './scene.ts'

for (const {release, needs, programs} of CONTAINERDS) {
  describeWith(['root', 'runc', ...needs], `containers on ${release}`, () => {
    let scene: Scene
    let app: PulledApp
    beforeAll(async () => {
      scene = await startScene(programs)
      app = await scene.withApp()
    })
    afterAll(() => scene?.[Symbol.asyncDispose]())

    async function runs(argv: readonly string[], expected: Partial<Finished>): Promise<void> {
      const {ref, globals} = app
      const split = argv.indexOf('IMAGE')
      const words = ['run', '--rm', ...argv.slice(0, split), ref, 'test', ...argv.slice(split + 1)]
      const finished = await scene.user.run(...globals, ...words)
      expect(finished).toMatchObject({exitCode: 0, stderr: '', ...expected})
      await scene.expectTidy(globals[1]!)
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
      const {ref, globals} = app
      expect(await scene.ok(...globals, 'run', '--label', 'x=y', ref, 'kept')).toBe('data')
      expect(await scene.containerd.ctr(...globals, 'containers', 'label', 'kept', 'a=b')).toMatch(/x=y/)
      const {exitCode, stderr} = await scene.user.run(...globals, 'run', ref, 'kept')
      expect({exitCode, stderr}).toEqual({
        exitCode: 4,
        stderr: 'ctr-remote: Cannot run "kept": there is a container of this name\n',
      })
      expect(await scene.containerd.ctr(...globals, 'tasks', 'ls', '-q')).toBe('')
      await scene.containerd.ctr(...globals, 'containers', 'rm', 'kept')
      await scene.expectTidy(globals[1]!)
    })

    it('detaches, and writes down ids', async () => {
      const {ref, globals} = app
      const directory = await temporaryDirectory()
      const [pidFile, cidFile] = [join(directory, 'pid'), join(directory, 'cid')]
      const flags = ['-d', '--null-io', '--pid-file', pidFile, '--cidfile', cidFile]
      await scene.ok(...globals, 'run', ...flags, ref, 'background', 'sleep', '1000')
      const pid = await readFile(pidFile, 'utf8')
      expect(await scene.containerd.ctr(...globals, 'tasks', 'ls')).toMatch(
        new RegExp(`background +${pid} +RUNNING`),
      )
      expect(await readFile(cidFile, 'utf8')).toBe('background')
      await scene.containerd.ctr(...globals, 'tasks', 'rm', '--force', 'background')
      await scene.containerd.ctr(...globals, 'containers', 'rm', 'background')
      const again = await scene.user.run(
        ...globals,
        'run',
        '-d',
        '--cidfile',
        cidFile,
        ref,
        'again',
        'sleep',
        '1',
      )
      expect(again.exitCode).toBe(4)
      await scene.expectTidy(globals[1]!)
    })

    it('passes signals on', async () => {
      const {ref, globals} = app
      const script =
        'trap "echo usr" USR1; trap "echo term; exit 5" TERM; echo ready; while :; do sleep 0.1; done'
      const running = scene.user.start(...globals, 'run', '--rm', ref, 'signals', 'sh', '-c', script)
      await running.line('stdout', /ready/)
      running.child.kill('SIGUSR1')
      await running.line('stdout', /usr/)
      running.child.kill('SIGTERM')
      expect(await running.finished).toMatchObject({exitCode: 5, stdout: 'ready\nusr\nterm\n'})
      await scene.expectTidy(globals[1]!)
    })

    it('kills what does not listen', async () => {
      const {ref, globals} = app
      const running = scene.user.start(
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
      await scene.expectTidy(globals[1]!)
    })

    it('gives a container a terminal of the right size', async () => {
      const {ref, globals} = app
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
      const command = `stty rows 33 cols 77; ${CTR_REMOTE} -a ${scene.containerd.address} ${words.join(' ')}`
      const finished = await promisify(execFile)('script', ['-qec', command, '/dev/null']).catch(
        error => error,
      )
      expect(finished.code).toBe(3)
      expect(finished.stdout).toMatch(/33 77\r\nxterm\r\n/)
      await scene.expectTidy(globals[1]!)
    })

    describeWith(['/usr/lib/cni/ptp'], 'with --cni', () => {
      /** Flags for a network of its own; `ipam` gives out addresses from a directory of the test's. */
      async function networkFlags(ipam: object): Promise<readonly string[]> {
        const directory = await temporaryDirectory()
        const plugins = [{type: 'ptp', ipam}]
        const config = {cniVersion: '0.4.0', name: 'ctr-remote-run', plugins}
        await writeFile(join(directory, '10-test.conflist'), JSON.stringify(config))
        return ['--cni', '--cni-plugin-conf-dir', directory, '--cni-plugin-dir', '/usr/lib/cni']
      }
      const networks = () => readdir('/run/ctr-remote/networks').catch(() => [])

      it('gives it a network, and takes that down when it ends', async () => {
        const dataDir = await temporaryDirectory()
        const flags = await networkFlags({type: 'host-local', subnet: '10.213.98.0/24', dataDir})
        await runs([...flags, ...sh('ls /sys/class/net; cat /proc/net/fib_trie')], {
          stdout: expect.stringMatching(/^eth0\nlo\n.*10\.213\.98\.\d+/s),
        })
        const addresses = await readdir(join(dataDir, 'ctr-remote-run'))
        expect(addresses.filter(name => name.startsWith('10.'))).toEqual([])
        expect(await networks()).not.toContain(`${app.globals[1]}-test`)
      })

      it('says which plugin failed, and leaves nothing', async () => {
        await runs([...(await networkFlags({type: 'nonsense'})), 'IMAGE'], {
          exitCode: 5,
          stdout: '',
          stderr: expect.stringMatching(/^ctr-remote: Cannot .*"ptp" failed to ADD/),
        })
        expect(await networks()).not.toContain(`${app.globals[1]}-test`)
      })
    })

    describe('with --gpus', () => {
      /** Runs the program where a CDI file describes one GPU, whose device is the host's /dev/null. */
      async function runWithGpu(gpus: string, script: string): Promise<Finished> {
        const directory = await temporaryDirectory()
        const edits = {
          env: ['GPU=zero'],
          deviceNodes: [{path: '/dev/gpu0', hostPath: '/dev/null'}],
          mounts: [{hostPath: join(directory, 'driver'), containerPath: '/driver', options: ['bind', 'ro']}],
        }
        const devices = [{name: '0', containerEdits: edits}]
        const document = {cdiVersion: '0.6.0', kind: 'nvidia.com/gpu', devices}
        await writeFile(join(directory, 'driver'), 'driver\n')
        await writeFile(join(directory, 'gpu.json'), JSON.stringify(document))
        // The file is where it belongs, below /var/run, for this program alone.
        const prepare = `mount -t tmpfs none /run && mkdir /run/cdi && cp ${directory}/gpu.json /run/cdi`
        const words = ['-a', scene.containerd.address, ...app.globals, 'run', '--rm', '--fifo-dir', directory]
        const run = [CTR_REMOTE, ...words, '--gpus', gpus, app.ref, 'gpu', 'sh', '-c', script]
        const argv = ['--mount', 'sh', '-c', `${prepare} && exec "$@"`, 'sh', ...run]
        const {promise, resolve} = Promise.withResolvers<Finished>()
        execFile('unshare', argv, (error, stdout, stderr) =>
          resolve({exitCode: Number(error?.code ?? 0), stdout, stderr}),
        )
        return promise
      }

      it('gives it what the vendor says', async () => {
        const script = 'echo $GPU; cat /driver; test -c /dev/gpu0 && echo x > /dev/gpu0 && echo device'
        const stdout = 'zero\ndriver\ndevice\n'
        expect(await runWithGpu('all', script)).toEqual({exitCode: 0, stderr: '', stdout})
        expect(await runWithGpu('0', script)).toEqual({exitCode: 0, stderr: '', stdout})
        await scene.expectTidy(app.globals[1])
      })

      it('says which GPU is not there, and leaves nothing', async () => {
        expect(await runWithGpu('1', 'true')).toEqual({
          exitCode: 3,
          stdout: '',
          stderr: expect.stringMatching(/^ctr-remote: Cannot find the GPU "nvidia\.com\/gpu=1"/),
        })
        await scene.expectTidy(app.globals[1])
      })
    })
  })
}
