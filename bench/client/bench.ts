// What the command line itself costs: `npm run bench:client -- --help`.

import {spawn} from 'node:child_process'
import {existsSync} from 'node:fs'
import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises'
import {join, resolve} from 'node:path'
import {parseArgs} from 'node:util'
import {median} from '../convert/measure.ts'
import {OURS, startMachine, startRegistry} from '../startup/machine.ts'
import {makeImages} from './image.ts'
import {type Relay, startRelay} from './relay.ts'

const RESULTS = resolve(import.meta.dirname, '../results')
const ROOT = resolve(import.meta.dirname, '../..')

const USAGE = `usage: npm run bench:client -- [options]

Processor and wall time of command lines until their first request reaches the registry (or, for run, containerd), of all of
it, and of each layer more, in milliseconds, beside a bare Node. Everyone takes turns. Needs root, containerd, runc.

  --rounds N      how often each is run (7)
  --package DIR   another built checkout to compare with, e.g. the last release; may be repeated
  --tmp DIR       where it works (bench/results); what it puts there is deleted
`

/** Layers of the two images whose difference is what a layer costs. */
const COUNTS = [2, 12] as const

/** What one run took, ms. */
interface Run {
  readonly firstCpuMs: number | undefined
  readonly firstWallMs: number | undefined
  readonly cpuMs: number
  readonly wallMs: number
}

interface Contender {
  readonly name: string
  readonly argv: (namespace: string) => readonly string[]
  /** The layers that it pulls. */
  readonly layers?: number
  readonly runs: Run[]
}

async function main(): Promise<void> {
  const {values} = parseArgs({
    options: {
      help: {type: 'boolean', short: 'h'},
      rounds: {type: 'string', default: '7'},
      package: {type: 'string', multiple: true, default: []},
      tmp: {type: 'string', default: RESULTS},
    },
  })
  if (values.help) return void process.stdout.write(USAGE)
  if (process.getuid?.() !== 0) throw new Error('bench:client needs root')
  await mkdir(resolve(values.tmp), {recursive: true})
  const directory = await mkdtemp(join(resolve(values.tmp), 'client-'))
  try {
    await makeImages(join(directory, 'store'), COUNTS, join(ROOT, 'bin/ctr-remote'))
    await using registry = await startRegistry(join(directory, 'store'))
    await using machine = await startMachine(join(directory, 'machine'), {
      programs: OURS,
      config: '/dev/null',
    })
    await using toRegistry = await startRelay(registry.port)
    const socket = join(directory, 'relay.sock')
    await using toContainerd = await startRelay(machine.socket, socket)
    const packages = [ROOT, ...values.package.map(path => resolve(path))]
    const contenders = contendersOf(packages, {socket, port: toRegistry.port, directory})
    for (let round = 0; round < Number(values.rounds); round += 1) {
      for (const contender of contenders) {
        contender.runs.push(await runOnce(contender, {toRegistry, toContainerd, round}))
      }
      process.stderr.write(`round ${round + 1}/${values.rounds}\n`)
    }
    const table = format(contenders)
    process.stdout.write(`\n${table}\n`)
    const when = new Date().toISOString().replaceAll(':', '').replace(/\..*/, '')
    await writeFile(join(RESULTS, `client-${when}.json`), `${JSON.stringify(contenders, undefined, 2)}\n`)
  } finally {
    await rm(directory, {recursive: true, force: true})
  }
}

interface Places {
  /** The relays' socket and port. */
  readonly socket: string
  readonly port: number
  readonly directory: string
}

