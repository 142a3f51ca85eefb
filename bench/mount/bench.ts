// Compares file access through the lazy mounts, once everything has been fetched, with overlayfs over local directories:
// all under overlayfs, taking turns, medians. `node bench/mount/bench.ts --help` says how. Needs root.

import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join, resolve} from 'node:path'
import {parseArgs} from 'node:util'
import Table from 'cli-table3'
import {execa} from 'execa'
import {openDataFileSystem} from '../../src/lib/fuse-data/data-files.ts'
import {TreeFileSystem} from '../../src/lib/fuse-tree/tree-file-system.ts'
import {mountErofs} from '../../src/lib/mount/mount-erofs.ts'
import {mountOverlay, unmountBelow} from '../../src/lib/mount/mounts.ts'
import {median} from '../convert/measure.ts'
import {type BenchLayer, readLayers} from './layers.ts'

const USAGE = `usage: node bench/mount/bench.ts [--rounds N] [--tmp DIR] [--json FILE] LAYOUT

Mounts the image "latest" of an OCI image layout (gzip) in each way and measures. Needs root, and empties the machine's
page cache between measurements: nothing else should run.
`

/** A way to have an image's layers as directories; returns them, the lowest first. */
interface Contender {
  readonly name: string
  mount(): Promise<readonly string[]>
  unmount(): Promise<void>
}

/** What is measured: its unit, and the measurement in a mounted image. */
const MEASUREMENTS = [
  ['stat walk, cold', 'ms', root => timed(root, 'find . -printf %s', 'cold')],
  ['stat walk, warm', 'ms', root => timed(root, 'find . -printf %s')],
  ['find -ls', 'ms', root => timed(root, 'find . -ls')],
  ['du', 'ms', root => timed(root, 'du -s .')],
  ['open + 4K read + close, first', 'µs', async root => (await openFiles(root)).first],
  ['the same, again', 'µs', async root => (await openFiles(root)).again],
  ['read all, cold', 'ms', root => timed(root, 'find . -type f -print0 | xargs -0 cat', 'cold')],
  ['read all, warm', 'ms', root => timed(root, 'find . -type f -print0 | xargs -0 cat')],
] as const satisfies readonly [string, string, (root: string) => Promise<number>][]

async function main(): Promise<void> {
  const {values, positionals} = parseArgs({
    allowPositionals: true,
    options: {
      help: {type: 'boolean', short: 'h'},
      rounds: {type: 'string', default: '5'},
      tmp: {type: 'string', default: tmpdir()},
      json: {type: 'string'},
    },
  })
  const layout = positionals[0]
  if (values.help || layout === undefined) {
    process.stdout.write(USAGE)
    return
  }
  const directory = await mkdtemp(join(resolve(values.tmp), 'bench-mount-'))
  try {
    const layers = await readLayers(layout, directory)
    const contenders = contendersFor(layers, directory)
    const figures = await takeTurns(contenders, Number(values.rounds), directory)
    process.stdout.write(`${formatTable(contenders, figures)}\n`)
    if (values.json) await writeFile(values.json, JSON.stringify(Object.fromEntries(figures), undefined, 2))
  } finally {
    await unmountBelow(directory)
    await rm(directory, {recursive: true, force: true})
  }
}

function contendersFor(layers: readonly BenchLayer[], directory: string): Contender[] {
  const silent = () => {}
  const options = {mountpoint: join(directory, 'fuse'), log: {info: silent, warn: silent, debug: silent}}
  const places = layers.map((_, index) => join(directory, `mounted-${index}`))
  const mountAll = async (dataOf: (layer: BenchLayer) => Promise<string>) => {
    for (const [index, layer] of layers.entries()) {
      await mkdir(places[index]!, {recursive: true})
      mountErofs({image: layer.image, data: await dataOf(layer), target: places[index]!})
    }
    return places
  }
  const unmountAll = async () => {
    for (const place of places) await unmountBelow(place)
  }
  let close = async () => {}
  return [
    {name: 'directories', mount: async () => layers.map(layer => layer.plain), unmount: async () => {}},
    {name: 'erofs, complete', mount: () => mountAll(async layer => layer.device.path), unmount: unmountAll},
    {
      name: 'erofs, lazy data',
      mount: async () => {
        const files = await openDataFileSystem(options)
        close = () => files.close('unmount')
        return mountAll(layer => files.add(layer.device))
      },
      unmount: async () => {
        await unmountAll()
        await close()
      },
    },
    {
      name: 'fuse tree',
      mount: async () => {
        const trees = await TreeFileSystem.open(options)
        close = () => trees.close('unmount')
        return await Promise.all(
          layers.map(({device, root}) => trees.add({device, tree: root, opaque: 'trusted'})),
        )
      },
      unmount: () => close(),
    },
  ]
}

/** Medians by contender, in the order of `MEASUREMENTS`. */
async function takeTurns(contenders: readonly Contender[], rounds: number, directory: string) {
  const samples = new Map(contenders.map(({name}) => [name, MEASUREMENTS.map((): number[] => [])]))
  for (let round = 0; round < rounds; round++) {
    for (const contender of contenders) {
      const root = await mountImage(await contender.mount(), directory)
      for (const [index, [, , measure]] of MEASUREMENTS.entries()) {
        samples.get(contender.name)![index]!.push(await measure(root))
      }
      await unmountBelow(root)
      await contender.unmount()
    }
  }
  return new Map([...samples].map(([name, lists]) => [name, lists.map(median)]))
}

/** The layers stacked below a writable directory, as a container has them. */
async function mountImage(lower: readonly string[], directory: string): Promise<string> {
  const [upper, work, target] = ['upper', 'work', 'merged'].map(name => join(directory, name)) as [
    string,
    string,
    string,
  ]
  for (const path of [upper, work, target]) await mkdir(path, {recursive: true})
  await mountOverlay({base: directory, lower, upper, work, target})
  return target
}

/** Milliseconds that a shell command takes in `cwd`. */
async function timed(cwd: string, command: string, how?: 'cold'): Promise<number> {
  if (how === 'cold') await dropCaches()
  const start = performance.now()
  await execa('sh', ['-c', `${command} > /dev/null`], {cwd})
  return performance.now() - start
}

async function openFiles(root: string): Promise<{first: number; again: number}> {
  await dropCaches()
  const {stdout} = await execa(process.execPath, [join(import.meta.dirname, 'open-files.ts'), root])
  return JSON.parse(stdout)
}

async function dropCaches(): Promise<void> {
  await writeFile('/proc/sys/vm/drop_caches', '3')
}

function formatTable(contenders: readonly Contender[], figures: ReadonlyMap<string, readonly number[]>) {
  const table = new Table({
    head: ['', 'unit', ...contenders.map(({name}) => name)],
    colAligns: ['left', 'left', ...contenders.map((): 'right' => 'right')],
    style: {head: [], border: [], compact: true},
  })
  const baseline = figures.get(contenders[0]!.name)!
  for (const [index, [name, unit]] of MEASUREMENTS.entries()) {
    const cells = contenders.map((contender, place) => {
      const value = figures.get(contender.name)![index]!
      return place === 0
        ? value.toFixed(0)
        : `${value.toFixed(0)} (${(value / baseline[index]!).toFixed(2)}x)`
    })
    table.push([name, unit, ...cells])
  }
  return table.toString()
}

await main()
