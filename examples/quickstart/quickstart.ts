// The main job on a real image, from nothing: make an image of Debian packages, serve it from a registry, optimize it for
// its workload registry to registry, verify the result from there, and show what was gained. Run by `npm run quickstart`.

import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdtemp, readFile, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {createInterface} from 'node:readline'
import chalk from 'chalk'
import Table from 'cli-table3'

const ROOT = resolve(import.meta.dirname, '../..')
const CTR_REMOTE = join(ROOT, 'bin/ctr-remote')
const WORKLOAD = ['python3', '/app/hello.py']

/** The parts of `--json` results that are shown here. */
interface Optimized {
  readonly layers: readonly {
    readonly sourceSize: number
    readonly size: number
    readonly prioritizedFiles: number
    readonly prioritizedBytes: number
  }[]
}

interface Verified {
  readonly sound: boolean
  readonly manifests: readonly {
    readonly layers: readonly {readonly files: number; readonly chunks: number}[]
  }[]
}

const children = new Set<ChildProcess>()
let interrupted = false
for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    interrupted = true
    for (const child of children) child.kill(signal)
  })
}

if (process.geteuid?.() !== 0) {
  console.error(
    'quickstart: needs root, to make an image from Debian packages and to watch its workload in a sandbox',
  )
  process.exit(1)
}
const scratch = await mkdtemp(join(tmpdir(), 'ctr-remote-quickstart-'))
try {
  await quickstart(scratch)
} catch (error) {
  console.error(
    interrupted ? 'quickstart: interrupted' : `quickstart: ${error instanceof Error ? error.message : error}`,
  )
  process.exitCode = interrupted ? 130 : 1
} finally {
  for (const child of children) child.kill('SIGTERM')
  await rm(scratch, {recursive: true, force: true})
}

async function quickstart(directory: string): Promise<void> {
  title('1. A real image: Debian, Python and a small application, in four layers')
  note('made of Debian packages; kept for the next time')
  const layout = join(directory, 'python')
  await run(join(ROOT, 'examples/images/make-image'), ['python', layout])

  title('2. A registry')
  const registry = await startRegistry(directory)
  const source = `docker://${registry}/python:plain`
  const target = `docker://${registry}/python:esgz`
  await ctrRemote(['image', 'push', `${registry}/python:plain`, `oci:${layout}:latest`], directory)

  title('3. Optimize: run the workload, watch what it reads, put that first')
  const record = join(directory, 'record.json')
  const words = [
    'image',
    'optimize',
    '--oci',
    `--args=${JSON.stringify(WORKLOAD)}`,
    `--record-out=${record}`,
    source,
    target,
  ]
  const startedMs = performance.now()
  const optimized = await ctrRemoteJson<Optimized>(words, directory)
  const seconds = (performance.now() - startedMs) / 1000

  title('4. Verify it, from the registry')
  const verified = await ctrRemoteJson<Verified>(['image', 'verify', target], directory)
  if (!verified.sound) throw new Error('the optimized image is not sound')
  showGain(optimized, verified, seconds)
  await showOrder(record)
  console.log(
    `\nTry it on an image of yours:\n  ${chalk.cyan('bin/ctr-remote image optimize --oci docker://REGISTRY/IMAGE docker://REGISTRY/IMAGE-esgz')}`,
  )
}

/** Starts `ctr-remote registry serve` on a free port; resolves to its host and port. */
async function startRegistry(directory: string): Promise<string> {
  const words = ['registry', 'serve', '--listen=127.0.0.1:0', '--quiet', ...storeFlags(directory)]
  note(`$ ctr-remote ${words.slice(0, 3).join(' ')}`)
  const child = spawn(CTR_REMOTE, words, {stdio: ['ignore', 'pipe', 'inherit']})
  track(child)
  for await (const line of createInterface({input: child.stdout!})) {
    const address = /http:\/\/(\S+?)\/?$/.exec(line)?.[1]
    if (address) return address
  }
  throw new Error('the registry did not start')
}

function storeFlags(directory: string): string[] {
  return ['--store=local', `--data-dir=${join(directory, 'store')}`]
}

async function ctrRemote(words: readonly string[], directory: string): Promise<void> {
  note(`$ ctr-remote ${words.join(' ')}`)
  await run(CTR_REMOTE, [...words, ...storeFlags(directory)])
}

async function ctrRemoteJson<Result>(words: readonly string[], directory: string): Promise<Result> {
  note(`$ ctr-remote ${words.join(' ')}`)
  const child = spawn(CTR_REMOTE, [...words, '--json', ...storeFlags(directory)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  track(child)
  let printed = ''
  child.stdout!.setEncoding('utf8').on('data', text => {
    printed += text
  })
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`ctr-remote ${words[1]} failed: ${printed.trim() || `exit code ${code}`}`)
  return JSON.parse(printed) as Result
}

async function run(file: string, words: readonly string[]): Promise<void> {
  const child = spawn(file, words, {stdio: ['ignore', 'inherit', 'inherit']})
  track(child)
  const [code] = await once(child, 'close')
  if (code !== 0) throw new Error(`${file} failed with exit code ${code}`)
}

function track(child: ChildProcess): void {
  children.add(child)
  child.once('close', () => children.delete(child))
}

function showGain(optimized: Optimized, verified: Verified, seconds: number): void {
  title('5. What was gained')
  const checked = verified.manifests[0]!.layers
  const table = new Table({
    head: ['layer', 'plain', 'eStargz', 'files', 'read at start', 'to fetch before start'].map(name =>
      chalk.bold(name),
    ),
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right'],
    style: {head: [], border: []},
  })
  const {layers} = optimized
  for (const [index, layer] of layers.entries()) {
    table.push([
      index + 1,
      megabytes(layer.sourceSize),
      megabytes(layer.size),
      checked[index]!.files,
      layer.prioritizedFiles,
      megabytes(layer.prioritizedBytes),
    ])
  }
  const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0)
  const plain = sum(layers.map(layer => layer.sourceSize))
  const needed = sum(layers.map(layer => layer.prioritizedBytes))
  table.push([
    'all',
    megabytes(plain),
    megabytes(sum(layers.map(layer => layer.size))),
    sum(checked.map(layer => layer.files)),
    sum(layers.map(layer => layer.prioritizedFiles)),
    megabytes(needed),
  ])
  console.log(String(table))
  const share = ((100 * needed) / plain).toFixed(1)
  console.log(
    `The workload needs ${chalk.green(megabytes(needed))} of ${megabytes(plain)} to start: ${chalk.green(`${share} %`)}. Watching and converting took ${seconds.toFixed(1)} s.`,
  )
}

async function showOrder(record: string): Promise<void> {
  const lines = (await readFile(record, 'utf8')).trim().split('\n')
  console.log('\nThe first files of the workload, in the order in which the image now has them:')
  for (const line of lines.slice(0, 8)) {
    const {path, layerIndex} = JSON.parse(line) as {path: string; layerIndex: number}
    console.log(`  layer ${layerIndex + 1}  /${path}`)
  }
  if (lines.length > 8) console.log(`  … and ${lines.length - 8} more`)
}

function megabytes(bytes: number): string {
  return bytes < 10_000 ? `${bytes} B` : `${(bytes / 1e6).toFixed(2)} MB`
}

function title(text: string): void {
  console.log(`\n${chalk.bold.cyan(text)}`)
}

function note(text: string): void {
  console.log(chalk.dim(text.replaceAll(tmpdir(), '$TMPDIR')))
}
