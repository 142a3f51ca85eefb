// The daemon as a process: how it starts, what it refuses to start with, what it tells, and how it ends.

import {execFileSync, spawn, spawnSync} from 'node:child_process'
import {once} from 'node:events'
import {existsSync, mkdirSync, readFileSync, rmSync, symlinkSync, writeFileSync} from 'node:fs'
import {request} from 'node:http'
import {createServer} from 'node:net'
import {dirname, join} from 'node:path'
import {describe, expect, it, onTestFinished} from 'vitest'
import {openGrpcChannel} from '../../src/lib/containerd/grpc.ts'
import {Snapshots} from '../../src/lib/containerd/proto/snapshots_pb.ts'
import {listLazyLayers} from '../../src/lib/snapshotter-client/snapshotter-client.ts'
import {freePort} from '../support/free-port.ts'
import {PATIENTLY} from '../support/patience.ts'
import {describeWith} from '../support/requires.ts'
import {
  mountsBelow,
  SNAPSHOTTER,
  snapshotterDirectory,
  startSnapshotter,
  type TestSnapshotter,
} from '../support/snapshotter.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const {version} = JSON.parse(readFileSync(join(import.meta.dirname, '../../package.json'), 'utf8'))

/** Runs the daemon to its end; it must end by itself. */
function runToEnd(...argv: readonly string[]): {status: number | null; stdout: string; stderr: string} {
  const {status, stdout, stderr} = spawnSync(SNAPSHOTTER, argv, {encoding: 'utf8', timeout: 20_000})
  return {status, stdout, stderr}
}

/** The last line of a log that must be about the failure to start. */
function failureOf(stderr: string): string {
  const last = JSON.parse(stderr.trimEnd().split('\n').at(-1)!)
  expect(last).toMatchObject({level: 'fatal', msg: 'failed to run the snapshotter'})
  return last.error
}

async function start(options: Parameters<typeof startSnapshotter>[0] = {}): Promise<TestSnapshotter> {
  const snapshotter = await startSnapshotter(options)
  onTestFinished(() => snapshotter[Symbol.asyncDispose]())
  return snapshotter
}

/** Names of all snapshots. */
async function namesOf(address: string): Promise<string[]> {
  const channel = openGrpcChannel(address)
  try {
    const names: string[] = []
    for await (const {info} of channel.serverStream(Snapshots.method.list, {}, {headers: {}})) {
      names.push(...info.map(({name}) => name))
    }
    return names
  } finally {
    channel.close()
  }
}

async function prepare(address: string, key: string): Promise<void> {
  const channel = openGrpcChannel(address)
  try {
    await channel.unary(Snapshots.method.prepare, {key}, {headers: {}})
  } finally {
    channel.close()
  }
}

describe('the program', () => {
  it('tells its version and its flags', () => {
    expect(runToEnd('--version')).toMatchObject({status: 0, stdout: `containerd-stargz-grpc ${version}\n`})
    expect(runToEnd('--help').stdout).toContain('--log-level')
  })

  it('explains its flags to whoever gets them wrong', () => {
    const {status, stderr} = runToEnd('--nosuch')
    expect(status).toBe(2)
    expect(stderr).toMatch(/^containerd-stargz-grpc: Cannot use argument "--nosuch".*\nUsage of/)
  })

  it('does not start with a configuration that is wrong, or that is not there', async () => {
    const directory = await temporaryDirectory()
    const config = join(directory, 'config.toml')
    const flags = [
      '--root',
      join(directory, 'root'),
      '--address',
      join(directory, 'a.sock'),
      '--config',
      config,
    ]
    const missing = runToEnd(...flags)
    expect(missing.status).toBe(1)
    expect(failureOf(missing.stderr)).toContain(`Cannot read configuration "${config}"`)
    writeFileSync(config, '[blob]\nchunk_size = "big"\n')
    expect(failureOf(runToEnd(...flags).stderr)).toMatch(/"blob\.chunk_size": /)
    expect(existsSync(join(directory, 'root'))).toBe(false)
  })
})

