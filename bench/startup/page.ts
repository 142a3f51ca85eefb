// The figures as one HTML file that needs nothing else: bars of the phases, and the tables' numbers as titles.

import type {Figures} from './report.ts'

const PHASES = [
  {key: 'pullS', name: 'pull', colour: '#4c78a8'},
  {key: 'createS', name: 'create', colour: '#f2b447'},
  {key: 'runS', name: 'run until the line', colour: '#54a24b'},
] as const
const FILES = [
  {key: 'coldWalkS', name: 'cold walk'},
  {key: 'warmWalkS', name: 'warm walk'},
  {key: 'coldReadS', name: 'cold read'},
  {key: 'warmReadS', name: 'warm read'},
] as const

const LABEL_WIDTH = 150
const PLOT_WIDTH = 620
const ROW = 24

/** One bar: its label, and its parts from left to right. */
interface Bar {
  readonly label: string
  readonly note: string
  readonly parts: readonly {readonly value: number; readonly colour: string; readonly title: string}[]
}

/** A whole page. `machine` is one line about where the figures come from. */
export function renderPage(figures: readonly Figures[], machine: string): string {
  const images = [...new Set(figures.map(({image}) => image))]
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>Start-up</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
  svg text { font: 13px system-ui, sans-serif; fill: #222 }
  .key span { display: inline-block; width: .8rem; height: .8rem; margin: 0 .3rem 0 1rem }
  @media (prefers-color-scheme: dark) { body { background: #181818; color: #ddd } svg text { fill: #ddd } }
</style>
<h1>Start-up</h1>
<p>Seconds from the pull's start to the container's first line, on a machine that has never seen the image; medians. ${escapeHtml(machine)}</p>
<p class="key">${PHASES.map(({name, colour}) => `<span style="background:${colour}"></span>${name}`).join('')}</p>
${images
  .map(image =>
    renderImage(
      image,
      figures.filter(row => row.image === image),
    ),
  )
  .join('\n')}
</html>
`
}

function renderImage(image: string, figures: readonly Figures[]): string {
  const places = Map.groupBy(figures, ({link, workload}) => `${link}, ${workload}`)
  const starts = [...places].map(
    ([place, rows]) => `<h3>${escapeHtml(place)}</h3>\n${renderBars(rows.map(startBar))}`,
  )
  const withFiles = figures.filter(({files}) => files)
  const files = FILES.map(({key, name}) => {
    const bars = withFiles.map(({contender, files}): Bar => {
      const value = files![key]
      return {
        label: contender,
        note: `${value.toFixed(2)} s`,
        parts: [{value, colour: '#72b7b2', title: name}],
      }
    })
    return `<h4>${name}</h4>\n${renderBars(bars)}`
  })
  const title = '<h3>File system, once everything is here</h3>'
  return `<h2>${escapeHtml(image)}</h2>\n${starts.join('\n')}${withFiles.length > 0 ? `\n${title}\n${files.join('\n')}` : ''}`
}

function startBar(row: Figures): Bar {
  const note = `${row.totalS.toFixed(2)} s, ${(row.bytes / 1e6).toFixed(1)} MB, ${row.requests} requests`
  const parts = PHASES.map(({key, name, colour}) => ({
    value: row[key],
    colour,
    title: `${name}: ${row[key].toFixed(2)} s`,
  }))
  return {label: row.contender, note, parts}
}

function renderBars(bars: readonly Bar[]): string {
  const total = ({parts}: Bar) => parts.reduce((sum, {value}) => sum + value, 0)
  // Room for the note behind the longest bar.
  const scale = (PLOT_WIDTH * 0.7) / Math.max(...bars.map(total), Number.EPSILON)
  const rows = bars.map((bar, index) => {
    const y = index * ROW
    let x = LABEL_WIDTH
    const rectangles = bar.parts.map(({value, colour, title}) => {
      const width = value * scale
      const rectangle = `<rect x="${x.toFixed(1)}" y="${y + 3}" width="${width.toFixed(1)}" height="${ROW - 6}" fill="${colour}"><title>${escapeHtml(title)}</title></rect>`
      x += width
      return rectangle
    })
    const label = `<text x="${LABEL_WIDTH - 8}" y="${y + 17}" text-anchor="end">${escapeHtml(bar.label)}</text>`
    return `${label}${rectangles.join('')}<text x="${(x + 6).toFixed(1)}" y="${y + 17}">${escapeHtml(bar.note)}</text>`
  })
  return `<svg width="${LABEL_WIDTH + PLOT_WIDTH}" height="${bars.length * ROW}" role="img">${rows.join('')}</svg>`
}

function escapeHtml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}
