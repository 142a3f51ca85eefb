// The main job on a real image, from nothing: make an image of Debian packages, serve it from a registry, optimize it for
// its workload registry to registry, verify the result from there, and show what was gained. Run by `npm run quickstart`.

import {mkdtemp, readFile, rm} from 'node:fs/promises'
import {constants, tmpdir} from 'node:os'
import {join} from 'node:path'
import chalk from 'chalk'
import Table from 'cli-table3'
import {
  ctrRemote,
  ctrRemoteJson,
  interruption,
  ProgramFailed,
  ROOT,
  run,
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
  const source = `docker://${registry}/python:plain`
  const target = `docker://${registry}/python:esgz`
  await ctrRemote(['image', 'push', '--quiet', `${registry}/python:plain`, `oci:${layout}:latest`])

  title('3. Optimize it: run the workload, watch what it reads, put that first')
  const record = join(scratch, 'record.json')
  const startedMs = performance.now()
  const optimized = await ctrRemoteJson<Optimized>([
    ...['image', 'optimize', '--oci', `--args=${JSON.stringify(WORKLOAD)}`, `--record-out=${record}`],
    ...[source, target],
  ])
  const seconds = (performance.now() - startedMs) / 1000

  title('4. Verify it, from the registry, to the last byte')
  const verified = await ctrRemoteJson<Verified>(['image', 'verify', target])

  title('5. What was gained')
  showGain(optimized, verified, seconds)
  showOrder(await readFile(record, 'utf8'))
  console.log('\nAn image of yours:')
  console.log(
    chalk.cyan('  bin/ctr-remote image optimize --oci docker://REGISTRY/IMAGE docker://REGISTRY/IMAGE-esgz'),
  )
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
