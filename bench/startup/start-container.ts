// One start in the manner of HelloBench: pull the image, create a container, run it until it prints a line.

import {spawn} from 'node:child_process'
import {once} from 'node:events'
import {createInterface} from 'node:readline'
import {setTimeout as sleep} from 'node:timers/promises'
import {execa} from 'execa'
import {cpuSecondsOf, descendants, rssOf, sum} from '../convert/measure.ts'
import {type FileFigures, measureFiles} from './files.ts'
import {type Machine, type Registry, type Served, startMachine} from './machine.ts'
import {CTR_REMOTE, type Subject, type Tag} from './subjects.ts'

/** A way to start a container. */
export interface Contender {
  readonly name: string
  readonly tag: Tag
  readonly lazy: boolean
}

export const CONTENDERS: readonly Contender[] = [
  {name: 'full', tag: 'plain', lazy: false},
  {name: 'lazy', tag: 'esgz', lazy: true},
  {name: 'optimized', tag: 'optimized', lazy: true},
]

/** What one start took, until the line. Seconds and bytes. */
export interface Start {
  readonly pullS: number
  readonly createS: number
  readonly runS: number
  readonly totalS: number
  readonly served: Served
  /** Processor time of containerd and the snapshotter, and the snapshotter's resident memory (0 without). */
  readonly daemonCpuS: number
  readonly rss: number
  /** After the background fill, where it was waited for. */
  readonly filled?: {readonly daemonCpuS: number; readonly rss: number; readonly fillS: number}
  readonly files?: FileFigures
}

export interface StartOptions {
  readonly directory: string
  readonly registry: Registry
  /** `127.0.0.1:port` of the registry, or of a link in front of it. */
  readonly address: string
  /** Waits for the fill, and measures file reads in the container's file system then. */
  readonly withFiles: boolean
  /** The path of the snapshotter's configuration. */
  readonly config: string
}

/** Starts a container on a fresh machine. */
export async function startContainer(
  subject: Subject,
  contender: Contender,
  options: StartOptions,
): Promise<Start> {
  const {directory, registry, address, withFiles, config} = options
  await using machine = await startMachine(directory, {snapshotter: contender.lazy, config})
  const image = `${address}/${subject.name}:${contender.tag}`
  const lazy = machine.snapshotter === undefined ? [] : [machine.snapshotter]
  const cpuS = () => sum([machine.containerd, ...lazy].map(cpuSecondsOf))
  const [served, idleCpuS] = [registry.served(), cpuS()]
  const usage = () => ({
    daemonCpuS: cpuS() - idleCpuS,
    rss: sum(lazy.flatMap(pid => [...descendants(pid)]).map(rssOf)),
  })

  const begun = performance.now()
  await pull(machine, contender, image)
  const pulled = performance.now()
  const snapshotter = contender.lazy ? ['--snapshotter', 'stargz'] : []
  await execa('ctr', [
    ...machine.globals,
    'container',
    'create',
    ...snapshotter,
    // Or ctr takes the workload's flags for its own.
    '--',
    image,
    'subject',
    ...subject.args,
  ])
  const created = performance.now()
  await using _task = await runUntilReady(machine, subject)
  const ready = performance.now()

  const start = {
    pullS: (pulled - begun) / 1000,
    createS: (created - pulled) / 1000,
    runS: (ready - created) / 1000,
    totalS: (ready - begun) / 1000,
    served: difference(registry.served(), served),
    ...usage(),
  }
  if (!withFiles) return start
  if (contender.lazy) await untilFilled(machine)
  const filled = {...usage(), fillS: (performance.now() - ready) / 1000}
  return {...start, filled, files: await measureFiles(machine, contender)}
}

/** Pulls an image, lazily or in full. */
export async function pull({globals}: Machine, {lazy}: Contender, image: string): Promise<void> {
  if (lazy)
    await execa(CTR_REMOTE, [...globals, 'image', 'rpull', '--plain-http', image], {
      env: {CTR_REMOTE_STORE: 'containerd'},
    })
  else await execa('ctr', [...globals, 'image', 'pull', '--plain-http', image])
}

/** Starts the container's task and resolves when it has printed its line. Disposing kills it. */
async function runUntilReady({globals}: Machine, {name, ready}: Subject): Promise<AsyncDisposable> {
  const task = spawn('ctr', [...globals, 'task', 'start', 'subject'], {stdio: ['ignore', 'pipe', 'pipe']})
  const exited = once(task, 'exit')
  const output: string[] = []
  await new Promise<void>((resolve, reject) => {
    const look = (line: string) => {
      output.push(line)
      if (ready.test(line)) resolve()
    }
    createInterface({input: task.stdout}).on('line', look)
    createInterface({input: task.stderr}).on('line', look)
    task.once('close', () => reject(new Error(`${name} ended without its line:\n${output.join('\n')}`)))
  })
  return {
    async [Symbol.asyncDispose]() {
      await execa('ctr', [...globals, 'task', 'kill', '--signal', 'KILL', 'subject'], {reject: false})
      await exited
      await execa('ctr', [...globals, 'task', 'delete', '--force', 'subject'], {reject: false})
    },
  }
}

/** The parts of `lazy status` that are of interest here. */
interface LayerStatus {
  readonly digest: string
  readonly backend?: string
  readonly present: number
  readonly deviceSize: number
}

export async function layerStatus({globals}: Machine): Promise<readonly LayerStatus[]> {
  const {stdout} = await execa(CTR_REMOTE, [...globals, 'lazy', 'status', '--json'], {
    env: {CTR_REMOTE_STORE: 'containerd'},
  })
  return JSON.parse(stdout) as LayerStatus[]
}

/** Waits until the snapshotter has fetched everything. */
export async function untilFilled(machine: Machine): Promise<void> {
  const isFilled = ({backend, present, deviceSize}: LayerStatus) =>
    backend === 'plain' || present === deviceSize
  for (const deadline = Date.now() + 300_000; Date.now() < deadline; await sleep(100)) {
    if ((await layerStatus(machine)).every(isFilled)) return
  }
  throw new Error('the layers were not filled within five minutes')
}

function difference(after: Served, before: Served): Served {
  return {requests: after.requests - before.requests, bytes: after.bytes - before.bytes}
}
