import {execFileSync, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdirSync, readdirSync, readFileSync, writeFileSync} from 'node:fs'
import {mkdir, readdir, writeFile} from 'node:fs/promises'
import {basename, join, relative, resolve} from 'node:path'
import {PassThrough, Writable} from 'node:stream'
import {describe, expect, it, onTestFinished} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {canMountErofs} from '../../src/lib/mount/mount-erofs.ts'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {type Profile, type ProfileOptions, profileImage} from '../../src/lib/profile/profile-image.ts'
import {parseMount, type WorkloadOptions} from '../../src/lib/runc/workload.ts'
import {startAccessTracer} from '../../src/lib/tracer/access-tracer.ts'
import {
  accessorProgram,
  busyboxLayer,
  executable,
  type RunnableImage,
  runnableImage,
} from '../support/busybox-image.ts'
import {convertTar} from '../support/layers.ts'
import {describeWith} from '../support/requires.ts'
import {archive, directory, member, pax} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** What sandboxes with these ids have left behind on this machine. */
function leftBehind(sandboxRoot: string, ids: readonly string[]): string[] {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8').split('\n')
  const find = ['/sys/fs/cgroup', '-maxdepth', '3', '-name', 'ctr-remote-*']
  const cgroups = execFileSync('find', find, {encoding: 'utf8'}).split('\n')
  return [
    ...mounts.filter(line => line.includes(sandboxRoot)),
    ...cgroups.filter(path => ids.includes(basename(path))),
    ...listed('/var/run/netns').filter(name => ids.includes(name)),
    ...listed(sandboxRoot),
  ]
}

