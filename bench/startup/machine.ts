// What the benchmark runs on: a registry with its log, and for every start a containerd and a snapshotter that have
// never seen anything, on a file system of their own.

import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {createWriteStream} from 'node:fs'
import {mkdir, readFile, rm, truncate, writeFile} from 'node:fs/promises'
import {join, resolve} from 'node:path'
import {createInterface} from 'node:readline'
import {setTimeout as sleep} from 'node:timers/promises'
import {execa} from 'execa'
import {CTR_REMOTE} from './subjects.ts'

/** A lazy snapshotter's daemon, and the client that pulls through it. */
export interface Programs {
  readonly name: string
  readonly daemon: string
  readonly client: string
}

export const OURS: Programs = {
  name: 'ours',
  daemon: resolve(import.meta.dirname, '../../bin/containerd-stargz-grpc'),
  client: CTR_REMOTE,
}

/** Those of another build or of the reference, which has the same names, in a directory. */
export function programsIn(directory: string): Programs {
  return {
    name: 'reference',
    daemon: join(directory, 'containerd-stargz-grpc'),
    client: join(directory, 'ctr-remote'),
  }
}
const DISK_SIZE = 32 * 2 ** 30

/** What left the registry. */
export interface Served {
  readonly requests: number
  readonly bytes: number
}

export interface Registry extends AsyncDisposable {
  readonly port: number
  /** Since the registry was started. */
  served(): Served
}

/** Starts our registry on a store of its own. */
export async function startRegistry(directory: string): Promise<Registry> {
  const words = ['registry', 'serve', '--listen=127.0.0.1:0', '--log-format=json']
  const env = {...process.env, CTR_REMOTE_STORE: 'local', CTR_REMOTE_DATA_DIR: directory}
  const child = spawn(CTR_REMOTE, words, {env, stdio: ['ignore', 'pipe', 'pipe']})
  const served = {requests: 0, bytes: 0}
  createInterface({input: child.stderr}).on('line', line => {
    if (!line.startsWith('{')) return void process.stderr.write(`${line}\n`)
    served.requests++
    served.bytes += (JSON.parse(line) as {sentBytes: number}).sentBytes
  })
  for await (const line of createInterface({input: child.stdout})) {
    const port = Number(/:(\d+)\/?$/.exec(line)?.[1])
    return {port, served: () => ({...served}), [Symbol.asyncDispose]: () => stop(child)}
  }
  throw new Error('the registry did not start')
}

/** A machine that nothing has been pulled to. Disposing it leaves nothing behind. */
export interface Machine extends AsyncDisposable {
  /** A directory of it, for mounts. */
  readonly directory: string
  readonly containerd: number
  /** Undefined without a lazy snapshotter. */
  readonly snapshotter: number | undefined
  /** Words of a ctr (or ctr-remote) command up to the command's own. */
  readonly globals: readonly string[]
  /** containerd's. */
  readonly socket: string
}

/**
 * Starts containerd, and the snapshotter where one is wanted, on a fresh file system at `directory`. `plainHttp` are
 * registries without TLS, which are added to the snapshotter's configuration: others than ours have to be told.
 */
export async function startMachine(
  directory: string,
  {
    programs,
    cri = false,
    config,
    plainHttp = [],
  }: {
    readonly programs: Programs | undefined
    /** Whether containerd has its CRI, with the lazy snapshotter where there is one. */
    readonly cri?: boolean
    readonly config: string
    readonly plainHttp?: readonly string[]
  },
): Promise<Machine> {
  const disk = await mountDisk(directory)
  const daemons: ChildProcess[] = []
  const release = async () => {
    for (const daemon of daemons.reverse()) await stop(daemon)
    await disk[Symbol.asyncDispose]()
  }
  try {
    const [socket, lazySocket] = [join(directory, 'containerd.sock'), join(directory, 'stargz.sock')]
    const criConfig = cri ? criSection(programs ? 'stargz' : 'overlayfs', directory) : undefined
    await writeFile(
      join(directory, 'containerd.toml'),
      containerdConfig(directory, socket, lazySocket, criConfig),
    )
    if (programs) {
      const paths = [`--address=${lazySocket}`, `--root=${join(directory, 'stargz')}`]
      const ownConfig = join(directory, 'stargz.toml')
      await writeFile(ownConfig, `${await readFile(config, 'utf8')}\n${plainHttp.map(hostConfig).join('')}`)
      // SIGINT, not SIGTERM, has the snapshotter unmount everything.
      daemons.push(startDaemon(programs.daemon, [...paths, `--config=${ownConfig}`], directory))
      await waitFor(() => execa('test', ['-S', lazySocket]), daemons)
    }
    daemons.push(startDaemon('containerd', ['--config', join(directory, 'containerd.toml')], directory))
    const globals = ['--address', socket, '--namespace', cri ? 'k8s.io' : `bench-startup-${process.pid}`]
    await waitFor(() => execa('ctr', [...globals, 'version']), daemons)
    return {
      directory,
      containerd: daemons.at(-1)!.pid!,
      snapshotter: programs ? daemons[0]!.pid! : undefined,
      globals,
      socket,
      [Symbol.asyncDispose]: release,
    }
  } catch (error) {
    await release()
    throw error
  }
}

