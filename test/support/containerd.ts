// A real containerd of its own: root, state and socket in a temporary directory, stopped by its process id.

import {type ChildProcess, execFile, spawn} from 'node:child_process'
import {once} from 'node:events'
import {createWriteStream} from 'node:fs'
import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {dirname, join} from 'node:path'
import {promisify} from 'node:util'
import {connectContainerd} from '../../src/lib/containerd/client.ts'
import {hasCode} from '../../src/lib/errors/coded-error.ts'
import {newerPrograms} from './newer-programs.ts'

const run = promisify(execFile)

export interface TestContainerd extends AsyncDisposable {
  readonly address: string
  /** The directory that holds everything of it. */
  readonly directory: string
  readonly pid: number
  /** Runs `ctr` against it, in the namespace `default` unless the arguments say otherwise; resolves to its output. */
  ctr(...args: readonly string[]): Promise<string>
  /** Kills it with SIGKILL and waits until it is gone. */
  kill(): Promise<void>
  /** Starts it again on the same directory, after `kill`. */
  restart(): Promise<void>
}

export interface TestContainerdOptions {
  /** Further lines of its configuration, such as `stargzPlugin(…)`. */
  readonly config?: string
  /** The directory of containerd, its shim, ctr and runc: `newerPrograms('containerd')`; by default they are those of the PATH. */
  readonly programs?: string | undefined
  /** Its directory; by default a fresh one. For those who must know `containerdAddress` of it before it starts. */
  readonly directory?: string
  /** With the service for kubelets, which most tests can do without. */
  readonly cri?: boolean
}

/** Every containerd that we are tested with: the distribution's, and a newer one. */
export const CONTAINERDS = [
  {release: "the distribution's containerd", needs: ['containerd', 'ctr'], programs: undefined},
  {release: 'a newer containerd', needs: ['newer-containerd'], programs: newerPrograms('containerd')},
] as const

/** The configuration for a remote snapshotter named `stargz`, which listens on the unix socket `address`. */
export function stargzPlugin(address: string): string {
  return `[proxy_plugins.stargz]
  type = "snapshot"
  address = ${JSON.stringify(address)}
[proxy_plugins.stargz.exports]
  root = ${JSON.stringify(dirname(address))}
  enable_remote_snapshot_annotations = "true"
`
}

export function containerdDirectory(): Promise<string> {
  return mkdtemp(join(tmpdir(), 'ctr-remote-containerd-'))
}

/** The address of the containerd of a directory. */
export function containerdAddress(directory: string): string {
  return join(directory, 'containerd.sock')
}

/**
 * Starts a containerd and waits until it answers. Needs root. runc keeps its state by namespace and id for the whole
 * machine: tests that run containers use namespaces with their process id.
 */
export async function startContainerd(options: TestContainerdOptions = {}): Promise<TestContainerd> {
  const directory = options.directory ?? (await containerdDirectory())
  const address = containerdAddress(directory)
  const config = join(directory, 'config.toml')
  await writeFile(config, configuration(directory, address, options))
  const env = {
    ...process.env,
    ...(options.programs === undefined ? {} : {PATH: `${options.programs}:${process.env.PATH}`}),
  }
  let daemon = await startDaemon(config, directory, {address, env})

  async function stop(signal: NodeJS.Signals): Promise<void> {
    if (daemon.exitCode !== null || daemon.signalCode !== null) return
    const gone = once(daemon, 'exit')
    daemon.kill(signal)
    await gone
  }

  const ctr = async (...args: readonly string[]): Promise<string> => {
    const {stdout} = await run('ctr', ['--address', address, ...args], {
      env,
      maxBuffer: 64 * 1024 * 1024,
    })
    return stdout
  }

  /** Containers of a test that failed: their shims would outlive containerd. */
  async function removeTasks(): Promise<void> {
    if (daemon.exitCode !== null || daemon.signalCode !== null) return
    for (const namespace of words(await ctr('namespaces', 'ls', '-q'))) {
      for (const task of words(await ctr('-n', namespace, 'tasks', 'ls', '-q'))) {
        await ctr('-n', namespace, 'tasks', 'rm', '--force', task)
      }
    }
  }

  return {
    address,
    directory,
    ctr,
    get pid() {
      return daemon.pid!
    },
    kill: () => stop('SIGKILL'),
    async restart() {
      daemon = await startDaemon(config, directory, {address, env})
    },
    async [Symbol.asyncDispose]() {
      await removeTasks().finally(() => stop('SIGTERM'))
      await unmountBelow(directory)
      await rm(directory, {recursive: true, force: true, maxRetries: 5})
    },
  }
}

function words(text: string): string[] {
  return text.split('\n').filter(Boolean)
}

function configuration(directory: string, address: string, options: TestContainerdOptions): string {
  return `version = 2
root = "${directory}/root"
state = "${directory}/state"
disabled_plugins = [${options.cri ? '' : '"io.containerd.grpc.v1.cri"'}]
[grpc]
  address = "${address}"
[ttrpc]
  address = "${address}.ttrpc"
[debug]
  address = "${directory}/debug.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
${options.config ?? ''}
`
}

async function startDaemon(
  config: string,
  directory: string,
  {address, env}: {readonly address: string; readonly env: NodeJS.ProcessEnv},
): Promise<ChildProcess> {
  const daemon = spawn('containerd', ['--config', config], {env, stdio: ['ignore', 'ignore', 'pipe']})
  daemon.stderr!.pipe(createWriteStream(join(directory, 'containerd.log'), {flags: 'a'}))
  for (;;) {
    try {
      const client = await connectContainerd({address})
      client[Symbol.dispose]()
      return daemon
    } catch (error) {
      if (daemon.exitCode !== null || !hasCode(error, 'unavailable', 'failed-precondition')) {
        throw new Error(
          `containerd did not start: ${await readFile(join(directory, 'containerd.log'), 'utf8')}`,
          {
            cause: error,
          },
        )
      }
      // Polling: containerd tells nobody but systemd when it is ready.
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
}

/** Whatever a killed containerd or a container left mounted. */
async function unmountBelow(directory: string): Promise<void> {
  const mounts = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .map(line => line.split(' ')[4] ?? '')
    .filter(path => path.startsWith(`${directory}/`))
  for (const path of mounts.reverse()) await run('umount', ['-l', path]).catch(() => {})
}
