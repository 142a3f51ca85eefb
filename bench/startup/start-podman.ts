// The same start by Podman: pull the image, create a container, run it until it prints a line. In full, or from our layer
// store by either of its faces.

import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdir, readFile, writeFile} from 'node:fs/promises'
import {join, resolve} from 'node:path'
import {setTimeout as sleep} from 'node:timers/promises'
import {execa} from 'execa'
import {cpuSecondsOf, descendants, rssOf, sum} from '../convert/measure.ts'
import {measureFiles} from './files.ts'
import {hostConfig, mountDisk, startDaemon, stop, waitFor} from './machine.ts'
import {
  cpuSecondsToRun,
  difference,
  type LayerStatus,
  type Start,
  type StartOptions,
  untilFilled,
  untilReady,
} from './start-container.ts'
import {CTR_REMOTE, type Subject, type Tag, workloadOf} from './subjects.ts'

const LAYER_STORE = resolve(import.meta.dirname, '../../bin/stargz-store')

/** A way to start a container with Podman. */
export interface PodmanContender {
  readonly name: string
  readonly tag: Tag
  /** `layers`: an additional layer store, and Podman pulls; `images`: an additional image store, and `rpull` does. */
  readonly face?: 'layers' | 'images'
}

export const PODMAN_CONTENDERS: readonly PodmanContender[] = [
  {name: 'full', tag: 'plain'},
  {name: 'lazy', tag: 'esgz', face: 'layers'},
  {name: 'optimized', tag: 'optimized', face: 'layers'},
  {name: 'lazy, rpull', tag: 'esgz', face: 'images'},
  {name: 'optimized, rpull', tag: 'optimized', face: 'images'},
]

/** Starts a container on a fresh file system, with a store of its own. Needs podman and runc. */
export async function startWithPodman(
  subject: Subject,
  contender: PodmanContender,
  options: StartOptions,
): Promise<Start> {
  const {directory, registry, address, withFiles, idleS} = options
  const workload = workloadOf(subject, options.workload)
  await using machine = await startPodmanMachine(directory, contender, options)
  const {podman, env, store} = machine
  await sleep(idleS * 1000)
  const image = `${address}/${subject.name}:${contender.tag}`
  const daemons = store === undefined ? [] : [store.pid!]
  const cpuS = () => sum(daemons.map(cpuSecondsOf))
  const rss = () => sum(daemons.flatMap(pid => [...descendants(pid)]).map(rssOf))
  const [served, idleCpuS] = [registry.served(), cpuS()]
  const idle = {idleRss: rss(), idleCpuS}

  const begun = performance.now()
  const rpull = [CTR_REMOTE, 'image', 'rpull', '--store=podman', `--store-address=${machine.address}`]
  const pull = contender.face === 'images' ? rpull : ['podman', 'pull']
  const clientCpuS = await cpuSecondsToRun([...pull, '--quiet', image], env)
  const pulled = performance.now()
  await podman('create', '--name', 'subject', image, ...workload.args)
  const created = performance.now()
  const task = spawn('podman', ['start', '--attach', 'subject'], {
    env: {...process.env, ...env},
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  const ended = once(task, 'exit')
  await untilReady(task, workload)
  const ready = performance.now()

  const start = {
    pullS: (pulled - begun) / 1000,
    createS: (created - pulled) / 1000,
    runS: (ready - created) / 1000,
    totalS: (ready - begun) / 1000,
    served: difference(registry.served(), served),
    clientCpuS,
    ...idle,
    daemonCpuS: cpuS() - idleCpuS,
    rss: rss(),
  }
  await podman('kill', 'subject').catch(() => {})
  await ended
  if (!withFiles) return start
  const status = [
    CTR_REMOTE,
    'lazy',
    'status',
    '--store=podman',
    `--store-address=${machine.address}`,
    '--json',
  ]
  if (contender.face) {
    await untilFilled(
      async () => JSON.parse((await execa(status[0]!, status.slice(1))).stdout) as LayerStatus[],
    )
  }
  const filled = {daemonCpuS: cpuS() - idleCpuS, rss: rss(), fillS: (performance.now() - ready) / 1000}
  return {...start, filled, files: await measureFiles((await podman('mount', 'subject')).trim())}
}

interface PodmanMachine extends AsyncDisposable {
  /** Runs `podman`; resolves to what it printed. */
  podman(...words: readonly string[]): Promise<string>
  readonly env: Readonly<Record<string, string>>
  readonly store: ChildProcess | undefined
  /** The store's socket. */
  readonly address: string
}

/** Podman with everything of its own, and a layer store where the contender has one. */
async function startPodmanMachine(
  directory: string,
  {face}: PodmanContender,
  {address: registry, config}: StartOptions,
): Promise<PodmanMachine> {
  await using started = new AsyncDisposableStack()
  started.use(await mountDisk(directory))
  const at = (name: string) => join(directory, name)
  const [socket, mountpoint] = [at('store.sock'), at('layers')]
  let store: ChildProcess | undefined
  if (face) {
    await writeFile(at('store.toml'), `${await readFile(config, 'utf8')}\n${hostConfig(registry)}`)
    const words = [`--addr=${socket}`, `--root=${at('store')}`, `--config=${at('store.toml')}`, mountpoint]
    store = startDaemon(LAYER_STORE, words, directory)
    started.defer(() => stop(store!))
    await waitFor(() => execa('test', ['-S', socket]), [store])
  }
  const faces = {
    layers: `additionallayerstores = ["${mountpoint}:ref"]`,
    images: `additionalimagestores = ["${at('store/images')}"]`,
  }
  await mkdir(at('home'))
  await writeFile(
    at('storage.conf'),
    `[storage]
driver = "overlay"
graphroot = "${at('root')}"
runroot = "${at('run')}"
[storage.options]
${face ? faces[face] : ''}
`,
  )
  await writeFile(at('registries.conf'), `[[registry]]\nlocation = "${registry}"\ninsecure = true\n`)
  await writeFile(
    at('containers.conf'),
    `[containers]
netns = "none"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
tmp_dir = "${at('libpod')}"
`,
  )
  const env = {
    HOME: at('home'),
    PODMAN_IGNORE_CGROUPSV1_WARNING: 'yes',
    CONTAINERS_STORAGE_CONF: at('storage.conf'),
    CONTAINERS_REGISTRIES_CONF: at('registries.conf'),
    CONTAINERS_CONF: at('containers.conf'),
    TMPDIR: directory,
  }
  const podman = async (...words: readonly string[]) => (await execa('podman', words, {env})).stdout
  // The first command of a storage makes it.
  await podman('info')
  const cleanUp = started.move()
  return {podman, env, store, address: socket, [Symbol.asyncDispose]: () => cleanUp.disposeAsync()}
}