/** ext4 in a sparse file: deleting a tree on an old file system makes the next unpack slow. */
export async function mountDisk(directory: string): Promise<AsyncDisposable> {
  const image = `${directory}.img`
  await mkdir(directory, {recursive: true})
  await writeFile(image, '')
  await truncate(image, DISK_SIZE)
  await execa('mkfs.ext4', ['-q', '-F', '-E', 'lazy_itable_init=1,lazy_journal_init=1', image])
  await execa('mount', ['-o', 'loop', image, directory])
  return {
    async [Symbol.asyncDispose]() {
      const {stdout} = await execa('findmnt', ['--list', '--noheadings', '--output', 'TARGET'])
      const below = stdout.split('\n').filter(path => path.startsWith(`${directory}/`))
      for (const path of below.reverse()) await execa('umount', ['-l', path], {reject: false})
      await execa('umount', ['-l', directory])
      await rm(image)
      await rm(directory, {recursive: true})
    },
  }
}

export function startDaemon(program: string, words: readonly string[], directory: string): ChildProcess {
  const daemon = spawn(program, words, {stdio: ['ignore', 'pipe', 'pipe']})
  const log = createWriteStream(join(directory, `${program.split('/').at(-1)}.log`))
  daemon.stdout.pipe(log)
  daemon.stderr.pipe(log)
  return daemon
}

export async function stop(daemon: ChildProcess): Promise<void> {
  if (daemon.exitCode !== null || daemon.signalCode !== null) return
  const gone = once(daemon, 'exit')
  daemon.kill('SIGINT')
  await gone
}

export async function waitFor(
  probe: () => Promise<unknown>,
  daemons: readonly ChildProcess[],
): Promise<void> {
  const daemon = daemons.at(-1)!
  const said: Buffer[] = []
  daemon.stderr?.on('data', (bytes: Buffer) => said.push(bytes))
  for (const deadline = Date.now() + 30_000; ; await sleep(20)) {
    if (await probe().then(Boolean, () => false)) return
    if (daemon.exitCode === null && Date.now() < deadline) continue
    throw new Error(`${daemon.spawnfile} did not start:\n${Buffer.concat(said)}`)
  }
}

function containerdConfig(
  directory: string,
  socket: string,
  lazySocket: string,
  criConfig: string | undefined,
): string {
  return `version = 2
root = "${directory}/containerd"
state = "${directory}/state"
disabled_plugins = [${criConfig === undefined ? '"io.containerd.grpc.v1.cri", ' : ''}"io.containerd.snapshotter.v1.btrfs"]
[grpc]
  address = "${socket}"
[ttrpc]
  address = "${socket}.ttrpc"
[plugins."io.containerd.internal.v1.opt"]
  path = "${directory}/opt"
[proxy_plugins.stargz]
  type = "snapshot"
  address = "${lazySocket}"
${criConfig ?? ''}`
}

/** Of containerd 1.x, whose CRI speaks plain HTTP with a registry on this machine. */
function criSection(snapshotter: string, directory: string): string {
  return `[plugins."io.containerd.grpc.v1.cri"]
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "${snapshotter}"
    disable_snapshot_annotations = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "${directory}/cni/bin"
    conf_dir = "${directory}/cni/conf"
`
}

/** Has a daemon speak HTTP with a registry. */
export function hostConfig(address: string): string {
  return `[[resolver.host."${address}".mirrors]]
  host = "${address}"
  insecure = true
`
}
