// A real dockerd of Debian unstable, on a containerd of the test's, with its images in containerd and a snapshotter named
// stargz. All that it has is in a temporary directory, and it is stopped by its process id.

import {type ChildProcess, execFile, spawn} from 'node:child_process'
import {once} from 'node:events'
import {openSync, readFileSync} from 'node:fs'
import {mkdir, mkdtemp, rm, symlink, writeFile} from 'node:fs/promises'
import {createConnection} from 'node:net'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {newerPrograms} from './newer-programs.ts'

const run = promisify(execFile)

/** Where it keeps its images: runc keeps containers by namespace and id for the whole machine. */
export const DOCKER_NAMESPACE = `moby-${process.pid}`

export interface TestDockerd extends AsyncDisposable {
  readonly directory: string
  /** Runs `docker` against it; resolves to its stdout and stderr, and rejects when it fails. */
  docker(...args: readonly string[]): Promise<string>
  log(): string
  /** A program that is `docker` against it, for others to run. */
  readonly client: string
}

export interface TestDockerdOptions {
  /** The address of a containerd that knows the snapshotter. */
  readonly containerd: string
  /** Further keys of its daemon.json. */
  readonly config?: Readonly<Record<string, unknown>>
}

/** Starts it without networks of its own, which it could not make everywhere; containers get none, or the host's. */
export async function startDockerd(options: TestDockerdOptions): Promise<TestDockerd> {
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-dockerd-'))
  const socket = join(directory, 'docker.sock')
  const config = {
    features: {'containerd-snapshotter': true},
    'storage-driver': 'stargz',
    bridge: 'none',
    iptables: false,
    ip6tables: false,
    'userland-proxy': false,
    ...options.config,
  }
  await writeFile(join(directory, 'daemon.json'), JSON.stringify(config))
  await mkdir(join(directory, 'config/cli-plugins'), {recursive: true})
  await symlink(
    join(newerPrograms('docker'), 'docker-buildx'),
    join(directory, 'config/cli-plugins/docker-buildx'),
  )
  const env = {
    PATH: `${newerPrograms('docker')}:${newerPrograms('containerd')}:${process.env.PATH}`,
    HOME: directory,
    DOCKER_CONFIG: join(directory, 'config'),
    DOCKER_HOST: `unix://${socket}`,
    BUILDX_CONFIG: join(directory, 'buildx'),
  }
  const logFile = join(directory, 'log')
  const log = openSync(logFile, 'a')
  const argv = [
    '--config-file',
    join(directory, 'daemon.json'),
    '--containerd',
    options.containerd,
    '--containerd-namespace',
    DOCKER_NAMESPACE,
    '--data-root',
    join(directory, 'root'),
    '--exec-root',
    join(directory, 'exec'),
    '--pidfile',
    join(directory, 'pid'),
    '--host',
    `unix://${socket}`,
  ]
  const child = spawn('dockerd', argv, {env, stdio: ['ignore', log, log]})
  const text = () => readFileSync(logFile, 'utf8')
  while (!(await accepts(socket))) {
    if (child.exitCode !== null) throw new Error(`dockerd did not start: ${text()}`)
    await new Promise(done => setTimeout(done, 20))
  }
  const client = join(directory, 'docker')
  const exported = Object.entries(env).map(([name, value]) => `export ${name}='${value}'\n`)
  await writeFile(client, `#!/bin/sh\n${exported.join('')}exec docker "$@"\n`, {mode: 0o755})
  return {
    directory,
    client,
    log: text,
    async docker(...args) {
      const {stdout, stderr} = await run('docker', [...args], {env, maxBuffer: 1 << 26})
      return stdout + stderr
    },
    async [Symbol.asyncDispose]() {
      await stop(child)
      await unmountBelow(directory)
      await rm(directory, {recursive: true, force: true})
    },
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  const gone = once(child, 'exit')
  child.kill('SIGTERM')
  await gone
}

function accepts(path: string): Promise<boolean> {
  return new Promise(done => {
    const socket = createConnection(path)
    socket.once('error', () => done(false))
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
  })
}
