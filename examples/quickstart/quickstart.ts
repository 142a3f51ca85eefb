// The main job on a real image, from nothing: make an image of Debian packages, serve it from a registry, optimize it for
// its workload registry to registry, verify the result from there, start it lazily, and
// write a report of that as a page. Run by `npm run quickstart`.

import {mkdtemp, readFile, rm} from 'node:fs/promises'
import {constants, tmpdir} from 'node:os'
import {join} from 'node:path'
import chalk from 'chalk'
import Table from 'cli-table3'
import {unmountBelow} from '../../src/lib/mount/mounts.ts'
import {startContainerd} from './containerd.ts'
import {startPodmanStore} from './podman.ts'
import {
  ctrRemote,
  ctrRemoteJson,
  ctrRemoteUntilLine,
  interruption,
  ProgramFailed,
  ROOT,
  run,
  runShown,
  type Served,
  startRegistry,
  stopPrograms,
} from './programs.ts'

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
  readonly manifests: readonly {readonly layers: readonly {readonly files: number}[]}[]
}

interface Explained {
  readonly fetchedBytes: number
  readonly totals: {readonly imageBytes: number}
}

process.exitCode = await main()

async function main(): Promise<number> {
  if (process.geteuid?.() !== 0) {
    console.error(
      'quickstart: making an image of Debian packages and watching its workload in a sandbox needs root:',
    )
    console.error('  sudo npm run quickstart')
    return 1
  }
  const scratch = await mkdtemp(join(tmpdir(), 'ctr-remote-quickstart-'))
  // The local store, away from the user's own images. ctr-remote takes flags from the environment too.
  process.env.CTR_REMOTE_STORE = 'local'
  process.env.CTR_REMOTE_DATA_DIR = join(scratch, 'store')
  try {
    await quickstart(scratch)
    return 0
  } catch (error) {
    if (!(error instanceof ProgramFailed)) throw error
    const signal = interruption()
    console.error(`quickstart: ${signal ? 'interrupted' : error.message}`)
    return signal ? 128 + constants.signals[signal] : 1
  } finally {
    await stopPrograms()
    await unmountBelow(scratch)
    await rm(scratch, {recursive: true, force: true})
  }
}

async function quickstart(scratch: string): Promise<void> {
  title('1. A real image: Debian, Python and a small application, in four layers')
  console.log(
    chalk.dim('$ examples/images/make-image python LAYOUT     # from Debian packages; kept for next time'),
  )
  const layout = join(scratch, 'python')
  await run(join(ROOT, 'examples/images/make-image'), ['python', layout])

  title('2. A registry, with the image in it')
  const registry = await startRegistry()
  const [plain, esgz] = [`${registry.address}/python:plain`, `${registry.address}/python:esgz`]
  await ctrRemote(['image', 'push', '--quiet', plain, `oci:${layout}:latest`])

  title('3. Optimize it: run the workload, watch what it reads, put that first')
  const record = join(scratch, 'record.json')
  const startedMs = performance.now()
  const optimized = await ctrRemoteJson<Optimized>([
    ...['image', 'optimize', '--oci', `--args=${JSON.stringify(WORKLOAD)}`, `--record-out=${record}`],
    ...[`docker://${plain}`, `docker://${esgz}`],
  ])
  const seconds = (performance.now() - startedMs) / 1000

  title('4. Verify it, from the registry, to the last byte')
  const verified = await ctrRemoteJson<Verified>(['image', 'verify', `docker://${esgz}`])

  title('5. What a lazily pulled container needs of it')
  showGain(optimized, verified, seconds)
  showOrder(await readFile(record, 'utf8'))

  title('6. Start it: a full pull against a lazy one')
  const containerd = await startContainerd(join(scratch, 'containerd'))
  if (typeof containerd === 'string') console.log(`Not shown: ${containerd}.`)
  else {
    console.log(chalk.dim('$ containerd & containerd-stargz-grpc &     # our own, for this'))
    process.env.CTR_REMOTE_STORE = 'containerd'
    process.env.CONTAINERD_ADDRESS = containerd.address
    process.env.CONTAINERD_NAMESPACE = containerd.namespace
    const full = await startContainer(registry, ['pull', '--quiet', plain], [plain, 'full'])
    const lazy = await startContainer(registry, ['rpull', esgz], ['--snapshotter=stargz', esgz, 'lazy'])
    showStarts(full, lazy)
  }
  title('7. The same for Podman')
  const podman = await startPodmanStore(join(scratch, 'podman'))
  if (typeof podman === 'string')
    console.log(`Not shown: ${podman}. docs/layer-store.md says how it is done.`)
  else {
    console.log(
      chalk.dim('$ stargz-store MOUNTPOINT &     # our own, which a storage.conf of ours names to Podman'),
    )
    const store = ['--store=podman', `--store-address=${podman.address}`]
    const begunMs = performance.now()
    await ctrRemote(['image', 'rpull', ...store, esgz])
    await runShown('podman', ['run', '--rm', esgz, ...WORKLOAD], podman.env)
    const took = ((performance.now() - begunMs) / 1000).toFixed(2)
    console.log(`That took ${took} s in all, with nothing unpacked: each layer of the image is a lazy mount.`)
    await run('podman', ['rm', '--all', '--force', '--time=0'], {...process.env, ...podman.env})
  }
  title('8. What its start fetches, and why, as a page')
  const report = join(await mkdtemp(join(tmpdir(), 'ctr-remote-report-')), 'report.html')
  const {fetchedBytes, totals} = await ctrRemoteJson<Explained>([
    ...['image', 'explain', `--output=${report}`, `--against=docker://${plain}`, `docker://${esgz}`],
  ])
  console.log(
    `A start fetches ${chalk.bold.green(bytes(fetchedBytes))} of ${bytes(totals.imageBytes)}. When, of which files: open`,
  )
  console.log(chalk.bold(`  ${report}`))
  console.log('\nAn image of yours:')
  console.log(
    chalk.cyan('  bin/ctr-remote image optimize --oci docker://REGISTRY/IMAGE docker://REGISTRY/IMAGE-esgz'),
  )
}

