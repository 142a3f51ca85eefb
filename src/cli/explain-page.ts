// The report of `image explain` as one HTML file that needs nothing else, and no script: readable on a phone, in the dark, and
// on paper.

import type {ExplainedFile, ExplainedImage} from '../lib/explain/explain-image.ts'
import {type ExplainReport, figuresOf, formatLink, formatSeconds} from './explain-report.ts'
import {formatBytes} from './units.ts'

/** Files that the page lists; the rest is told as a sum. */
const MAX_FILES = 60
/** Ranges that the timeline shows of one layer. */
const MAX_MARKS = 500

type Layer = ExplainedImage['layers'][number]

interface Part {
  readonly name: string
  readonly kind: 'toc' | 'prefetch' | 'missed' | 'whole' | 'rest'
  readonly bytes: number
}

const STYLE = `
:root { color-scheme: light dark; --text: #1c2430; --soft: #5a6675; --back: #fbfcfd; --card: #fff; --line: #dfe5ec;
  --toc: #8b6fc9; --prefetch: #1f7ae0; --missed: #d8462f; --whole: #e0a526; --rest: #e6ebf1; --good: #1c8a55; --note: #b06a00 }
@media (prefers-color-scheme: dark) { :root { --text: #e4e9f0; --soft: #9aa7b6; --back: #11161d; --card: #19202a;
  --line: #2b3542; --toc: #a58be0; --prefetch: #4d9cf5; --missed: #f0705a; --whole: #d9a93f; --rest: #2a3441; --good: #4cc38a; --note: #e0a040 } }
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 3rem; max-width: 62rem; background: var(--back); color: var(--text);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif }
h1 { margin: 0; font-size: 1.5rem; line-height: 1.25; overflow-wrap: anywhere }
h2 { margin: 2.25rem 0 .25rem; font-size: 1.15rem }
p { margin: .25rem 0 .75rem } .soft { color: var(--soft); font-size: .9rem; overflow-wrap: anywhere }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1.25rem 0 }
.card { padding: .75rem .9rem; border: 1px solid var(--line); border-radius: .6rem; background: var(--card) }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; white-space: nowrap }
.card span { color: var(--soft); font-size: .85rem }
.advice { list-style: none; margin: 0; padding: 0 }
.advice li { margin: .5rem 0; padding: .6rem .9rem; border-left: .3rem solid var(--note); border-radius: .3rem; background: var(--card) }
.advice li.good { border-color: var(--good) }
.bar { display: flex; height: 1.1rem; overflow: hidden; border-radius: .25rem; background: var(--rest) }
.bar i { display: block; height: 100%; min-width: 0 }
.toc { background: var(--toc) } .prefetch { background: var(--prefetch) } .missed { background: var(--missed) }
.whole { background: var(--whole) } .rest { background: var(--rest) }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.1rem; padding: 0; margin: .5rem 0 .75rem; list-style: none; font-size: .9rem }
.key i { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; border-radius: .15rem; vertical-align: -.05rem }
.layer { margin: .9rem 0 } .layer div:first-child { display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem }
.lane { position: relative; height: 1.5rem; margin: .15rem 0 .6rem; border-radius: .25rem; background: var(--rest); overflow: hidden }
.lane i { position: absolute; top: 0; bottom: 0; min-width: 2px; background: var(--prefetch); opacity: .8 }
.axis { display: flex; justify-content: space-between; color: var(--soft); font-size: .85rem; font-variant-numeric: tabular-nums }
.curve { display: block; width: 100%; height: 9rem; margin-top: .5rem; border-bottom: 1px solid var(--line); border-left: 1px solid var(--line) }
.curve path { fill: none; stroke-width: 2.5; vector-effect: non-scaling-stroke }
.wide { overflow-x: auto } table { width: 100%; border-collapse: collapse; font-size: .92rem }
th, td { padding: .35rem 0 .35rem .9rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top }
th { color: var(--soft); font-weight: 600; white-space: nowrap }
th:first-child, td:first-child { padding-left: 0 } td.inner:first-child { padding-left: 1rem }
td.number, th.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums }
td.path { min-width: 11rem; overflow-wrap: anywhere; font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: .85rem }
td .bar { width: 6rem; height: .7rem; margin-top: .4rem }
.against { table-layout: fixed } .against th.number { white-space: normal; overflow-wrap: anywhere; vertical-align: bottom }
@media (max-width: 36rem) { .spare { display: none } td.path { min-width: 7rem } td .bar { width: 4rem } }
@media print { body { max-width: none } }
`

