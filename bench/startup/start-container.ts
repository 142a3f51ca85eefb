// One start in the manner of HelloBench: pull the image, create a container, run it until it prints a line.

import {type ChildProcessByStdio, spawn} from 'node:child_process'
import {once} from 'node:events'
import {createInterface} from 'node:readline'
import type {Readable} from 'node:stream'
import {setTimeout as sleep} from 'node:timers/promises'
import {create, toBinary} from '@bufbuild/protobuf'
import * as grpc from '@grpc/grpc-js'
import {execa} from 'execa'
import {PullImageRequestSchema} from '../../src/daemons/snapshotter/proto/image_service_pb.ts'
import {cpuSecondsOf, descendants, rssOf, sum} from '../convert/measure.ts'
import {type FileFigures, measureFiles, mountAgain} from './files.ts'
import {type Machine, OURS, type Programs, type Registry, type Served, startMachine} from './machine.ts'
import {type Subject, type Tag, type Workload, type WorkloadName, workloadOf} from './subjects.ts'

/** A way to start a container. */
export interface Contender {
  readonly name: string
  readonly tag: Tag
  readonly lazy: boolean
  /** Whose snapshotter and client; ours without. */
  readonly programs?: Programs
}

export const CONTENDERS: readonly Contender[] = [
  {name: 'full', tag: 'plain', lazy: false},
  {name: 'lazy', tag: 'esgz', lazy: true},
  {name: 'optimized', tag: 'optimized', lazy: true},
]

/** The lazy ones once more, by other programs. */
export function contendersOf(programs: Programs): readonly Contender[] {
  return CONTENDERS.filter(({lazy}) => lazy).map(contender => ({
    ...contender,
    name: `${contender.name}, ${programs.name}`,
    programs,
  }))
}

/** What one start took, until the line. Seconds and bytes. */
export interface Start {
  readonly pullS: number
  readonly createS: number
  readonly runS: number
  readonly totalS: number
  readonly served: Served
  /** Processor time of containerd and the snapshotter, and the snapshotter's resident memory (0 without). */
  readonly daemonCpuS: number
  /** Of the program that pulled. */
  readonly clientCpuS: number
  readonly rss: number
  /** The snapshotter's before the pull. */
  readonly idleRss: number
  /** Its processor time from its start to then. */
  readonly idleCpuS: number
  /** After the background fill, where it was waited for. */
  readonly filled?: {readonly daemonCpuS: number; readonly rss: number; readonly fillS: number}
  readonly files?: FileFigures
}

/** `client`: ctr, or ctr-remote. */
export const VIAS = ['client', 'cri'] as const
export type Via = (typeof VIAS)[number]

export interface StartOptions {
  readonly directory: string
  readonly registry: Registry
  /** `127.0.0.1:port` of the registry, or of a link in front of it. */
  readonly address: string
  /** Waits for the fill, and measures file reads in the container's file system then. */
  readonly withFiles: boolean
  /** The path of the snapshotter's configuration. */
  readonly config: string
  readonly workload: WorkloadName
  /** How long daemons have been up when the pull begins, seconds. */
  readonly idleS: number
  /** Who pulls: a client, or containerd's CRI, as for a kubelet. */
  readonly via: Via
}

/** Starts a container on a fresh machine. */
export async function startContainer(
  subject: Subject,
  contender: Contender,
  options: StartOptions,
): Promise<Start> {
  const {directory, registry, address, withFiles, config, idleS} = options
  const workload = workloadOf(subject, options.workload)
  const {programs = OURS} = contender
  const plainHttp = contender.lazy ? [address] : []
  await using machine = await startMachine(directory, {
    programs: contender.lazy ? programs : undefined,
    cri: options.via === 'cri',
    config,
    plainHttp,
  })
  await sleep(idleS * 1000)
  const image = `${address}/${subject.name}:${contender.tag}`
  const lazy = machine.snapshotter === undefined ? [] : [machine.snapshotter]
  const cpuS = () => sum([machine.containerd, ...lazy].map(cpuSecondsOf))
  const rss = () => sum(lazy.flatMap(pid => [...descendants(pid)]).map(rssOf))
  const [served, cpuBeforeS] = [registry.served(), cpuS()]
  const idle = {idleRss: rss(), idleCpuS: sum(lazy.map(cpuSecondsOf))}
  const usage = () => ({daemonCpuS: cpuS() - cpuBeforeS, rss: rss()})

  const begun = performance.now()
  const clientCpuS =
    options.via === 'cri' ? await pullByCri(machine.socket, image) : await pull(machine, contender, image)
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
    ...workload.args,
  ])
  const created = performance.now()
  await using _task = await runUntilReady(machine, workload)
  const ready = performance.now()

  const start = {
    pullS: (pulled - begun) / 1000,
    createS: (created - pulled) / 1000,
    runS: (ready - created) / 1000,
    totalS: (ready - begun) / 1000,
    served: difference(registry.served(), served),
    clientCpuS,
    ...idle,
    ...usage(),
  }
  if (!withFiles) return start
  if (contender.lazy) await untilFilled(() => layerStatus(machine))
  const filled = {...usage(), fillS: (performance.now() - ready) / 1000}
  const mounted = await mountAgain(machine, contender)
  const files = await measureFiles(mounted)
  await execa('umount', [mounted])
  return {...start, filled, files}
}

