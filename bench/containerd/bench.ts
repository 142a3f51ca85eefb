// Compares work on containerd: pulls and pushes with `ctr`, a conversion with the same one on the local store. All in
// one run, taking turns, medians. `npm run bench:containerd -- --help` says how.

import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {basename, join, resolve} from 'node:path'
import {parseArgs} from 'node:util'
import Table from 'cli-table3'
import {execa} from 'execa'
import {startContainerd} from '../../test/support/containerd.ts'
import {startDockerRegistry} from '../../test/support/docker-registry.ts'
import {newerPrograms} from '../../test/support/newer-programs.ts'
import {type Measurement, measure, median} from '../convert/measure.ts'

const root = resolve(import.meta.dirname, '../..')

const USAGE = `usage: npm run bench:containerd -- [options] [LAYOUT...]

Pulls, pushes and converts OCI image layouts (tag "latest") with a containerd and a docker-registry of its own on this
machine. Without LAYOUT: the image "python" of examples/images, which is made when it is not there. Needs root.

  --rounds N   how often each is run (3)
  --cores N    on how many processors, everybody together (4)
  --newer      with Debian unstable's containerd, not the distribution's
  --only NAME  one of pull, push, convert
`

interface Options {
  readonly layouts: readonly string[]
  readonly rounds: number
  readonly cpus: string
  readonly programs: string | undefined
  readonly only: string | undefined
}

/** One command of a pair. `clear` undoes it, and is not measured. */
interface Contender {
  readonly tool: string
  run(round: number): Promise<Measurement>
  clear(round: number): Promise<unknown>
}

interface Comparison {
  readonly name: 'pull' | 'push' | 'convert'
  readonly own: Contender
  readonly peer: Contender
}

async function main(): Promise<void> {
  const options = parseOptions()
  if (!options) {
    process.stdout.write(USAGE)
    return
  }
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-bench-'))
  const table = new Table({
    head: ['image', '', 'tool', 'wall s', 'CPU s', 'peak MB', 'x wall'],
    colAligns: ['left', 'left', 'left', 'right', 'right', 'right', 'right'],
    style: {head: [], border: [], compact: true},
  })
  try {
    for (const layout of await findLayouts(options, directory)) {
      for (const comparison of await compare(layout, directory, options)) table.push(comparison)
    }
  } finally {
    await rm(directory, {recursive: true, force: true})
  }
  process.stdout.write(`${table.toString()}\n`)
}

function parseOptions(): Options | undefined {
  const {values, positionals} = parseArgs({
    allowPositionals: true,
    options: {
      help: {type: 'boolean', short: 'h'},
      rounds: {type: 'string', default: '3'},
      cores: {type: 'string', default: '4'},
      newer: {type: 'boolean', default: false},
      only: {type: 'string'},
    },
  })
  if (values.help) return undefined
  return {
    layouts: positionals.map(layout => resolve(layout)),
    rounds: Number(values.rounds),
    cpus: `0-${Number(values.cores) - 1}`,
    programs: values.newer ? newerPrograms('containerd') : undefined,
    only: values.only,
  }
}

async function findLayouts({layouts}: Options, directory: string): Promise<readonly string[]> {
  if (layouts.length > 0) return layouts
  const layout = join(directory, 'images', 'python')
  await execa(join(root, 'examples/images/make-image'), ['python', layout], {stderr: 'inherit'})
  return [layout]
}

