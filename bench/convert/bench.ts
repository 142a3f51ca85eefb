// Compares image conversion: this project, the reference (Debian's ctr-remote), and what one core could do at best.
// All in one run, taking turns, medians. `npm run bench:convert -- --help` says how.

import {mkdir, mkdtemp, rm, writeFile} from 'node:fs/promises'
import {availableParallelism, cpus, release} from 'node:os'
import {basename, join, resolve} from 'node:path'
import {parseArgs} from 'node:util'
import {execa} from 'execa'
import {
  buildCeiling,
  type Contender,
  ceiling,
  type Outcome,
  ours,
  oursAgain,
  readSubject,
  reference,
  type Subject,
} from './contenders.ts'
import {type Format, formatsNamed} from './formats.ts'
import {type Reference, startReference} from './reference.ts'
import {type Figures, figuresOf, formatTable} from './report.ts'

const root = resolve(import.meta.dirname, '../..')
const results = join(root, 'bench/results')

const USAGE = `usage: npm run bench:convert -- [options] [LAYOUT...]

Converts OCI image layouts (tag "latest") to eStargz or other formats, with this project's ctr-remote and with the reference's, and
compares. Without LAYOUT: the image "python" of examples/images, which is made when it is not there.

  --large          the image "large" as well: more than 1 GB, which takes minutes to make and to convert
  --formats LIST   into which formats: estargz (default), zstdchunked, ..., all; those the reference has are compared
  --rounds N       how often each is run (3)
  --cores LIST     on how many processors, e.g. 1,2,4 (at most 4)
  --no-reference   without the reference
  --tmp DIR        where it works (bench/results); what it puts there is deleted, apart from the figures in bench/results
`

interface Options {
  readonly layouts: readonly string[]
  readonly large: boolean
  readonly formats: readonly Format[]
  readonly rounds: number
  readonly cores: readonly number[]
  readonly withReference: boolean
  readonly tmp: string
}

async function main(): Promise<void> {
  const options = parseOptions()
  if (!options) {
    process.stdout.write(USAGE)
    return
  }
  await mkdir(options.tmp, {recursive: true})
  await mkdir(results, {recursive: true})
  const directory = await mkdtemp(join(options.tmp, 'run-'))
  try {
    const subjects = await findSubjects(options, directory)
    await using daemon = options.withReference ? await openReference(subjects, directory) : undefined
    const ceilingProgram = await buildCeiling(directory)
    const figures: Figures[] = []
    for (const subject of subjects) {
      for (const format of options.formats) {
        figures.push(...(await compare(subject, format, {options, directory, daemon, ceilingProgram})))
      }
    }
    await save(figures, daemon?.version)
  } finally {
    await rm(directory, {recursive: true, force: true})
  }
}

/** What a comparison needs besides its task. */
interface Arena {
  readonly options: Options
  readonly directory: string
  readonly daemon: Reference | undefined
  readonly ceilingProgram: string
}

/** Everyone's figures for one image in one format, printed. */
async function compare(subject: Subject, format: Format, arena: Arena): Promise<readonly Figures[]> {
  const {options, directory, daemon} = arena
  const best = ceiling(subject, arena.ceilingProgram)
  const contenders = options.cores.flatMap(cores => {
    const task = {subject, format, cores}
    const theirs = daemon && format.referenceFlags ? [reference(task, daemon)] : []
    return [ours(task, directory), oursAgain(task, directory), ...theirs]
  })
  const tarBytes = await best.tarBytes()
  const outcomes = await takeTurns([...contenders, ...(format.hasCeiling ? [best] : [])], options.rounds)
  const figures = [...outcomes].map(([contender, runs]) =>
    figuresOf(contender, runs, {subject, format, tarBytes}),
  )
  const sizes = `${(tarBytes / 1e6).toFixed(0)} MB of tar, ${(subject.layerBytes / 1e6).toFixed(1)} MB compressed`
  process.stdout.write(
    `\n${subject.name} to ${format.name}: ${subject.layers.length} layers, ${sizes}\n${formatTable(figures)}\n`,
  )
  process.stdout.write(
    `same bytes whatever the cores and the round: ${isReproducible(outcomes) ? 'yes' : 'NO'}\n`,
  )
  return figures
}