describeWith(['root'], 'the daemon', () => {
  it('serves ordinary snapshots, and knows them after a restart and after a kill', async () => {
    const snapshotter = await start()
    await prepare(snapshotter.address, 'one')
    await snapshotter.stop('SIGTERM')
    expect(existsSync(snapshotter.address)).toBe(false)
    await snapshotter.start()
    await prepare(snapshotter.address, 'two')
    await snapshotter.stop('SIGKILL')
    expect(existsSync(snapshotter.address)).toBe(true)
    await snapshotter.start()
    expect(await namesOf(snapshotter.address)).toEqual(['one', 'two'])
    expect(await listLazyLayers({address: snapshotter.address})).toEqual([])
  })

  it('logs with the keys of the reference, and names unknown and useless keys of its configuration', async () => {
    const snapshotter = await start({
      config: 'nosuch = 1\n[blob]\nother = 2\n[directory_cache]\nsync_add = true\n',
    })
    const warnings = snapshotter.log().filter(({level}) => level === 'warning')
    expect(warnings).toMatchObject([
      {key: 'blob.other', msg: 'unknown key in the configuration'},
      {key: 'nosuch', msg: 'unknown key in the configuration'},
      {key: 'directory_cache.sync_add', msg: 'key of the configuration has no effect'},
    ])
    expect(Date.parse(String(warnings[0]!.time))).toBeGreaterThan(Date.now() - 60_000)
  })

  it('has its root directory alone', async () => {
    const {directory, address} = await start()
    const root = join(directory, 'root')
    const config = join(directory, 'config.toml')
    const second = (where: string, socket: string) =>
      failureOf(runToEnd('--root', where, '--address', socket, '--config', config).stderr)
    expect(second(root, join(directory, 'b.sock'))).toMatch(/metadata\.db": another daemon has it open/)
    expect(second(join(directory, 'other'), address)).toMatch(/grpc\.sock": another daemon listens there/)
    expect(await namesOf(address)).toEqual([])
  })

  it('replaces the socket of one that died, and nothing else', async () => {
    const directory = await snapshotterDirectory()
    const address = join(directory, 'grpc.sock')
    const holder = spawn(process.execPath, [
      '-e',
      `require('net').createServer().listen(${JSON.stringify(address)}, () => process.kill(process.pid, 'SIGKILL'))`,
    ])
    await once(holder, 'exit')
    expect(existsSync(address)).toBe(true)
    const snapshotter = await start({directory})
    await snapshotter.stop('SIGTERM')
    writeFileSync(address, 'precious')
    const flags = ['--root', join(directory, 'root'), '--config', join(directory, 'config.toml')]
    expect(failureOf(runToEnd('--address', address, ...flags).stderr)).toMatch(/it exists and is no socket/)
    expect(readFileSync(address, 'utf8')).toBe('precious')
    rmSync(address)
    expect(failureOf(runToEnd('--address', `/${'x'.repeat(120)}`, ...flags).stderr)).toMatch(/107 bytes/)
  })

  it('does not start on a state that is damaged, or has lost its table', async () => {
    const snapshotter = await start()
    await prepare(snapshotter.address, 'one')
    await snapshotter.stop('SIGTERM')
    const table = join(snapshotter.directory, 'root/snapshotter/metadata.db')
    const good = readFileSync(table)
    const refusal = () =>
      failureOf(
        runToEnd(
          ...['--root', join(snapshotter.directory, 'root'), '--address', snapshotter.address],
          ...['--config', join(snapshotter.directory, 'config.toml')],
        ).stderr,
      )
    writeFileSync(table, good.subarray(0, good.length / 2))
    expect(refusal()).toMatch(/metadata\.db": it is damaged/)
    rmSync(table)
    expect(refusal()).toMatch(/its metadata\.db is gone or older than its snapshots/)
    for (const suffix of ['-wal', '-shm']) rmSync(`${table}${suffix}`, {force: true})
    writeFileSync(table, good)
    await snapshotter.start()
    expect(await namesOf(snapshotter.address)).toEqual(['one'])
  })

  it('ends in order on SIGTERM and on SIGINT', async () => {
    const snapshotter = await start()
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      await snapshotter.stop(signal)
      expect(snapshotter.log().at(-1)).toMatchObject({signal, msg: 'stopping'})
      await snapshotter.start()
    }
    await snapshotter.stop('SIGINT')
    expect(await mountsBelow(snapshotter.directory)).toEqual([])
  })

  it('finds its mounts below a root that is reached by a symlink', async () => {
    const directory = await snapshotterDirectory()
    mkdirSync(join(directory, 'real'))
    symlinkSync('real', join(directory, 'root'))
    const snapshotter = await start({directory})
    await snapshotter.stop('SIGKILL')
    const before = await mountsBelow(directory)
    expect(before.length).toBeGreaterThan(0)
    await snapshotter.start()
    expect(await mountsBelow(directory)).toEqual(before)
    expect(snapshotter.log().map(({msg}) => msg)).toContain('took over a FUSE mount')
  })

  it('starts without layers that cannot be restored only where that is allowed', async () => {
    const snapshotter = await start()
    const labels = {'containerd.io/snapshot/remote': 'remote snapshot'}
    const channel = openGrpcChannel(snapshotter.address)
    await channel.unary(Snapshots.method.prepare, {key: 'k'}, {headers: {}})
    await channel.unary(Snapshots.method.commit, {key: 'k', name: 'lost', labels}, {headers: {}})
    channel.close()
    await snapshotter.stop('SIGKILL')
    await expect(snapshotter.start()).rejects.toThrow(/Cannot restore remote snapshots \\"lost\\"/)
    const config = join(snapshotter.directory, 'config.toml')
    writeFileSync(config, '[snapshotter]\nallow_invalid_mounts_on_restart = true\n')
    await snapshotter.start()
    expect(await namesOf(snapshotter.address)).toEqual(['lost'])
    expect(snapshotter.log()).toContainEqual(
      expect.objectContaining({
        level: 'warning',
        snapshots: ['lost'],
        msg: expect.stringMatching(/manually/),
      }),
    )
  })
})

describeWith(['root', 'perl'], 'the service manager', () => {
  it('is told when the daemon is ready and when it stops', async () => {
    const directory = await temporaryDirectory()
    const socket = join(directory, 'notify')
    const program = `use Socket; socket(S, AF_UNIX, SOCK_DGRAM, 0); bind(S, pack_sockaddr_un($ARGV[0])); $| = 1;
      print "listening\\n"; while (recv(S, $b, 999, 0) || defined $b) { print "$b\\n"; last if $b =~ /STOPPING/ }`
    const manager = spawn('perl', ['-e', program, socket], {stdio: ['ignore', 'pipe', 'inherit']})
    let said = ''
    manager.stdout.on('data', bytes => (said += bytes))
    await once(manager.stdout, 'data')
    const snapshotter = await start({env: {NOTIFY_SOCKET: socket}})
    const ended = once(manager, 'close')
    await snapshotter.stop('SIGTERM')
    await ended
    expect(said).toBe('listening\nREADY=1\nSTOPPING=1\n')
  })

  it('may be gone', async () => {
    const directory = await temporaryDirectory()
    const snapshotter = await start({env: {NOTIFY_SOCKET: join(directory, 'none')}})
    expect(await namesOf(snapshotter.address)).toEqual([])
  })
})

describeWith(['root'], 'what the daemon tells over HTTP', () => {
  it('are metrics, with the names of the reference', async () => {
    const port = await freePort()
    const snapshotter = await start({config: `metrics_address = "127.0.0.1:${port}"\n`})
    const response = await fetch(`http://127.0.0.1:${port}/metrics`)
    expect(response.headers.get('content-type')).toContain('text/plain')
    const text = await response.text()
    for (const name of [
      'stargz_fs_operation_duration_milliseconds',
      'stargz_fs_operation_duration_microseconds',
      'stargz_fs_operation_count',
      'stargz_fs_bytes_served',
      'stargz_fs_layer_fetched_size_bytes',
      'stargz_fs_layer_prefetch_size_bytes',
      'stargz_fs_layer_size_bytes',
      'stargz_fs_registry_requests_total',
      'process_resident_memory_bytes',
    ]) {
      expect(text).toContain(`# TYPE ${name} `)
    }
    expect((await fetch(`http://127.0.0.1:${port}/nosuch`)).status).toBe(404)
    const readiness = async () => (await fetch(`http://127.0.0.1:${port}/readyz`)).status
    await expect.poll(readiness, PATIENTLY).toBe(200)
    await snapshotter.stop('SIGTERM')
    await expect(fetch(`http://127.0.0.1:${port}/metrics`)).rejects.toThrow()
  })

  it('are refused an address that is none, or taken', async () => {
    const directory = await snapshotterDirectory()
    onTestFinished(() => rmSync(directory, {recursive: true}))
    await expect(startSnapshotter({directory, config: 'metrics_address = "nowhere"\n'})).rejects.toThrow(
      /Cannot serve metrics at/,
    )
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const {port} = server.address() as {port: number}
    const config = `metrics_address = "127.0.0.1:${port}"\n`
    await expect(startSnapshotter({directory, config})).rejects.toThrow(/EADDRINUSE/)
    expect(await mountsBelow(directory)).toEqual([])
  })

  it('is how the process is doing, on a unix socket', async () => {
    const directory = await snapshotterDirectory()
    const debug = join(directory, 'debug.sock')
    await start({directory, config: `debug_address = "${debug}"\n`})
    expect(JSON.parse(await get(debug, '/debug/vars')).memstats.rss).toBeGreaterThan(0)
    expect(JSON.parse(await get(debug, '/debug/pprof/profile?seconds=1')).nodes).toBeInstanceOf(Array)
  })
})

describeWith(['root', 'containerd', 'ctr', 'runc'], 'the image service', () => {
  it('is passed through on the socket of the snapshotter, and on another one', async () => {
    const {startContainerd, stargzPlugin} = await import('../support/containerd.ts')
    const directory = await snapshotterDirectory()
    const other = join(directory, 'cri.sock')
    await using containerd = await startContainerd({config: stargzPlugin(join(directory, 'grpc.sock'))})
    const config = (more: string) =>
      `[cri_keychain]\nenable_keychain = true\nimage_service_path = "${containerd.address}"\n${more}`
    const snapshotter = await start({directory, config: config('')})
    const method = '/runtime.v1.ImageService/ListImages'
    // This containerd runs without the CRI: its own answer comes back, and so the call has reached it.
    const answer = (socket: string) => grpcFailure(socket, method)
    expect(await answer(snapshotter.address)).toMatch(/unknown service runtime\.v1\.ImageService/)
    await snapshotter.stop('SIGTERM')
    writeFileSync(join(directory, 'config.toml'), config(`listen_path = "${other}"\n`))
    await snapshotter.start()
    expect(await answer(other)).toMatch(/unknown service/)
    expect(await answer(snapshotter.address)).not.toMatch(/unknown service/)
  })
})

async function grpcFailure(socket: string, path: string): Promise<string> {
  const grpc = await import('@grpc/grpc-js')
  const client = new grpc.Client(`unix:${socket}`, grpc.credentials.createInsecure())
  const same = (bytes: Buffer) => bytes
  return new Promise(resolve => {
    client.makeUnaryRequest(path, same, same, Buffer.alloc(0), failure => {
      client.close()
      resolve(failure?.details ?? '')
    })
  })
}

function get(socketPath: string, path: string): Promise<string> {
  return new Promise((resolve, reject) => {
    request({socketPath, path}, async response => {
      let text = ''
      for await (const chunk of response) text += chunk
      resolve(text)
    })
      .on('error', reject)
      .end()
  })
}

describe('a root directory that cannot work', () => {
  const refusal = (root: string) => {
    const flags = ['--root', root, '--address', join(dirname(root), 'a.sock'), '--config', '/dev/null']
    return failureOf(runToEnd(...flags).stderr)
  }

  it.each([':', ',', '\\'])('is refused at the start: its path has %j', async character => {
    const root = join(await temporaryDirectory(), `ro${character}ot`)
    expect(refusal(root)).toContain(`mount options cannot name a path with ${JSON.stringify(character)}`)
    expect(existsSync(root)).toBe(false)
  })

  it('is refused when a symbolic link leads to such a path', async () => {
    const directory = await temporaryDirectory()
    mkdirSync(join(directory, 'a,b'))
    symlinkSync('a,b', join(directory, 'root'))
    expect(refusal(join(directory, 'root'))).toMatch(/a,b": mount options cannot name a path with ","/)
  })
})

describeWith(['root'], 'a root directory on an overlay file system', () => {
  it('is refused at the start', async () => {
    const directory = await temporaryDirectory()
    for (const name of ['lower', 'upper', 'work', 'merged']) mkdirSync(join(directory, name))
    execFileSync(
      'mount',
      [...['-t', 'overlay', '-o', 'lowerdir=lower,upperdir=upper,workdir=work', 'overlay', 'merged']],
      {cwd: directory},
    )
    try {
      const flags = ['--address', join(directory, 'a.sock'), '--config', '/dev/null']
      const {stderr} = runToEnd('--root', join(directory, 'merged/root'), ...flags)
      expect(failureOf(stderr)).toMatch(/it is on an overlay file system, .* use a volume, or another --root/)
      expect(existsSync(join(directory, 'a.sock'))).toBe(false)
    } finally {
      execFileSync('umount', [join(directory, 'merged')])
    }
  })
})

describeWith(['root', 'prlimit'], 'descriptors', () => {
  it('may be as many as this root can have, whatever the daemon was started with', async () => {
    const few = ['prlimit', '--nofile=1024:1024']
    const snapshotter = await start({under: few})
    const limits = readFileSync(`/proc/${snapshotter.pid}/limits`, 'utf8')
    const [, limit] = /^Max open files +(\d+)/m.exec(limits)!
    // In a container root may lack the capability, and keeps what it has.
    const most = execFileSync(few[0]!, [few[1]!, 'sh', '-c', 'ulimit -n 1048576 2>/dev/null; ulimit -Hn'])
    expect(`${limit}\n`).toBe(String(most))
  })
})
