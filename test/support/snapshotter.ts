// The built containerd-stargz-grpc as a process of its own: root and socket in a temporary directory, stopped by its
// process id. Whatever it leaves that it must not leave is an error of the test.

import {type ChildProcess, execFile, spawn} from 'node:child_process'
import {once} from 'node:events'
import {openSync, readFileSync} from 'node:fs'
import {mkdtemp, readdir, readFile, rm, writeFile} from 'node:fs/promises'
import {createConnection} from 'node:net'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {promisify} from 'node:util'

export const SNAPSHOTTER = resolve(import.meta.dirname, '../../bin/containerd-stargz-grpc')

const run = promisify(execFile)

export interface TestSnapshotter extends AsyncDisposable {
  /** The socket; it exists from the start of the daemon on. */
  readonly address: string
  /** The directory that holds everything of it. */
  readonly directory: string
  readonly pid: number
  /** Everything that it has logged, its earlier runs included. */
  log(): readonly Readonly<Record<string, unknown>>[]
  /** Sends a signal and waits until it is gone. */
  stop(signal: NodeJS.Signals): Promise<void>
  /** Starts it again on the same directory and waits until it serves. */
  start(): Promise<void>
}

export interface TestSnapshotterOptions {
  /** Its configuration, TOML. */
  readonly config?: string
  /** The directory of its socket and everything else; by default a fresh one. */
  readonly directory?: string
  readonly env?: Readonly<Record<string, string>>
}

/** A fresh directory for a snapshotter, for those who must know the address before it starts. */
export function snapshotterDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'ctr-remote-snapshotter-'))
}

/** The address of the snapshotter of a directory. */
export function snapshotterAddress(directory: string): string {
  return join(directory, 'grpc.sock')
}

/** Starts the daemon and waits until it serves. Needs root. */
export async function startSnapshotter(options: TestSnapshotterOptions = {}): Promise<TestSnapshotter> {
  const directory = options.directory ?? (await snapshotterDirectory())
  const address = snapshotterAddress(directory)
  const logFile = join(directory, 'log')
  const config = join(directory, 'config.toml')
  await writeFile(config, options.config ?? '')
  let daemon: ChildProcess | undefined

  async function start(): Promise<void> {
    const log = openSync(logFile, 'a')
    const argv = ['--address', address, '--config', config, '--root', join(directory, 'root')]
    daemon = spawn(SNAPSHOTTER, [...argv, '--log-level', 'debug'], {
      // Nobody's docker login gets in the way.
      env: {PATH: process.env.PATH, HOME: directory, DOCKER_CONFIG: directory, ...options.env},
      stdio: ['ignore', log, log],
    })
    while (!(await accepts(address))) {
      if (isGone(daemon)) throw new Error(`The snapshotter did not start: ${readFileSync(logFile, 'utf8')}`)
      // Polling: it tells nobody but systemd when it is ready.
      await new Promise(done => setTimeout(done, 10))
    }
  }

  async function stop(signal: NodeJS.Signals): Promise<void> {
    if (!daemon || isGone(daemon)) return
    const gone = once(daemon, 'exit')
    daemon.kill(signal)
    await gone
  }

  await start()
  return {
    address,
    directory,
    get pid() {
      return daemon!.pid!
    },
    log: () =>
      readFileSync(logFile, 'utf8')
        .split('\n')
        .filter(line => line.startsWith('{'))
        .map(line => JSON.parse(line)),
    stop,
    start,
    async [Symbol.asyncDispose]() {
      // One that was killed has not cleaned up.
      if (isGone(daemon!)) await start()
      await stop('SIGINT')
      const mounts = await mountsBelow(directory)
      for (const path of mounts.toReversed()) await run('umount', ['-l', path])
      const processes = await untilNone(() => processesOf(directory))
      for (const {pid} of processes) process.kill(pid, 'SIGKILL')
      const log = readFileSync(logFile, 'utf8')
      await rm(directory, {recursive: true, force: true, maxRetries: 5})
      if (mounts.length > 0 || processes.length > 0) {
        const left = [...mounts, ...processes.map(({command}) => command)].join('\n')
        throw new Error(`The snapshotter left behind:\n${left}\nIts log:\n${log}`)
      }
    },
  }
}

/** What is mounted below a directory. */
export async function mountsBelow(directory: string): Promise<string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
  return lines.map(line => line.split(' ')[4] ?? '').filter(path => path.startsWith(`${directory}/`))
}

function isGone(daemon: ChildProcess): boolean {
  return daemon.exitCode !== null || daemon.signalCode !== null
}

function accepts(address: string): Promise<boolean> {
  return new Promise(done => {
    const socket = createConnection(address)
    socket.once('error', () => done(false))
    socket.once('connect', () => {
      socket.destroy()
      done(true)
    })
  })
}

/** What `list` gives when it has become empty, or has not within a second: processes end soon after they are told. */
async function untilNone<Item>(list: () => Promise<Item[]>): Promise<Item[]> {
  for (let attempts = 0; ; attempts++) {
    const items = await list()
    if (items.length === 0 || attempts === 50) return items
    await new Promise(done => setTimeout(done, 20))
  }
}

/** The daemon's helpers: processes whose command line names its directory. */
async function processesOf(directory: string): Promise<{pid: number; command: string}[]> {
  const pids = (await readdir('/proc')).filter(name => /^\d+$/.test(name)).map(Number)
  const found: {pid: number; command: string}[] = []
  for (const pid of pids) {
    const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).replaceAll('\0', ' ')
    if (command.includes(directory) && pid !== process.pid) found.push({pid, command})
  }
  return found
}