/** The whole page. */
export function explanationPage(report: ExplainReport): string {
  const {name, digest, platform, against} = report
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escapeHtml(name)}: what a start fetches</title>
<style>${STYLE}</style>
</head>
<body>
<h1>${escapeHtml(name)}</h1>
<p class="soft">${escapeHtml([platform, digest].filter(Boolean).join(' · '))}</p>
${cards(report)}
<ul class="advice">${report.advice.map(({isGood, text}) => `<li${isGood ? ' class="good"' : ''}>${escapeHtml(text)}</li>`).join('')}</ul>
${against ? comparison(report, against) : ''}
${layers(report)}
${timeline(report)}
${files(report)}
<p class="soft">Sizes are compressed. Times are estimates for a link of ${escapeHtml(formatLink(report.link))}, of bytes and round trips alone: unpacking, mounting and the program itself come on top.</p>
</body>
</html>
`
}

function cards({totals, costs, fetchedBytes}: ExplainReport): string {
  const share = totals.imageBytes > 0 ? Math.round((100 * fetchedBytes) / totals.imageBytes) : 0
  const card = (value: string, text: string) =>
    `<div class="card"><b>${escapeHtml(value)}</b><span>${escapeHtml(text)}</span></div>`
  return `<div class="cards">
${card(formatBytes(fetchedBytes), `fetched before a start, ${share} % of the image`)}
${card(formatBytes(totals.tocBytes + totals.unlazyBytes + totals.landmarkBytes), 'by readers that fetch whole files')}
${card(formatBytes(totals.imageBytes), 'the whole image')}
${card(formatSeconds(costs.prefetchS), `of transfer, beside ${formatSeconds(costs.fullS)} for the whole image`)}
</div>`
}

function comparison(report: ExplainReport, against: ExplainReport): string {
  const others = new Map(figuresOf(against))
  const rows = figuresOf(report).map(
    ([label, value]) =>
      `<tr><td${label.startsWith(' ') ? ' class="inner"' : ''}>${escapeHtml(label)}</td><td class="number">${escapeHtml(value)}</td><td class="number">${escapeHtml(others.get(label) ?? '')}</td></tr>`,
  )
  return `<h2>Comparison</h2>
<table class="against"><tr><th></th><th class="number">${escapeHtml(report.name)}</th><th class="number">${escapeHtml(against.name)}</th></tr>
${rows.join('\n')}</table>`
}

/** What becomes of a layer's bytes in a start. */
function partsOf({
  format,
  size,
  tocBytes,
  prefetchBytes,
  missedBytes,
  landmarkBytes,
}: Layer): readonly Part[] {
  if (format === undefined) return [{name: 'not lazy: fetched whole', kind: 'missed', bytes: size}]
  const started = tocBytes + prefetchBytes + missedBytes
  const whole = Math.max(0, Math.min(landmarkBytes - prefetchBytes, size - started))
  const parts: Part[] = [
    {name: 'table of contents', kind: 'toc', bytes: tocBytes},
    {name: 'prefetched', kind: 'prefetch', bytes: prefetchBytes},
    {name: 'read, not prefetched', kind: 'missed', bytes: missedBytes},
    {name: 'the rest of these files', kind: 'whole', bytes: whole},
    {name: 'everything else', kind: 'rest', bytes: size - started - whole},
  ]
  return parts.filter(({bytes}) => bytes > 0)
}

function layers(report: ExplainReport): string {
  const all = report.layers.map(layer => ({layer, parts: partsOf(layer)}))
  const shown = new Map(all.flatMap(({parts}) => parts.map(({kind, name}) => [kind, name] as const)))
  const key = [...shown].map(([kind, name]) => `<li><i class="${kind}"></i>${escapeHtml(name)}</li>`)
  const largest = Math.max(1, ...report.layers.map(({size}) => size))
  const rows = all.map(({layer, parts}, index) => {
    const told = parts.map(({name, bytes}) => `${name} ${formatBytes(bytes)}`).join(', ')
    const width = Math.max(2, (100 * layer.size) / largest)
    return `<div class="layer"><div><span>${index + 1}. ${escapeHtml(layer.format ?? 'not lazy')}</span><span class="soft">${escapeHtml(layer.digest.slice(7, 19))} · ${formatBytes(layer.size)}</span></div>
<div class="bar" style="width:${width.toFixed(2)}%" role="img" aria-label="${escapeHtml(told)}" title="${escapeHtml(told)}">${barParts(parts, layer.size)}</div>
<div class="soft">${escapeHtml(layer.problem ?? told)}</div></div>`
  })
  return `<h2>Layers</h2>
