// How long a container takes to start: full pull against lazy, HelloBench's method. `npm run bench:startup -- --help`.

import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises'
import {cpus, release} from 'node:os'
import {join, resolve} from 'node:path'
import {parseArgs} from 'node:util'
import {type Programs, programsIn, startRegistry} from './machine.ts'
import {renderPage} from './page.ts'
import {type Figures, figuresOf, formatFiles, formatStarts} from './report.ts'
import {describeResident, measureResident, type Resident} from './resident.ts'
import {startSlowLink} from './slow-link.ts'
import {
  CONTENDERS,
  contendersOf,
  type Start,
  type StartOptions,
  startContainer,
  VIAS,
  type Via,
} from './start-container.ts'
import {PODMAN_CONTENDERS, startWithPodman} from './start-podman.ts'
import {makeExample, publish, type Subject, WORKLOAD_NAMES, type WorkloadName} from './subjects.ts'

const RESULTS = resolve(import.meta.dirname, '../results')

const USAGE = `usage: npm run bench:startup -- [options] [LAYOUT...]

Pulls images, creates a container and runs it until it prints a line: by a full pull on overlayfs (containerd, ctr), lazily,
and lazily after optimizing for that workload. Each start is on a fresh file system with daemons of its own. LAYOUT is an
OCI image layout (tag "latest"); its name chooses the workload, as in subjects.ts. Without: the image "python" of
examples/images, which is made when it is not there. Needs root, containerd, runc.

  --rounds N         how often each is run (3)
  --links LIST       of local, wan: the registry on this machine, and behind a link (local,wan)
  --delay MS         of the link, one way (10)
  --mbit N           of the link (200)
  --contenders LIST  of full, lazy, optimized (all)
  --workloads LIST   of start, the image's own, and dense, which reads every file (start)
  --via WHO          client (ctr, ctr-remote), or cri, as for a kubelet (client)
  --idle S           how long daemons have been up when the pull begins, seconds (0)
  --store            by Podman: full, and from our layer store by both of its faces; needs podman
  --reference DIR    takes turns with the containerd-stargz-grpc and ctr-remote there: the reference's, or an older build's
  --config FILE      the snapshotter's config.toml
  --resident         the memory and disk of all lazy images in one machine as well
  --files            file system figures as well, in the first round; drops this machine's caches
  --tmp DIR          where it works (bench/results); what it puts there is deleted, apart from the figures in bench/results
`

/** A way to start a container, and how that is done. */
interface Runner {
  readonly name: string
  start(subject: Subject, options: StartOptions): Promise<Start>
}

interface Options {
  readonly layouts: readonly string[]
  readonly rounds: number
  readonly links: readonly string[]
  readonly delayMs: number
  readonly mbit: number
  readonly contenders: readonly Runner[]
  readonly workloads: readonly WorkloadName[]
  readonly idleS: number
  readonly via: Via
  readonly config: string
  readonly files: boolean
  readonly resident: boolean
  readonly tmp: string
}

async function main(): Promise<void> {
  const options = parseOptions()
  if (!options) return void process.stdout.write(USAGE)
  if (process.getuid?.() !== 0) throw new Error('bench:startup needs root')
  await mkdir(options.tmp, {recursive: true})
  await mkdir(RESULTS, {recursive: true})
  const directory = await mkdtemp(join(options.tmp, 'startup-'))
  try {
    await using registry = await startRegistry(join(directory, 'registry'))
    await using link = await startSlowLink({...options, targetPort: registry.port})
    const addresses: Readonly<Record<string, string>> = {
      local: `127.0.0.1:${registry.port}`,
      wan: link.address,
    }
    const layouts = options.layouts.length > 0 ? options.layouts : [await makeExample('python', directory)]
    const figures: Figures[] = []
    const subjects: Subject[] = []
    const machine = join(directory, 'machine')
    for (const layout of layouts) {
      const subject = await publish(layout, addresses.local!)
      subjects.push(subject)
      const starts = await takeTurns(subject, options, async (linkName, contender, workload, round) => {
        const address = addresses[linkName]!
        const withFiles =
          options.files && round === 1 && linkName === options.links[0] && workload === options.workloads[0]
        return contender.start(subject, {
          ...options,
          workload,
          directory: machine,
          registry,
          address,
          withFiles,
        })
      })
      figures.push(...starts)
      const size = `${subject.layers} layers, ${(subject.size / 1e6).toFixed(1)} MB`
      process.stdout.write(`\n${subject.name}: ${size}\n${formatStarts(starts)}\n${formatFiles(starts)}\n`)
    }
    const resident = options.resident
      ? await measureResident(subjects, {...options, directory: machine, address: addresses.local!})
      : undefined
    if (resident) process.stdout.write(`${describeResident(resident)}\n`)
    await save({figures, resident}, options)
  } finally {
    await rm(directory, {recursive: true, force: true})
  }
}