/** Every command line of every package; ctr and the reference's client where this machine has them. */
function contendersOf(packages: readonly string[], places: Places): Contender[] {
  const {socket, port, directory} = places
  const image = (count: number) => `127.0.0.1:${port}/bench:${count}`
  const contenders: Contender[] = [{name: 'bare Node', argv: () => [process.execPath, '-e', '0'], runs: []}]
  const add = (name: string, argv: Contender['argv'], layers?: number) =>
    contenders.push({name, argv, runs: [], ...(layers === undefined ? {} : {layers})})
  for (const [index, root] of packages.entries()) {
    const program = join(root, 'bin/ctr-remote')
    const of = index === 0 ? '' : ` of ${root}`
    const containerd = (namespace: string) => [
      program,
      '--store',
      'containerd',
      '-a',
      socket,
      '-n',
      namespace,
    ]
    const local = (namespace: string) => [
      program,
      '--store',
      'local',
      '--data-dir',
      join(directory, namespace),
    ]
    add(`--version${of}`, () => [program, '--version'])
    add(`--help${of}`, () => [program, '--help'])
    add(`image ls${of}`, namespace => [...local(namespace), 'image', 'ls'])
    add(`image pull${of}`, namespace => [...local(namespace), 'image', 'pull', '--quiet', image(COUNTS[0])])
    add(`run${of}`, namespace => [...containerd(namespace), 'run', '--rm', 'missing', 'x'])
    for (const count of COUNTS)
      add(`image rpull${of}`, namespace => [...containerd(namespace), 'image', 'rpull', image(count)], count)
  }
  for (const [name, program, verb] of PEERS) {
    if (!existsSync(program)) continue
    for (const count of COUNTS) {
      const argv = (namespace: string) => [
        program,
        '-a',
        socket,
        '-n',
        namespace,
        'image',
        verb,
        '--plain-http',
        image(count),
      ]
      add(`${name} ${verb}`, argv, count)
    }
  }
  return contenders
}

/** What Debian installs; that is in Go, and does not start a runtime first. */
const PEERS = [
  ['ctr', '/usr/bin/ctr', 'pull'],
  ["the reference's", '/usr/bin/ctr-remote', 'rpull'],
] as const

async function runOnce(
  contender: Contender,
  {toRegistry, toContainerd, round}: {toRegistry: Relay; toContainerd: Relay; round: number},
): Promise<Run> {
  const argv = contender.argv(`bench-${process.pid}-${round}-${Math.random().toString(36).slice(2)}`)
  // bash's `time` counts a command and its children, to the millisecond; what the command says is nobody's here.
  const script = 'TIMEFORMAT="%3R %3U %3S"; { time "$@" >/dev/null 2>&4; } 4>/dev/null 2>&3'
  const child = spawn('bash', ['-c', script, 'bash', ...argv], {
    stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
  })
  for (const relay of [toRegistry, toContainerd]) relay.watch(child.pid!)
  let times = ''
  child.stdio[3]!.on('data', text => {
    times += text
  })
  await new Promise(done => child.once('close', done))
  const [wallS, userS, systemS] = times.trim().split(/\s+/).map(Number) as [number, number, number]
  // A lazy pull asks the registry; only what does not has containerd's as its first.
  const first = toRegistry.first() ?? toContainerd.first()
  return {
    firstCpuMs: first?.cpuMs,
    firstWallMs: first?.wallMs,
    cpuMs: (userS + systemS) * 1000,
    wallMs: wallS * 1000,
  }
}

/** A table in Markdown. "More than Node" is against the median of a bare Node in the same rounds. */
function format(contenders: readonly Contender[]): string {
  const bare = contenders[0]!
  const bareMs = median(bare.runs.map(({cpuMs}) => cpuMs))
  const rows = contenders.map(({name, layers, runs}) => {
    const of = (pick: (run: Run) => number | undefined) => {
      const values = runs.map(pick).filter(value => value !== undefined)
      return values.length === 0 ? undefined : median(values)
    }
    const firstMs = of(({firstCpuMs}) => firstCpuMs)
    const cpuMs = of(run => run.cpuMs)!
    const fewer = contenders.find(other => other.name === name && (other.layers ?? 0) < (layers ?? 0))
    const each =
      fewer && layers
        ? (cpuMs - median(fewer.runs.map(run => run.cpuMs))) / (layers - fewer.layers!)
        : undefined
    const cells = [
      layers === undefined ? name : `${name}, ${layers} layers`,
      show(firstMs),
      show(firstMs === undefined ? undefined : firstMs - bareMs),
      show(of(({firstWallMs}) => firstWallMs)),
      show(cpuMs),
      show(cpuMs - bareMs),
      show(of(({wallMs}) => wallMs)),
      each === undefined ? '' : each.toFixed(1),
    ]
    return `| ${cells.join(' | ')} |`
  })
  return [
    '| ms | CPU to the first request | more than Node | wall to it | CPU | more than Node | wall | CPU per further layer |',
    '|---|---|---|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

function show(value: number | undefined): string {
  return value === undefined ? '' : value.toFixed(0)
}

await main()