/** Rows of the table. */
async function compare(layout: string, directory: string, options: Options): Promise<string[][]> {
  await using containerd = await startContainerd({programs: options.programs})
  await using registry = await startDockerRegistry()
  await execa('taskset', ['--all-tasks', '--pid', '--cpu-list', options.cpus, String(containerd.pid)])
  const image = basename(layout)
  const [remote, imported] = [`${registry.host}/${image}:1`, `${registry.host}/imported:1`]
  const skopeo = ['copy', '--quiet', `oci:${layout}:latest`]
  await execa('skopeo', [...skopeo, '--dest-tls-verify=false', `docker://${remote}`])

  const env = {
    ...process.env,
    PATH: `${options.programs ?? ''}:${process.env.PATH}`,
    HOME: directory,
    XDG_CACHE_HOME: join(directory, 'cache'),
    XDG_DATA_HOME: join(directory, 'data'),
  }
  const program = join(root, 'bin/ctr-remote')
  const time = (command: readonly string[]) =>
    measure(command, {cpus: options.cpus, env, alsoPids: [containerd.pid]})
  const ctr = (...words: string[]) => time(['ctr', '-a', containerd.address, 'images', ...words])
  const own = (...words: string[]) => time([program, ...words])
  const onContainerd = ['--store', 'containerd', '-a', containerd.address, 'image']
  const remove = (...names: string[]) => containerd.ctr('images', 'rm', '--sync', ...names)
  // Conversions that were done before, but not Node's compiled code.
  const forget = () => rm(join(env.XDG_CACHE_HOME, 'ctr-remote/conversions'), {recursive: true, force: true})
  await execa(program, ['--store', 'local', 'image', 'pull', '-q', '--plain-http', remote], {env})

  const comparisons: readonly Comparison[] = [
    {
      name: 'pull',
      own: {
        tool: 'ctr-remote',
        run: () => own(...onContainerd, 'pull', '-q', remote),
        clear: () => remove(remote),
      },
      peer: {tool: 'ctr', run: () => ctr('pull', '--plain-http', remote), clear: () => remove(remote)},
    },
    {
      name: 'push',
      own: {
        tool: 'ctr-remote',
        run: round => own(...onContainerd, 'push', '-q', `${registry.host}/own${round}:1`, imported),
        clear: async () => {},
      },
      peer: {
        tool: 'ctr',
        run: round => ctr('push', '--plain-http', `${registry.host}/ctr${round}:1`, imported),
        clear: async () => {},
      },
    },
    {
      name: 'convert',
      own: {
        tool: 'on containerd',
        run: () => own(...onContainerd, 'convert', '-q', '--estargz', '--oci', imported, 'converted:1'),
        clear: () => Promise.all([remove('converted:1'), forget()]),
      },
      peer: {
        tool: 'on the local store',
        run: () => own('--store', 'local', 'image', 'convert', '-q', '--estargz', '--oci', remote, 'x:1'),
        clear: async () => {
          await execa(program, ['--store', 'local', 'image', 'rm', '--sync', 'x:1'], {env})
          await forget()
        },
      },
    },
  ]
  const rows: string[][] = []
  for (const comparison of comparisons) {
    // Pulled blobs must not be there before, and pushed ones must not be known to have come from this registry.
    if (comparison.name === 'push') {
      const archive = join(directory, 'import.tar')
      await execa('skopeo', [...skopeo, `oci-archive:${archive}:${imported}`])
      await containerd.ctr('images', 'import', '--no-unpack', archive)
    }
    if (options.only !== undefined && options.only !== comparison.name) continue
    rows.push(...(await takeTurns(image, comparison, options.rounds)))
  }
  return rows
}

/** Runs both once, then both again, so that a change in the machine's mood meets both. */
async function takeTurns(image: string, {name, own, peer}: Comparison, rounds: number): Promise<string[][]> {
  const contenders = [own, peer]
  const runs: Measurement[][] = [[], []]
  for (let round = 1; round <= rounds; round++) {
    for (const [index, contender] of contenders.entries()) {
      const took = await contender.run(round)
      await contender.clear(round)
      runs[index]!.push(took)
      process.stderr.write(
        `round ${round}/${rounds}  ${name}: ${contender.tool} ${took.wallS.toFixed(2)} s\n`,
      )
    }
  }
  const wallOf = (all: readonly Measurement[]) => median(all.map(({wallS}) => wallS))
  const factor = wallOf(runs[0]!) / wallOf(runs[1]!)
  return contenders.map(({tool}, index) => [
    image,
    name,
    tool,
    wallOf(runs[index]!).toFixed(2),
    median(runs[index]!.map(({cpuS}) => cpuS)).toFixed(2),
    (median(runs[index]!.map(({peakRssBytes}) => peakRssBytes)) / 1e6).toFixed(0),
    index === 0 ? `${factor.toFixed(2)}x` : '',
  ])
}

await main()
