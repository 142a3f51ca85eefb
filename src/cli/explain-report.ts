// What `image explain` says: to scripts, and to people on a terminal.

import type {ExplainedImage} from '../lib/explain/explain-image.ts'
import {
  type Advice,
  adviceFor,
  costsOf,
  fetchedBytes,
  type Link,
  type StartCosts,
  type StartTotals,
  totalsOfImage,
} from '../lib/explain/start-costs.ts'
import {formatPlatform} from '../lib/oci/platform.ts'
import {formatBytes} from './units.ts'

/** As `--json` prints it; the page shows the same. */
export interface ExplainReport {
  readonly name: string
  readonly digest: string
  readonly platform: string | undefined
  readonly link: Link
  readonly totals: StartTotals
  /** Bytes that are fetched before a start. */
  readonly fetchedBytes: number
  readonly costs: StartCosts
  /** Whether a profile was given: what is read, missed and wasted is known. */
  readonly compared: boolean
  readonly layers: ExplainedImage['layers']
  readonly advice: readonly Advice[]
  /** Of the image that this one is compared with. */
  readonly against?: ExplainReport | undefined
}

export function describeExplanation(name: string, image: ExplainedImage, link: Link): ExplainReport {
  const totals = totalsOfImage(image)
  return {
    name,
    digest: image.digest,
    platform: image.platform && formatPlatform(image.platform),
    link,
    totals,
    fetchedBytes: fetchedBytes(totals),
    costs: costsOf(totals, link),
    compared: image.isCompared,
    layers: image.layers,
    advice: adviceFor(image, totals, formatBytes),
  }
}

export const formatSeconds = (seconds: number) => `${seconds.toFixed(seconds < 10 ? 2 : 1)} s`

export const formatLink = ({delayMs, mbit}: Link) => `${delayMs} ms each way, ${mbit} Mbit/s`

/** The figures of an image by name, as they are compared. */
export function figuresOf(report: ExplainReport): readonly (readonly [name: string, value: string])[] {
  const {totals, costs, fetchedBytes: fetched, compared} = report
  return [
    ['image', formatBytes(totals.imageBytes)],
    ['fetched before a start', formatBytes(fetched)],
    ['  tables of contents', formatBytes(totals.tocBytes)],
    ['  what a start reads', formatBytes(totals.prefetchBytes)],
    ...(totals.unlazyBytes > 0
      ? ([['  layers that are not lazy', formatBytes(totals.unlazyBytes)]] as const)
      : []),
    ['by other readers', formatBytes(totals.tocBytes + totals.unlazyBytes + totals.landmarkBytes)],
    ...(compared
      ? ([
          ['read by the profile', formatBytes(totals.readBytes)],
          ['  not prefetched', formatBytes(totals.missedBytes)],
          ['prefetched, not read', formatBytes(totals.wastedBytes)],
        ] as const)
      : []),
    ['transfer, pulled whole', formatSeconds(costs.fullS)],
    ['transfer, other readers', formatSeconds(costs.landmarkS)],
    ['transfer, ours', formatSeconds(costs.prefetchS)],
  ]
}

export function linesOfExplanation(report: ExplainReport): string[] {
  const {name, digest, platform, link, against} = report
  const figures = figuresOf(report)
  const others = against && new Map(figuresOf(against))
  const width = Math.max(...figures.map(([label]) => label.length))
  const valueWidth = Math.max(...figures.map(([, value]) => value.length))
  return [
    `${name} ${platform ?? ''} ${digest}`.replace('  ', ' '),
    ...(against ? [`against ${against.name} ${against.digest}`] : []),
    '',
    ...figures.map(([label, value]) => {
      const other = others?.get(label)
      const right = value.padStart(valueWidth)
      return `${label.padEnd(width)}  ${right}${other === undefined ? '' : `   against ${other}`}`
    }),
    '',
    ...report.advice.map(({isGood, text}) => `${isGood ? 'good' : 'note'}: ${text}`),
    `transfer times are estimates for ${formatLink(link)}, of bytes and round trips alone`,
  ]
}