/** What it took until the container printed its line. */
interface Start {
  readonly pullMs: number
  readonly runMs: number
  readonly served: Served
}

async function startContainer(
  registry: {served(): Served},
  pull: readonly string[],
  words: readonly string[],
): Promise<Start> {
  const before = registry.served()
  const begunMs = performance.now()
  await ctrRemote(['image', ...pull])
  const pullMs = performance.now() - begunMs
  const runMs = await ctrRemoteUntilLine(['run', '--rm', ...words, ...WORKLOAD])
  const {requests, bytes} = registry.served()
  return {pullMs, runMs, served: {requests: requests - before.requests, bytes: bytes - before.bytes}}
}

function showStarts(full: Start, lazy: Start): void {
  const table = new Table({
    head: ['', 'pull', 'run until its line', 'in all', 'from the registry'].map(name => chalk.bold(name)),
    colAligns: ['left', 'right', 'right', 'right', 'right'],
    style: {head: [], border: [], compact: true},
  })
  const seconds = (ms: number) => `${(ms / 1000).toFixed(2)} s`
  for (const [name, {pullMs, runMs, served}] of [['full pull', full] as const, ['lazy', lazy] as const]) {
    const times = [pullMs, runMs, pullMs + runMs].map(seconds)
    table.push([name, ...times, `${bytes(served.bytes)} in ${served.requests} requests`])
  }
  console.log(String(table))
  console.log(
    'The lazy container runs while the rest of its image is still on its way. The further the registry,',
  )
  console.log('the larger the difference: docs/performance.md has figures.')
}

/** A table of the layers: their sizes, and what of them is read at the start. */
function showGain({layers}: Optimized, verified: Verified, seconds: number): void {
  const files = verified.manifests[0]!.layers.map(layer => layer.files)
  const table = new Table({
    head: ['layer', 'gzip', 'eStargz', 'files', 'read at start', 'bytes', 'share'].map(name =>
      chalk.bold(name),
    ),
    colAligns: ['left', 'right', 'right', 'right', 'right', 'right', 'right'],
    style: {head: [], border: [], compact: true},
  })
  const rows = layers.map((layer, index) => ({...layer, files: files[index]!}))
  const all = {
    sourceSize: sum(rows.map(row => row.sourceSize)),
    size: sum(rows.map(row => row.size)),
    files: sum(files),
    prioritizedFiles: sum(rows.map(row => row.prioritizedFiles)),
    prioritizedBytes: sum(rows.map(row => row.prioritizedBytes)),
  }
  for (const [index, row] of [...rows, all].entries()) {
    table.push([
      row === all ? 'all' : index + 1,
      bytes(row.sourceSize),
      bytes(row.size),
      row.files,
      row.prioritizedFiles,
      bytes(row.prioritizedBytes),
      percent(row.prioritizedBytes, row.size),
    ])
  }
  console.log(String(table))
  const part = `${bytes(all.prioritizedBytes)} of ${bytes(all.size)}`
  console.log(
    `A lazily pulled container starts after ${chalk.bold.green(part)}; the rest follows while it runs.`,
  )
  console.log(`Watching the workload and converting the image took ${chalk.bold(`${seconds.toFixed(1)} s`)}.`)
}

/** The first lines of a record: what the image now begins with. */
function showOrder(record: string): void {
  const lines = record.trim().split('\n').filter(Boolean)
  console.log('\nWhat the workload reads, in its order, is now the order of the image:')
  for (const line of lines.slice(0, 8)) {
    const {path, layerIndex} = JSON.parse(line) as {path: string; layerIndex: number}
    console.log(`  layer ${layerIndex + 1}  /${path}`)
  }
  if (lines.length > 8) console.log(`  … and ${lines.length - 8} more`)
}

function bytes(count: number): string {
  return count < 10_000 ? `${count} B` : `${(count / 1e6).toFixed(1)} MB`
}

function percent(part: number, whole: number): string {
  return `${((100 * part) / whole).toFixed(0)} %`
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0)
}

function title(text: string): void {
  console.log(`\n${chalk.bold.cyan(text)}`)
}