function parseOptions(): Options | undefined {
  const {values, positionals} = parseArgs({
    allowPositionals: true,
    options: {
      help: {type: 'boolean', short: 'h'},
      rounds: {type: 'string', default: '3'},
      links: {type: 'string', default: 'local,wan'},
      delay: {type: 'string', default: '10'},
      mbit: {type: 'string', default: '200'},
      contenders: {type: 'string', default: CONTENDERS.map(({name}) => name).join(',')},
      workloads: {type: 'string', default: WORKLOAD_NAMES[0]},
      idle: {type: 'string', default: '0'},
      via: {type: 'string', default: VIAS[0]},
      store: {type: 'boolean', default: false},
      reference: {type: 'string'},
      config: {type: 'string'},
      files: {type: 'boolean', default: false},
      resident: {type: 'boolean', default: false},
      tmp: {type: 'string', default: RESULTS},
    },
  })
  if (values.help) return undefined
  const programs = values.reference === undefined ? undefined : programsIn(resolve(values.reference))
  const runners = values.store ? podmanRunners() : containerdRunners(programs)
  // "lazy" is also whatever is named after it.
  const wanted = new Set(values.contenders.split(','))
  return {
    layouts: positionals.map(layout => resolve(layout)),
    rounds: Number(values.rounds),
    links: values.links.split(','),
    delayMs: Number(values.delay),
    mbit: Number(values.mbit),
    contenders: runners.filter(({name}) => wanted.has(name.replace(/,.*/, ''))),
    workloads: WORKLOAD_NAMES.filter(name => values.workloads.split(',').includes(name)),
    idleS: Number(values.idle),
    via: values.via === 'cri' ? 'cri' : 'client',
    // Empty by default: not what this machine's own snapshotter is told.
    config: resolve(values.config ?? '/dev/null'),
    files: values.files,
    resident: values.resident,
    tmp: resolve(values.tmp),
  }
}

function containerdRunners(reference: Programs | undefined): readonly Runner[] {
  const contenders = [...CONTENDERS, ...(reference === undefined ? [] : contendersOf(reference))]
  return contenders.map(contender => ({
    name: contender.name,
    start: (subject, options) => startContainer(subject, contender, options),
  }))
}

function podmanRunners(): readonly Runner[] {
  return PODMAN_CONTENDERS.map(contender => ({
    name: contender.name,
    start: (subject, options) => startWithPodman(subject, contender, options),
  }))
}

/** Runs everyone once, then everyone again, so that a change in the machine's mood meets all of them. */
async function takeTurns(
  subject: Subject,
  {rounds, links, contenders, workloads}: Options,
  start: (link: string, contender: Runner, workload: WorkloadName, round: number) => Promise<Start>,
): Promise<Figures[]> {
  const pairs = links.flatMap(link =>
    workloads.flatMap(workload =>
      contenders.map(contender => ({subject, link, contender, workload, starts: [] as Start[]})),
    ),
  )
  for (let round = 1; round <= rounds; round++) {
    for (const {link, contender, workload, starts} of pairs) {
      const figures = await start(link, contender, workload, round)
      starts.push(figures)
      const {totalS, served} = figures
      const told = `${totalS.toFixed(2)} s, ${(served.bytes / 1e6).toFixed(1)} MB, ${served.requests} requests`
      process.stderr.write(
        `round ${round}/${rounds}  ${subject.name} ${link} ${workload} ${contender.name}: ${told}\n`,
      )
    }
  }
  return pairs.map(pair => figuresOf(pair, pair.starts))
}

async function save(
  results: {readonly figures: readonly Figures[]; readonly resident: Resident | undefined},
  {delayMs, mbit, idleS, via}: Options,
): Promise<void> {
  const when = new Date().toISOString()
  const machine = {
    processor: cpus()[0]?.model,
    processors: cpus().length,
    kernel: release(),
    node: process.version,
  }
  const name = join(RESULTS, `startup-${when.replaceAll(':', '').replace(/\..*/, '')}`)
  const link = {delayMs, mbit, idleS, via}
  await writeFile(`${name}.json`, `${JSON.stringify({when, machine, link, ...results}, undefined, 2)}\n`)
  const about = `${machine.processors} x ${machine.processor}, Linux ${machine.kernel}, ${when.slice(0, 10)}; wan: ${delayMs} ms each way, ${mbit} Mbit/s. ${results.resident ? `${describeResident(results.resident)}.` : ''}`
  await writeFile(`${name}.html`, renderPage(results.figures, about))
  process.stdout.write(`\nwritten: ${name}.json and .html\n`)
}

await main()
