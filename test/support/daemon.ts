// A built daemon as a process of its own: all that it has is in a temporary directory, and it is stopped by its process id.
// Whatever it leaves that it must not leave is an error of the test.

import {type ChildProcess, execFile, spawn} from 'node:child_process'
import {once} from 'node:events'
import {openSync, readFileSync} from 'node:fs'
import {readdir, readFile, rm, writeFile} from 'node:fs/promises'
import {createConnection} from 'node:net'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {PATIENTLY} from './patience.ts'

const run = promisify(execFile)

export interface TestDaemon extends AsyncDisposable {
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

export interface TestDaemonOptions {
  /** The program, with what starts it, and what it is called in errors. */
  readonly program: readonly string[]
  readonly what: string
  readonly directory: string
  /** The socket by which it is seen to serve. */
  readonly address: string
  /** Its configuration, TOML, which is at `config.toml` in the directory. */
  readonly config: string
  readonly argv: readonly string[]
  readonly env: Readonly<Record<string, string>>
}

/** Starts the daemon and waits until it serves. Needs root. */
export async function startDaemon(options: TestDaemonOptions): Promise<TestDaemon> {
  const {what, directory, address} = options
  const [program, ...before] = options.program
  const logFile = join(directory, 'log')
  await writeFile(join(directory, 'config.toml'), options.config)
  let daemon: ChildProcess | undefined

  async function start(): Promise<void> {
    const log = openSync(logFile, 'a')
    daemon = spawn(program!, [...before, ...options.argv], {
      // Nobody's docker login gets in the way.
      env: {PATH: process.env.PATH, HOME: directory, DOCKER_CONFIG: directory, ...options.env},
      stdio: ['ignore', log, log],
    })
    while (!(await accepts(address))) {
      if (isGone(daemon)) throw new Error(`${what} did not start: ${readFileSync(logFile, 'utf8')}`)
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
        throw new Error(`${what} left behind:\n${left}\nIts log:\n${log}`)
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

/** What `list` gives when it has become empty, or has not for long: processes end soon after they are told. */
async function untilNone<Item>(list: () => Promise<Item[]>): Promise<Item[]> {
  for (const deadline = Date.now() + PATIENTLY.timeout; ; await new Promise(done => setTimeout(done, 20))) {
    const items = await list()
    if (items.length === 0 || Date.now() > deadline) return items
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