/** Pulls an image, lazily or in full; resolves to the processor seconds of the program that does it. */
export async function pull(
  {globals}: Machine,
  {lazy, programs = OURS}: Contender,
  image: string,
): Promise<number> {
  const words = [...globals, 'image', lazy ? 'rpull' : 'pull', '--plain-http', image]
  return cpuSecondsToRun([lazy ? programs.client : 'ctr', ...words], {CTR_REMOTE_STORE: 'containerd'})
}

/** Runs a program that prints nothing of interest; resolves to the processor seconds that it took. */
export async function cpuSecondsToRun(
  command: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<number> {
  // bash's `time` counts a program and its children to the millisecond; the program's own words go elsewhere.
  const script = 'TIMEFORMAT="%U %S"; time "$@" > /dev/null 2>&3'
  const {stderr} = await execa('bash', ['-c', script, 'bash', ...command], {
    env,
    stdio: ['ignore', 'ignore', 'pipe', process.stderr],
  })
  return sum(stderr.trim().split(/\s+/).map(Number))
}

/** As a kubelet does; containerd itself is the client, and there is none whose processor time could be told. */
async function pullByCri(socket: string, image: string): Promise<number> {
  const client = new grpc.Client(`unix:${socket}`, grpc.credentials.createInsecure())
  const request = toBinary(PullImageRequestSchema, create(PullImageRequestSchema, {image: {image}}))
  const same = (bytes: Buffer) => bytes
  try {
    await new Promise<void>((resolve, reject) => {
      const done = (failure: Error | null) => (failure ? reject(failure) : resolve())
      client.makeUnaryRequest('/runtime.v1.ImageService/PullImage', same, same, Buffer.from(request), done)
    })
  } finally {
    client.close()
  }
  return 0
}

/** Starts the container's task and resolves when it has printed its line. Disposing kills it. */
async function runUntilReady({globals}: Machine, workload: Workload): Promise<AsyncDisposable> {
  const task = spawn('ctr', [...globals, 'task', 'start', 'subject'], {stdio: ['ignore', 'pipe', 'pipe']})
  const exited = once(task, 'exit')
  await untilReady(task, workload)
  return {
    async [Symbol.asyncDispose]() {
      await execa('ctr', [...globals, 'task', 'kill', '--signal', 'KILL', 'subject'], {reject: false})
      await exited
      await execa('ctr', [...globals, 'task', 'delete', '--force', 'subject'], {reject: false})
    },
  }
}

/** Resolves when a process has printed the line of a workload. */
export async function untilReady(
  task: ChildProcessByStdio<null, Readable, Readable>,
  {args, ready}: Workload,
): Promise<void> {
  const output: string[] = []
  await new Promise<void>((resolve, reject) => {
    const look = (line: string) => {
      output.push(line)
      if (ready.test(line)) resolve()
    }
    createInterface({input: task.stdout}).on('line', look)
    createInterface({input: task.stderr}).on('line', look)
    task.once('close', () =>
      reject(new Error(`"${args.join(' ')}" ended without its line:\n${output.join('\n')}`)),
    )
  })
}

/** The parts of `lazy status` that are of interest here. */
export interface LayerStatus {
  readonly digest: string
  readonly backend?: string
  readonly present: number
  readonly deviceSize: number
}

export async function layerStatus({globals}: Machine): Promise<readonly LayerStatus[]> {
  const {stdout} = await execa(OURS.client, [...globals, 'lazy', 'status', '--json'], {
    env: {CTR_REMOTE_STORE: 'containerd'},
  })
  return JSON.parse(stdout) as LayerStatus[]
}

/** Waits until everything of these layers has been fetched. */
export async function untilFilled(status: () => Promise<readonly LayerStatus[]>): Promise<void> {
  const isFilled = ({backend, present, deviceSize}: LayerStatus) =>
    backend === 'plain' || present === deviceSize
  for (const deadline = Date.now() + 300_000; Date.now() < deadline; await sleep(100)) {
    if ((await status()).every(isFilled)) return
  }
  throw new Error('the layers were not filled within five minutes')
}

export function difference(after: Served, before: Served): Served {
  return {requests: after.requests - before.requests, bytes: after.bytes - before.bytes}
}
