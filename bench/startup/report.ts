// The figures of the benchmark: medians, as a table for people and as data for the page and for later.

import chalk from 'chalk'
import Table from 'cli-table3'
import {median} from '../convert/measure.ts'
import type {FileFigures} from './files.ts'
import type {Start} from './start-container.ts'
import type {Subject} from './subjects.ts'

/** Medians over the rounds. Seconds and bytes. */
export interface Figures {
  readonly image: string
  readonly link: string
  readonly contender: string
  readonly workload: string
  readonly rounds: number
  readonly pullS: number
  readonly createS: number
  readonly runS: number
  readonly totalS: number
  readonly requests: number
  readonly bytes: number
  readonly daemonCpuS: number
  readonly clientCpuS: number
  readonly rss: number
  readonly idleCpuS: number
  readonly idleRss: number
  readonly filledCpuS?: number
  readonly filledRss?: number
  readonly fillS?: number
  readonly files?: FileFigures
}

export function figuresOf(
  {
    subject,
    link,
    contender,
    workload,
  }: {
    readonly subject: Subject
    readonly link: string
    readonly contender: {readonly name: string}
    readonly workload: string
  },
  starts: readonly Start[],
): Figures {
  const of = (value: (start: Start) => number) => median(starts.map(value))
  const last = starts.findLast(({filled}) => filled)
  return {
    image: subject.name,
    link,
    contender: contender.name,
    workload,
    rounds: starts.length,
    pullS: of(({pullS}) => pullS),
    createS: of(({createS}) => createS),
    runS: of(({runS}) => runS),
    totalS: of(({totalS}) => totalS),
    requests: of(({served}) => served.requests),
    bytes: of(({served}) => served.bytes),
    daemonCpuS: of(({daemonCpuS}) => daemonCpuS),
    clientCpuS: of(({clientCpuS}) => clientCpuS),
    rss: of(({rss}) => rss),
    idleCpuS: of(({idleCpuS}) => idleCpuS),
    idleRss: of(({idleRss}) => idleRss),
    ...(last?.filled && {
      filledCpuS: last.filled.daemonCpuS,
      filledRss: last.filled.rss,
      fillS: last.filled.fillS,
    }),
    ...(last?.files && {files: last.files}),
  }
}

/** The starts of one image, by link and workload. The factor is the total over that of the full pull in the same place. */
export function formatStarts(figures: readonly Figures[]): string {
  const head = [
    'link',
    'workload',
    '',
    'pull s',
    'create s',
    'run s',
    'total s',
    'of full',
    'MB',
    'requests',
    'client CPU s',
    'daemons CPU s',
    'idle CPU s',
    'RSS MB',
    'idle MB',
  ]
  const table = tableWith(head)
  for (const row of figures) {
    const full = figures.find(
      ({link, workload, contender}) => link === row.link && workload === row.workload && contender === 'full',
    )
    table.push([
      row.link,
      row.workload,
      row.contender === 'full' ? row.contender : chalk.bold(row.contender),
      ...[row.pullS, row.createS, row.runS, row.totalS].map(value => value.toFixed(2)),
      full && row !== full ? chalk.green(`${(row.totalS / full.totalS).toFixed(2)}x`) : '',
      (row.bytes / 1e6).toFixed(1),
      row.requests,
      row.clientCpuS.toFixed(2),
      row.daemonCpuS.toFixed(2),
      row.rss > 0 ? row.idleCpuS.toFixed(2) : '',
      ...[row.rss, row.idleRss].map(bytes => (bytes > 0 ? (bytes / 1e6).toFixed(0) : '')),
    ])
  }
  return table.toString()
}

/** File systems after the fill; empty without such figures. */
export function formatFiles(figures: readonly Figures[]): string {
  const rows = figures.filter(({files}) => files)
  if (rows.length === 0) return ''
  const table = tableWith([
    '',
    'cold walk s',
    'warm walk s',
    'cold read s',
    'warm read s',
    'filled after s',
    'CPU s',
    'RSS MB',
  ])
  for (const {contender, files, fillS = 0, filledCpuS = 0, filledRss = 0} of rows) {
    table.push([
      contender,
      ...[files!.coldWalkS, files!.warmWalkS, files!.coldReadS, files!.warmReadS].map(value =>
        value.toFixed(2),
      ),
      filledRss > 0 ? fillS.toFixed(1) : '',
      filledCpuS.toFixed(2),
      filledRss > 0 ? (filledRss / 1e6).toFixed(0) : '',
    ])
  }
  return table.toString()
}

function tableWith(head: readonly string[]) {
  const colAligns = head.map((name): 'left' | 'right' =>
    ['', 'link', 'workload'].includes(name) ? 'left' : 'right',
  )
  return new Table({head: [...head], colAligns, style: {head: [], border: [], compact: true}})
}
