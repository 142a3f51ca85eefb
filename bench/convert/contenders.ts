// What is compared: this project, the same again with its cache, the reference, and what one core could do at best.

import {mkdir, readFile} from 'node:fs/promises'
import {join, resolve} from 'node:path'
import {execa} from 'execa'
import type {Format} from './formats.ts'
import {type Measurement, measure} from './measure.ts'
import type {Reference} from './reference.ts'

const root = resolve(import.meta.dirname, '../..')

/** An OCI image layout to convert (tag "latest"). `layerBytes` counts the layers' blobs as they are. */
export interface Subject {
  readonly name: string
  readonly layout: string
  readonly layers: readonly string[]
  readonly layerBytes: number
}

/** What one conversion took, and how many bytes of layers it wrote. */
export interface Outcome extends Measurement {
  readonly outputBytes: number
  /** Bytes of TOCs that are kept outside of the layers. */
  readonly tocBytes?: number
  /** Of the image it wrote; the same input must give the same on any number of cores. */
  readonly digest?: string
}

export interface Contender {
  readonly tool: 'ctr-remote' | 'ctr-remote, again' | 'reference' | 'ceiling'
  readonly cores: number
  run(round: number): Promise<Outcome>
}

export async function readSubject(layout: string, name: string): Promise<Subject> {
  const {layers} = await readManifest(layout)
  return {
    name,
    layout,
    layers: layers.map(({digest}) => blobPath(layout, digest)),
    layerBytes: totalSize(layers),
  }
}

/** What is converted, and how: into which format, on how many processors. */
export interface Task {
  readonly subject: Subject
  readonly format: Format
  readonly cores: number
}

/** This project, from layout to layout, with an empty cache each time. */
export function ours(task: Task, directory: string): Contender {
  return {
    tool: 'ctr-remote',
    cores: task.cores,
    run: round => convert(task, roundDirectory(directory, task, round)),
  }
}

/** The same conversion once more, with what the round's first one left: nothing has changed. */
export function oursAgain(task: Task, directory: string): Contender {
  return {...ours(task, directory), tool: 'ctr-remote, again'}
}

/** The reference, from image to image in containerd. */
export function reference({subject, format, cores}: Task, daemon: Reference): Contender {
  return {
    tool: 'reference',
    cores,
    async run() {
      const source = `${subject.name}:source`
      const command = daemon.convertCommand(format.referenceFlags!, source, `${subject.name}:converted`)
      await daemon.limit(cpuList(cores))
      const took = await measure(command, {cpus: cpuList(cores), alsoPids: [daemon.pid]})
      const outputBytes = await daemon.layerBytes(`${subject.name}:converted`)
      await daemon.remove(`${subject.name}:converted`)
      return {...took, outputBytes}
    },
  }
}

/** A loop in C that does the arithmetic of the format and nothing else, on one core; see ceiling.c. */
export function ceiling(subject: Subject, program: string): Contender & {tarBytes(): Promise<number>} {
  const command = [program, '6', ...subject.layers]
  return {
    tool: 'ceiling',
    cores: 1,
    async run() {
      const took = await measure(command, {cpus: cpuList(1)})
      return {...took, outputBytes: Number(took.stdout.split(' ')[1])}
    },
    async tarBytes() {
      return Number((await execa(program, ['1', ...subject.layers])).stdout.split(' ')[0])
    },
  }
}

export async function buildCeiling(directory: string): Promise<string> {
  const program = join(directory, 'ceiling')
  const flags = ['-std=c11', '-O2', '-Wno-deprecated-declarations']
  await execa('cc', [
    ...flags,
    '-o',
    program,
    join(import.meta.dirname, 'ceiling.c'),
    '-ldeflate',
    '-lcrypto',
  ])
  return program
}

async function convert({subject, format, cores}: Task, directory: string): Promise<Outcome> {
  await mkdir(directory, {recursive: true})
  const target = join(directory, 'converted')
  const env = {
    ...process.env,
    HOME: directory,
    XDG_CACHE_HOME: join(directory, 'cache'),
    XDG_DATA_HOME: join(directory, 'data'),
  }
  const source = `oci:${subject.layout}:latest`
  const program = join(root, 'bin/ctr-remote')
  const command = [program, 'image', 'convert', ...format.flags, '--oci', source, `oci:${target}:latest`]
  const took = await measure(command, {cpus: cpuList(cores), env})
  const {layers, digest} = await readManifest(target)
  const tocs = format.flags.includes('--estargz-external-toc')
    ? (await readManifest(target, 'latest-esgztoc')).layers
    : []
  return {...took, outputBytes: totalSize(layers), tocBytes: totalSize(tocs), digest}
}

function roundDirectory(directory: string, {subject, format, cores}: Task, round: number): string {
  return join(directory, `${subject.name}-${format.name}-${cores}-${round}`)
}

function cpuList(cores: number): string {
  return `0-${cores - 1}`
}

interface Blob {
  readonly digest: string
  readonly size: number
  readonly annotations?: Readonly<Record<string, string>>
}

/** The layers of a layout's image with this tag, and its manifest's digest. */
async function readManifest(
  layout: string,
  tag = 'latest',
): Promise<{readonly layers: readonly Blob[]; readonly digest: string}> {
  const index = JSON.parse(await readFile(join(layout, 'index.json'), 'utf8')) as {manifests: Blob[]}
  const {digest} = index.manifests.find(
    ({annotations}) => annotations?.['org.opencontainers.image.ref.name'] === tag,
  )!
  const {layers} = JSON.parse(await readFile(blobPath(layout, digest), 'utf8')) as {layers: Blob[]}
  return {layers, digest}
}

function blobPath(layout: string, digest: string): string {
  return join(layout, 'blobs', digest.replace(':', '/'))
}

function totalSize(blobs: readonly Blob[]): number {
  return blobs.reduce((total, {size}) => total + size, 0)
}