function parseOptions(): Options | undefined {
  const {values, positionals} = parseArgs({
    allowPositionals: true,
    options: {
      help: {type: 'boolean', short: 'h'},
      large: {type: 'boolean', default: false},
      formats: {type: 'string', default: 'estargz'},
      rounds: {type: 'string', default: '3'},
      cores: {type: 'string', default: String(Math.min(4, availableParallelism()))},
      'no-reference': {type: 'boolean', default: false},
      tmp: {type: 'string', default: results},
    },
  })
  if (values.help) return undefined
  return {
    layouts: positionals.map(layout => resolve(layout)),
    large: values.large,
    formats: formatsNamed(values.formats.split(',')),
    rounds: Number(values.rounds),
    cores: values.cores.split(',').map(Number),
    withReference: !values['no-reference'],
    tmp: resolve(values.tmp),
  }
}

/** The layouts given; else the example images, made where they are not there yet. */
async function findSubjects({layouts, large}: Options, directory: string): Promise<readonly Subject[]> {
  if (layouts.length > 0) {
    return Promise.all(layouts.map(layout => readSubject(layout, basename(layout))))
  }
  const subjects: Subject[] = []
  for (const name of large ? ['python', 'large'] : ['python']) {
    const layout = join(directory, 'images', name)
    await execa(join(root, 'examples/images/make-image'), [name, layout], {
      stdout: 'inherit',
      stderr: 'inherit',
    })
    subjects.push(await readSubject(layout, name))
  }
  return subjects
}

/** The reference with the images loaded; undefined, and a word about it, where it cannot run. */
async function openReference(
  subjects: readonly Subject[],
  directory: string,
): Promise<Reference | undefined> {
  const daemon = await startReference(join(directory, 'containerd'))
  if (typeof daemon === 'string') {
    process.stderr.write(`without the reference: ${daemon}\n`)
    return undefined
  }
  for (const {layout, name} of subjects) await daemon.load(layout, `${name}:source`)
  return daemon
}

/** Runs everyone once, then everyone again, so that a change in the machine's mood meets all of them. */
async function takeTurns(
  contenders: readonly Contender[],
  rounds: number,
): Promise<Map<Contender, Outcome[]>> {
  const outcomes = new Map<Contender, Outcome[]>(contenders.map(contender => [contender, []]))
  for (let round = 1; round <= rounds; round++) {
    for (const contender of contenders) {
      const outcome = await contender.run(round)
      outcomes.get(contender)!.push(outcome)
      const {wallS, cpuS} = outcome
      const figures = `${wallS.toFixed(2)} s, ${cpuS.toFixed(2)} CPU-s`
      process.stderr.write(`round ${round}/${rounds}  ${contender.tool} on ${contender.cores}: ${figures}\n`)
    }
  }
  return outcomes
}

function isReproducible(outcomes: ReadonlyMap<Contender, readonly Outcome[]>): boolean {
  const digests = [...outcomes.values()].flat().flatMap(({digest}) => digest ?? [])
  return new Set(digests).size <= 1
}

async function save(figures: readonly Figures[], referenceVersion: string | undefined): Promise<void> {
  const when = new Date().toISOString()
  const machine = {
    processor: cpus()[0]?.model,
    processors: cpus().length,
    kernel: release(),
    node: process.version,
  }
  const file = join(results, `convert-${when.replaceAll(':', '').replace(/\..*/, '')}.json`)
  await writeFile(file, `${JSON.stringify({when, machine, referenceVersion, figures}, undefined, 2)}\n`)
  process.stdout.write(`\nwritten: ${file}\n`)
}

await main()