<p class="soft">What becomes of each layer’s bytes in a start, the lowest layer first.</p>
<ul class="key">${key.join('')}</ul>
${rows.join('\n')}`
}

function barParts(parts: readonly Part[], size: number): string {
  return parts
    .map(
      ({kind, bytes}) =>
        `<i class="${kind}" style="width:${((100 * bytes) / Math.max(1, size)).toFixed(3)}%"></i>`,
    )
    .join('')
}

/** When what is read, from the plans; nothing where there are none. */
function timeline({layers: all, link}: ExplainReport): string {
  const ranges = all.flatMap(({plan = []}) => plan).sort((a, b) => a.atMs - b.atMs)
  if (ranges.length === 0) return ''
  const lastMs = Math.max(1, ranges.at(-1)!.atMs)
  const total = ranges.reduce((bytes, {offset, end}) => bytes + end - offset, 0)
  const left = (ms: number) => ((100 * ms) / lastMs).toFixed(2)
  const lanes = all.flatMap(({plan = [], digest}, index) => {
    if (plan.length === 0) return []
    const marks = plan.slice(0, MAX_MARKS).map(({offset, end, atMs}) => {
      const width = (100 * (end - offset)) / total
      const place = Math.min(Number(left(atMs)), 100 - Math.min(width, 100))
      return `<i style="left:${place.toFixed(2)}%;width:${width.toFixed(2)}%" title="${atMs} ms: ${formatBytes(end - offset)} at byte ${offset}"></i>`
    })
    const name = `${index + 1}. ${digest.slice(7, 19)}`
    return [`<div class="soft">${escapeHtml(name)}</div><div class="lane">${marks.join('')}</div>`]
  })
  let read = 0
  const steps = ranges.map(({offset, end, atMs}) => {
    const before = `H${(10 * Number(left(atMs))).toFixed(1)}`
    read += end - offset
    return `${before}V${(100 - (100 * read) / total).toFixed(2)}`
  })
  // Bytes that the link has brought by then, if nothing was fetched before.
  const linkMs = (total * 8) / (link.mbit * 1000)
  const brought =
    linkMs <= lastMs
      ? `L${((1000 * linkMs) / lastMs).toFixed(1)} 0H1000`
      : `L1000 ${(100 - (100 * lastMs) / linkMs).toFixed(2)}`
  return `<h2>Timeline</h2>
<p class="soft">When a start reads what, as it was profiled: each mark is a range of a layer, as wide as its part of all that is read.</p>
${lanes.join('\n')}
<div class="axis"><span>0 ms</span><span>${lastMs} ms</span></div>
<ul class="key"><li><i class="prefetch"></i>read so far, of ${formatBytes(total)}</li><li><i class="whole"></i>what the link brings in that time</li></ul>
<svg class="curve" viewBox="0 0 1000 100" preserveAspectRatio="none" role="img" aria-label="${formatBytes(total)} are read in ${lastMs} ms; the link takes ${Math.round(linkMs)} ms for them">
<path d="M0 100${brought}" style="stroke:var(--whole)"/><path d="M0 100${steps.join('')}H1000" style="stroke:var(--prefetch)"/></svg>
<div class="axis"><span>0 ms</span><span>${lastMs} ms</span></div>
<p class="soft">The link takes ${Math.round(linkMs)} ms for all of it. Where the first line is above the second, a program waits, unless that was fetched while the container was being made.</p>`
}

function files({layers: all, compared}: ExplainReport): string {
  const listed = all
    .flatMap(({files: own}, index) => own.map(file => ({file, layer: index + 1})))
    .sort((a, b) => weightOf(b.file) - weightOf(a.file))
  if (listed.length === 0) return ''
  const rows = listed.slice(0, MAX_FILES).map(({file, layer}) => {
    const {path, size, storedBytes, prefetchBytes, missedBytes, firstMs} = file
    const parts: readonly Part[] = [
      {name: 'prefetched', kind: 'prefetch', bytes: prefetchBytes},
      {name: 'missed', kind: 'missed', bytes: missedBytes},
    ]
    return `<tr><td class="path">${escapeHtml(path)}</td><td class="number spare">${layer}</td><td class="number spare">${firstMs === undefined ? '' : `${firstMs} ms`}</td><td class="number">${formatBytes(prefetchBytes)}<div class="bar" style="margin-left:auto">${barParts(parts, storedBytes)}</div></td>${compared ? `<td class="number">${missedBytes > 0 ? formatBytes(missedBytes) : ''}</td>` : ''}<td class="number spare">${formatBytes(storedBytes)}</td><td class="number spare">${formatBytes(size)}</td></tr>`
  })
  const rest = listed.slice(MAX_FILES)
  const restBytes = rest.reduce((bytes, {file}) => bytes + file.prefetchBytes, 0)
  return `<h2>Files</h2>
<p class="soft">What is prefetched of which file, most first; the bars show how much of the file that is.</p>
<div class="wide"><table><tr><th>file</th><th class="number spare">layer</th><th class="number spare">first read</th><th class="number">prefetched</th>${compared ? '<th class="number">missed</th>' : ''}<th class="number spare">stored</th><th class="number spare">size</th></tr>
${rows.join('\n')}</table></div>${rest.length > 0 ? `\n<p class="soft">And ${rest.length} more files: ${formatBytes(restBytes)}.</p>` : ''}`
}

function weightOf({prefetchBytes, missedBytes}: ExplainedFile): number {
  return prefetchBytes + missedBytes
}

/** Names in images are anybody's. */
function escapeHtml(text: string): string {
  return (
    text
      .toWellFormed()
      .replace(/[&<>"']/g, character => `&#${character.charCodeAt(0)};`)
      // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not stand in a page
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, '\ufffd')
  )
}