function listed(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

interface Run extends Profile {
  readonly stdout: string
  readonly stderr: string
}

class Collector extends Writable {
  text = ''

  override _write(chunk: Buffer, _encoding: string, done: () => void): void {
    this.text += chunk
    done()
  }
}

/** Profiles in a sandbox root of its own, and checks that nothing of it is left. */
async function profile(
  image: RunnableImage,
  workload: WorkloadOptions = {},
  options: Partial<ProfileOptions> = {},
): Promise<Run> {
  const sandboxRoot = options.sandboxRoot ?? join(await temporaryDirectory(), 'sandboxes')
  const stdout = new Collector()
  const stderr = new Collector()
  const ids: string[] = []
  const {startTracer = startAccessTracer} = options
  try {
    const result = await profileImage(image, {
      periodSeconds: 30,
      ...options,
      startTracer: (directory, tracing) => {
        // The root file system is in the sandbox's directory, which is named for who owns it and for the sandbox.
        const [owned] = relative(sandboxRoot, directory).split('/')
        ids.push(owned!.slice(owned!.indexOf('ctr-remote-')))
        return startTracer(directory, tracing)
      },
      sandboxRoot,
      workload: {stdout, stderr, ...workload},
    })
    return {...result, stdout: stdout.text, stderr: stderr.text}
  } finally {
    expect(leftBehind(sandboxRoot, ids)).toEqual([])
  }
}

const sh = (script: string, more: WorkloadOptions = {}): WorkloadOptions => ({
  entrypoint: ['sh', '-c', script],
  ...more,
})

describeWith(['root', 'runc', 'busybox', 'cc'], 'profiling a workload', () => {
  const busybox = busyboxLayer()

  it('finds which parts of files a workload reads, and when', async () => {
    const large = new Uint8Array(8 << 20).fill(1)
    const image = await runnableImage([
      busybox,
      archive(
        directory('data/'),
        member({name: 'data/large'}, large),
        member({name: 'data/opened'}, 'x'),
        member({name: 'data/small'}, 'small'),
      ),
    ])
    const script = 'cat data/small; dd if=data/large bs=64k skip=32 count=2 of=/dev/null; : < data/opened'
    const {reads, warnings, record} = await profile(image, sh(script))
    const inPlace = await canMountErofs(await temporaryDirectory())
    if (!inPlace) {
      expect(reads).toBeUndefined()
      expect(warnings).toContainEqual(expect.stringContaining('whole files come first'))
      return
    }
    expect(warnings).toEqual([])
    expect(record.map(({path}) => path)).toEqual(expect.arrayContaining(['data/large', 'data/opened']))
    const [, data] = reads!
    expect([...data!.keys()].sort()).toEqual(['data/large', 'data/small'])
    expect(data!.get('data/small')).toEqual([{offset: 0, end: 5, atMs: expect.any(Number)}])
    const [part, ...others] = data!.get('data/large')!
    expect(others).toEqual([])
    expect(part!.offset).toBe(2 << 20)
    // What the kernel reads ahead comes with it, which is little.
    expect(part!.end).toBeGreaterThanOrEqual((2 << 20) + (128 << 10))
    expect(part!.end).toBeLessThan((2 << 20) + (1 << 20))
    expect(part!.atMs).toBeGreaterThanOrEqual(data!.get('data/small')![0]!.atMs)
    // What makes the container is read first, and the shell is not read whole.
    expect(reads![0]!.get('bin/busybox')!.length).toBeGreaterThan(0)
  })

  it('finds the files that a workload opens, in order, and the layers that they are in', async () => {
    const image = await runnableImage(
      [
        archive(
          executable('accessor', accessorProgram()),
          member({name: 'a.txt'}, 'a'),
          member({name: 'b.txt'}, 'b'),
        ),
        archive(member({name: 'c.txt'}, 'c'), member({name: 'd.txt'}, 'd')),
        archive(member({name: 'e.txt'}, 'e')),
      ],
      {Entrypoint: ['/accessor'], Cmd: ['/a.txt', '/c.txt']},
    )
    const {layers, record: withReads, warnings, exitCode, stopped} = await profile(image)
    // What was read of each is another test's, and known only where EROFS images are mounted.
    const record = withReads.map(({path, manifestDigest, layerIndex}) => ({path, manifestDigest, layerIndex}))
    expect(layers).toEqual([['accessor', 'a.txt'], ['c.txt'], []])
    const manifestDigest = image.manifestDigest
    expect(record).toEqual([
      {path: 'accessor', manifestDigest, layerIndex: 0},
      {path: 'a.txt', manifestDigest, layerIndex: 0},
      {path: 'c.txt', manifestDigest, layerIndex: 1},
    ])
    expect({warnings, exitCode, stopped}).toEqual({warnings: [], exitCode: 0, stopped: 'exited'})
  })

  it('gives converted layers the order of the upstream scenario', async () => {
    const tars = [
      archive(
        executable('accessor', accessorProgram()),
        member({name: 'a.txt'}, 'a'),
        member({name: 'b.txt'}, 'b'),
      ),
      archive(member({name: 'd.txt'}, 'd'), member({name: 'c.txt'}, 'c')),
      archive(member({name: 'e.txt'}, 'e')),
    ]
    const {layers} = await profile(await runnableImage(tars), {entrypoint: ['/accessor', '/a.txt', '/c.txt']})
    const converted = await Promise.all(
      tars.map((tar, index) => convertTar(tar, {prioritizedPaths: layers[index]!})),
    )
    expect(converted.map(({paths}) => paths)).toEqual([
      ['accessor', 'a.txt', '.prefetch.landmark', 'b.txt', 'stargz.index.json'],
      ['c.txt', '.prefetch.landmark', 'd.txt', 'stargz.index.json'],
      ['.no.prefetch.landmark', 'e.txt', 'stargz.index.json'],
    ])
  })

  it('follows scripts to their interpreters, and symbolic links to what they name', async () => {
    const script = executable('usr/bin/start', '#!/bin/sh\nread line < /lib/data\necho "$line"\n')
    const image = await runnableImage([
      busybox,
      archive(
        script,
        member({name: 'usr/lib/data'}, 'hello\n'),
        member({name: 'lib', typeflag: '2', linkName: 'usr/lib'}),
      ),
    ])
    const {layers, stdout} = await profile(image, {entrypoint: ['start']})
    expect(stdout).toBe('hello\n')
    expect(layers).toEqual([['bin/busybox'], ['usr/bin/start', 'usr/lib/data']])
  })

  it('records a file that the workload replaces or deletes once, by its name in the image', async () => {
    const image = await runnableImage([busyboxLayer(member({name: 'old'}, 'x'), member({name: 'gone'}, 'y'))])
    const {layers} = await profile(
      image,
      sh('read a < /old; echo b >> /old; read a < /old; read a < /gone; rm /gone'),
    )
    expect(layers).toEqual([['bin/busybox', 'old', 'gone']])
  })

  it('takes nothing that lower layers have and upper ones hide', async () => {
    const image = await runnableImage([
      busyboxLayer(
        directory('d/'),
        member({name: 'd/one'}, '1'),
        member({name: 'd/two'}, '2'),
        member({name: 'x'}, 'x'),
      ),
      archive(
        directory('d/'),
        member({name: 'd/.wh..wh..opq'}),
        member({name: 'd/two'}, '3'),
        member({name: '.wh.x'}),
      ),
    ])
    const {layers, stdout} = await profile(image, sh('cat /d/one /x; cat /d/two'))
    expect(stdout).toBe('3')
    expect(layers).toEqual([['bin/busybox'], ['d/two']])
  })

  it('takes nothing that a mount of the user covers', async () => {
    const source = await temporaryDirectory()
    await writeFile(join(source, 'data'), 'outside')
    const image = await runnableImage([
      busyboxLayer(directory('data/'), member({name: 'data/data'}, 'inside')),
    ])
    const mounts = [parseMount(`type=bind,src=${source},dst=/data,options=rbind:ro`)]
    const {layers, stdout} = await profile(image, sh('cat /data/data', {mounts}))
    expect(stdout).toBe('outside')
    expect(layers).toEqual([['bin/busybox']])
  })

  describe('gives the workload what it is asked for:', () => {
    const accounts = [
      directory('etc/'),
      member({name: 'etc/passwd'}, 'root:x:0:0::/:/bin/sh\napp:x:1000:1001::/:/bin/sh\n'),
      member({name: 'etc/group'}, 'root:x:0:\napp:x:1001:\nmore:x:50:root,app\n'),
    ]

    it('a user by name, with the groups of the image', async () => {
      const image = await runnableImage([busyboxLayer(...accounts)], {User: 'app', Cmd: ['id']})
      expect((await profile(image)).stdout).toBe('uid=1000(app) gid=1001(app) groups=50(more),1001(app)\n')
    })

    it('another user than the image names', async () => {
      const image = await runnableImage([busyboxLayer(...accounts)], {User: 'nobody', Cmd: ['id']})
      expect((await profile(image, {user: '7:app'})).stdout).toBe('uid=7 gid=1001(app) groups=1001(app)\n')
    })

    it('environment and working directory, which is made when the image lacks it', async () => {
      const image = await runnableImage([busybox], {Env: ['A=1', 'B=2'], WorkingDir: '/not/there'})
      const {stdout} = await profile(image, sh('echo $A$B$C; pwd', {env: ['B=3', 'C=4']}))
      expect(stdout).toBe('134\n/not/there\n')
    })

    it('arguments for the entrypoint of the image', async () => {
      const image = await runnableImage([busybox], {Entrypoint: ['cat'], Cmd: ['/nothing']})
      expect((await profile(image, {args: ['/etc/hosts']})).stdout).toContain('127.0.0.1\tlocalhost')
    })

    it('hosts and name servers', async () => {
      const image = await runnableImage([busybox])
      const {stdout} = await profile(
        image,
        sh('cat /etc/hosts /etc/resolv.conf', {
          addHosts: [{host: 'db', address: '10.0.0.5'}],
          dnsNameservers: ['10.0.0.1'],
          dnsSearchDomains: ['example.com'],
          dnsOptions: ['ndots:2'],
        }),
      )
      expect(stdout).toContain('10.0.0.5\tdb\n')
      expect(stdout).toContain('nameserver 10.0.0.1\nsearch example.com\noptions ndots:2\n')
    })

    it('a network namespace of its own with loopback, or the host’s', async () => {
      const image = await runnableImage([busybox])
      const own = await profile(image, sh('cat /proc/net/dev; ip addr show lo'))
      expect(own.stdout).toContain('LOOPBACK,UP')
      expect(own.stdout).not.toContain('eth0')
      const host = await profile(image, sh('cat /proc/net/dev', {netHost: true}))
      const names = (text: string) => [...text.matchAll(/^\s*(\S+):/gm)].map(match => match[1]).sort()
      expect(names(host.stdout)).toEqual(names(readFileSync('/proc/net/dev', 'utf8')))
    })

    it('standard input', async () => {
      const stdin = new PassThrough()
      stdin.end('typed')
      const image = await runnableImage([busybox])
      expect((await profile(image, sh('cat; echo " and read"', {stdin}))).stdout).toBe('typed and read\n')
    })

    it('an end of input when there is none', async () => {
      const image = await runnableImage([busybox])
      expect((await profile(image, sh('cat; echo done'))).stdout).toBe('done\n')
    })
  })

  describe('stops the workload', () => {
    it('when its period is over, with the stop signal of the image', async () => {
      const image = await runnableImage([busybox], {StopSignal: 'SIGQUIT'})
      const workload = sh('trap "echo quit; exit 0" QUIT; while true; do sleep 0.05; done')
      const {stopped, stdout, exitCode} = await profile(image, workload, {periodSeconds: 1})
      expect({stopped, stdout, exitCode}).toEqual({stopped: 'period', stdout: 'quit\n', exitCode: undefined})
    })

    it('when it has printed what is waited for, even without the end of the line', async () => {
      const image = await runnableImage([busybox])
      const workload = sh('echo starting; printf "now ready:"; exec sleep 1000')
      const {stopped, stdout} = await profile(image, workload, {waitOnLine: 'ready'})
      expect({stopped, stdout}).toEqual({stopped: 'line', stdout: 'starting\nnow ready:'})
    })

    it('when its caller says so', async () => {
      const stop = new AbortController()
      const image = await runnableImage([busybox])
      const stdout = new PassThrough().on('data', () => stop.abort())
      const workload = sh('echo started; exec sleep 1000', {stdout})
      const {stopped, layers} = await profile(image, workload, {stopSignal: stop.signal, periodSeconds: 0})
      expect({stopped, layers}).toEqual({stopped: 'signal', layers: [['bin/busybox']]})
    })

    it('and everything that it left running', async () => {
      const image = await runnableImage([busybox])
      const {exitCode, stdout} = await profile(image, sh('sleep 1000 & echo over'))
      expect({exitCode, stdout}).toEqual({exitCode: 0, stdout: 'over\n'})
    })
  })

  describe('says what is wrong:', () => {
    it('a workload that fails is a warning', async () => {
      const image = await runnableImage([busybox])
      const {exitCode, warnings} = await profile(image, sh('exit 3'))
      expect(exitCode).toBe(3)
      expect(warnings).toEqual([expect.stringContaining('exit code 3')])
    })

    it('a line that never came is a warning', async () => {
      const image = await runnableImage([busybox])
      const {warnings} = await profile(image, sh('echo other'), {waitOnLine: 'ready'})
      expect(warnings).toEqual([expect.stringContaining('"ready"')])
    })

    const failures: ReadonlyArray<readonly [string, WorkloadOptions, string, string]> = [
      ['a missing program', {entrypoint: ['/nope']}, 'failed-precondition', '/nope'],
      [
        'a program that is not on the PATH',
        {entrypoint: ['nope']},
        'failed-precondition',
        'not found in $PATH',
      ],
      ['a file that is no program', {entrypoint: ['/bad']}, 'failed-precondition', 'exec format error'],
      ['a script without its interpreter', {entrypoint: ['/script']}, 'failed-precondition', 'no such file'],
      ['nothing to run', {}, 'invalid-argument', 'neither an entrypoint nor a command'],
      ['a user that the image does not know', {entrypoint: ['sh'], user: 'who'}, 'not-found', '"who"'],
      ['a relative working directory', {entrypoint: ['sh'], cwd: 'x'}, 'invalid-argument', 'absolute'],
      [
        'a mount of nothing',
        {entrypoint: ['sh'], mounts: [parseMount('type=bind,src=/no/such,dst=/x')]},
        'failed-precondition',
        '/no/such',
      ],
    ]
    for (const [name, workload, code, message] of failures) {
      it(`${name} is an error`, async () => {
        const image = await runnableImage([
          busyboxLayer(executable('bad', '\x7fELF?'), executable('script', '#!/none\n')),
        ])
        await expect(profile(image, workload)).rejects.toMatchObject({
          code,
          message: expect.stringContaining(message),
        })
      })
    }

    it('a layer that is not what the config says is an error', async () => {
      const image = await runnableImage([busybox], {}, [digestOf('something else')])
      await expect(profile(image, sh('true'))).rejects.toMatchObject({code: 'corrupt'})
    })
  })

  it('gives devices of CDI to the workload, and takes what their hooks read in the image', async () => {
    const sandboxRoot = join(await temporaryDirectory(), 'sandboxes')
    const image = await runnableImage([
      busyboxLayer(directory('etc/'), member({name: 'etc/ld.so.conf'}, 'x')),
    ])
    const hook = {path: '/bin/sh', args: ['sh', '-c', `cat ${sandboxRoot}/*/files/rootfs/etc/ld.so.conf`]}
    const resolveGpus: ProfileOptions['resolveGpus'] = async selection => ({
      env: [`GPUS=${selection}`],
      mounts: [],
      devices: [{path: '/dev/gpu0', type: 'c', major: 1, minor: 3}],
      hooks: [{stage: 'createRuntime', hook}],
      additionalGids: [],
    })
    const workload = sh('echo $GPUS; cat /dev/gpu0 && stat -c %F,%t,%T /dev/gpu0', {gpus: ['0']})
    const {layers, stdout} = await profile(image, workload, {resolveGpus, sandboxRoot})
    expect(stdout).toBe('0\ncharacter special file,1,3\n')
    expect(layers).toEqual([['etc/ld.so.conf', 'bin/busybox']])
  })

  it('goes on when its output is no longer wanted', async () => {
    const stdout = new PassThrough({highWaterMark: 1})
    stdout.once('readable', () => stdout.destroy())
    const image = await runnableImage([busybox])
    const workload = sh('for i in 1 2 3 4 5 6 7 8; do cat /bin/busybox; done; echo ready; sleep 1000', {
      stdout,
    })
    expect((await profile(image, workload, {waitOnLine: 'ready'})).stopped).toBe('line')
  })

  it('leaves nothing behind when it is aborted while the workload runs', async () => {
    const abort = new AbortController()
    const image = await runnableImage([busybox])
    const stdout = new PassThrough().on('data', () => abort.abort())
    const workload = sh('trap "" TERM INT; echo started; while true; do sleep 1; done', {stdout})
    await expect(profile(image, workload, {signal: abort.signal})).rejects.toMatchObject({name: 'AbortError'})
  })

  it('leaves nothing behind when it is aborted before', async () => {
    const image = await runnableImage([busybox])
    const signal = AbortSignal.abort()
    await expect(profile(image, sh('true'), {signal})).rejects.toMatchObject({name: 'AbortError'})
  })

  it('leaves nothing behind when watching fails', async () => {
    const image = await runnableImage([busybox])
    const startTracer: ProfileOptions['startTracer'] = async () => ({
      finish: () => Promise.reject(new Error('lost')),
      [Symbol.asyncDispose]: async () => {},
    })
    await expect(profile(image, sh('true'), {startTracer})).rejects.toThrow('lost')
  })

  it('cleans up after a run that was killed', async () => {
    const sandboxRoot = join(await temporaryDirectory(), 'sandboxes')
    const runner = resolve(import.meta.dirname, 'endless-profile.ts')
    const child = spawn(process.execPath, [runner, sandboxRoot], {stdio: ['ignore', 'pipe', 'inherit']})
    await Promise.race([once(child.stdout, 'data'), once(child, 'exit')])
    child.kill('SIGKILL')
    await once(child, 'exit')
    const ids = listed(sandboxRoot).map(name => name.slice(name.indexOf('ctr-remote-')))
    expect(leftBehind(sandboxRoot, ids).length).toBeGreaterThan(ids.length)
    const image = await runnableImage([busybox])
    expect((await profile(image, sh('echo next'), {sandboxRoot})).stdout).toBe('next\n')
    expect(leftBehind(sandboxRoot, ids)).toEqual([])
  })

  it('unpacks where file systems cannot be stacked deep enough, as in a container', async () => {
    const base = await temporaryDirectory()
    onTestFinished(() => unmountBelow(base))
    for (const name of ['lower', 'disk', 'merged']) mkdirSync(join(base, name))
    execFileSync('mount', ['-t', 'tmpfs', 'tmpfs', join(base, 'disk')])
    for (const name of ['upper', 'work']) mkdirSync(join(base, 'disk', name))
    const data = `lowerdir=${base}/lower,upperdir=${base}/disk/upper,workdir=${base}/disk/work`
    execFileSync('mount', ['-t', 'overlay', '-o', data, 'overlay', join(base, 'merged')])
    const image = await runnableImage([busybox, archive(member({name: 'a'}, 'a\n'))])
    const sandboxRoot = join(base, 'merged', 'sandboxes')
    const {layers, stdout} = await profile(image, sh('cat /a'), {sandboxRoot})
    expect(stdout).toBe('a\n')
    expect(layers).toEqual([['bin/busybox'], ['a']])
  })

  it('refuses a sandbox root that others can write to', async () => {
    const sandboxRoot = await temporaryDirectory()
    writeFileSync(join(sandboxRoot, 'x'), '')
    execFileSync('chmod', ['777', sandboxRoot])
    const image = await runnableImage([busybox])
    const options = {workload: sh('true'), periodSeconds: 1, sandboxRoot}
    await expect(profileImage(image, options)).rejects.toMatchObject({code: 'permission-denied'})
  })

  it('runs images of more than a hundred layers', async () => {
    const tars = Array.from({length: 130}, (_, index) => archive(member({name: `f${index}`}, String(index))))
    const image = await runnableImage([busybox, ...tars])
    const {layers, stdout} = await profile(image, sh('cat /f0 /f129'))
    expect(stdout).toBe('0129')
    expect([layers[1], layers[130]]).toEqual([['f0'], ['f129']])
  })

  it('keeps the attributes of directories that an upper layer only implies', async () => {
    const image = await runnableImage([
      busyboxLayer(member({name: 'd/', typeflag: '5', mode: 0o2770, uid: 5, gid: 6})),
      archive(member({name: 'd/file'}, 'x')),
    ])
    expect((await profile(image, sh('stat -c "%a %u %g" /d'))).stdout).toBe('2770 5 6\n')
  })

  it('understands names and attributes that are not UTF-8', async () => {
    const raw = Buffer.from([0x66, 0xff, 0x2e])
    const image = await runnableImage([busyboxLayer(pax({path: raw}), member({name: 'f'}, 'odd'))])
    const {layers, stdout} = await profile(image, sh('cat /f*.'))
    expect(stdout).toBe('odd')
    expect(layers).toEqual([['bin/busybox', 'f\udcff.']])
  })
})

describeWith(['root', 'runc', 'busybox', 'script'], 'profiling with a terminal', () => {
  it('gives the workload a terminal of the size of ours, with our input', async () => {
    const sandboxRoot = join(await temporaryDirectory(), 'sandboxes')
    const runner = resolve(import.meta.dirname, 'terminal-profile.ts')
    const command = `stty rows 33 cols 77; ${process.execPath} ${runner} ${sandboxRoot}`
    const child = spawn('script', ['-qec', command, '/dev/null'], {stdio: ['pipe', 'pipe', 'inherit']})
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text
      if (output.includes('ask>') && child.stdin.writable) child.stdin.end('word\n')
    })
    await once(child, 'close')
    expect(output).toContain('33 77')
    expect(output).toContain('got word')
    expect(output).toContain('["bin/busybox"]')
    expect(listed(sandboxRoot)).toEqual([])
  })
})

