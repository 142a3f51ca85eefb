// The figures of a benchmark: medians per contender, as a table for people and JSON for later.

import chalk from 'chalk'
import Table from 'cli-table3'
import type {Contender, Outcome, Task} from './contenders.ts'
import {median} from './measure.ts'

/** One row: medians over the rounds. Bytes and seconds; `tarMBPerCpuS` in 10^6 bytes. */
export interface Figures {
  readonly image: string
  readonly format: string
  readonly tool: Contender['tool']
  readonly cores: number
  readonly rounds: number
  readonly wallS: number
  readonly cpuS: number
  readonly tarMBPerCpuS: number
  readonly peakRssBytes: number
  readonly outputBytes: number
  /** Bytes of TOCs that are kept outside of the layers, compressed. */
  readonly tocBytes: number
  /** Of the output over the source's layers: 0.03 is three percent more. */
  readonly growth: number
  readonly digest?: string
}

export function figuresOf(
  contender: Contender,
  outcomes: readonly Outcome[],
  {subject, format, tarBytes}: Pick<Task, 'subject' | 'format'> & {readonly tarBytes: number},
): Figures {
  const cpuS = median(outcomes.map(outcome => outcome.cpuS))
  const {outputBytes, tocBytes = 0, digest} = outcomes[0]!
  return {
    image: subject.name,
    format: format.name,
    tool: contender.tool,
    cores: contender.cores,
    rounds: outcomes.length,
    wallS: median(outcomes.map(outcome => outcome.wallS)),
    cpuS,
    tarMBPerCpuS: tarBytes / 1e6 / cpuS,
    peakRssBytes: median(outcomes.map(outcome => outcome.peakRssBytes)),
    outputBytes,
    tocBytes,
    growth: outputBytes / subject.layerBytes - 1,
    ...(digest !== undefined && {digest}),
  }
}

/** A table of one image's figures in one format. The factors compare with the reference on as many cores. */
export function formatTable(figures: readonly Figures[]): string {
  const table = new Table({
    head: [
      '',
      'cores',
      'wall s',
      'CPU s',
      'MB/CPU-s',
      'peak MB',
      'out MB',
      'TOC MB',
      'growth',
      'x wall',
      'x CPU',
    ],
    colAligns: ['left', ...Array<'right'>(10).fill('right')],
    style: {head: [], border: [], compact: true},
  })
  for (const row of figures) {
    const reference = figures.find(other => other.tool === 'reference' && other.cores === row.cores)
    const factor = (theirs: number | undefined, own: number) =>
      theirs === undefined || row.tool !== 'ctr-remote' ? '' : chalk.green(`${(theirs / own).toFixed(1)}x`)
    table.push([
      row.tool === 'ctr-remote' ? chalk.bold(row.tool) : row.tool,
      row.cores,
      row.wallS.toFixed(2),
      row.cpuS.toFixed(2),
      row.tarMBPerCpuS.toFixed(1),
      (row.peakRssBytes / 1e6).toFixed(0),
      (row.outputBytes / 1e6).toFixed(1),
      row.tocBytes === 0 ? '' : (row.tocBytes / 1e6).toFixed(1),
      `${row.growth < 0 ? '' : '+'}${(row.growth * 100).toFixed(1)} %`,
      factor(reference?.wallS, row.wallS),
      factor(reference?.cpuS, row.cpuS),
    ])
  }
  return table.toString()
}