describeWith(['root', 'runc', 'busybox', '/usr/lib/cni/ptp'], 'profiling with CNI', () => {
  const ptp = {type: 'ptp', ipam: {type: 'host-local', subnet: '10.213.97.0/24'}}

  async function cniWith(config: unknown) {
    const confDir = await temporaryDirectory()
    await writeFile(join(confDir, '10-test.conflist'), JSON.stringify(config))
    await writeFile(join(confDir, '20-other.conf'), 'not JSON')
    return {confDir, pluginDir: '/usr/lib/cni'}
  }

  it('runs the plugins of the first configuration, and undoes what they did', async () => {
    const dataDir = await temporaryDirectory()
    const plugin = {...ptp, ipam: {...ptp.ipam, dataDir}}
    const cni = await cniWith({cniVersion: '0.4.0', name: 'ctr-remote-test', plugins: [plugin]})
    const image = await runnableImage([busyboxLayer()])
    const {stdout} = await profile(image, sh('ip addr', {cni}))
    expect(stdout).toMatch(/inet 10\.213\.97\.\d+/)
    expect(stdout).toContain('LOOPBACK,UP')
    const leases = await readdir(join(dataDir, 'ctr-remote-test'))
    expect(leases.filter(name => name.startsWith('10.'))).toEqual([])
  })

  it('says which plugin failed and why, and leaves nothing behind', async () => {
    const cni = await cniWith({
      cniVersion: '0.4.0',
      name: 'n',
      plugins: [{type: 'ptp', ipam: {type: 'nonsense'}}],
    })
    const image = await runnableImage([busyboxLayer()])
    await expect(profile(image, sh('true', {cni}))).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringContaining('"ptp" failed to ADD'),
    })
  })

  it('says when there is no configuration', async () => {
    const confDir = join(await temporaryDirectory(), 'empty')
    await mkdir(confDir)
    const image = await runnableImage([busyboxLayer()])
    await expect(
      profile(image, sh('true', {cni: {confDir, pluginDir: '/usr/lib/cni'}})),
    ).rejects.toMatchObject({
      code: 'failed-precondition',
      message: expect.stringContaining('no CNI configuration'),
    })
  })
})
