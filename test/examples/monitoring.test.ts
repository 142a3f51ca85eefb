// The dashboard and the alerts ask for metrics that there are.

import {readFileSync} from 'node:fs'
import {beforeAll, expect, it} from 'vitest'
import {parse} from 'yaml'
import {createMetrics} from '../../src/daemons/lazy-layers/metrics.ts'

interface Panel {
  readonly id: number
  readonly title: string
  readonly gridPos: {readonly x: number; readonly y: number; readonly w: number; readonly h: number}
  readonly targets: readonly {readonly expr: string}[]
}

interface Rule {
  readonly alert: string
  readonly expr: string
  readonly annotations: {readonly summary: string; readonly description: string}
}

const read = (name: string) =>
  readFileSync(new URL(`../../examples/monitoring/${name}`, import.meta.url), 'utf8')
const dashboard = JSON.parse(read('dashboard.json'))
const panels: readonly Panel[] = dashboard.panels
const rules: readonly Rule[] = parse(read('alerts.yml')).groups[0].rules
const jobs: readonly string[] = parse(read('scrape.yml')).scrape_configs.map(
  ({job_name: name}: {job_name: string}) => name,
)

/** What the daemons serve, with its labels. */
const served = new Map<string, ReadonlySet<string>>()

beforeAll(async () => {
  const metrics = createMetrics()
  const layer = 'sha256:1'
  metrics.observer.event('mounted', {layer, durationMs: 1})
  metrics.observer.event('read', {layer, durationMs: 1, bytes: 1, hit: false})
  const cause = 'on-demand'
  metrics.observer.event('requested', {layer, cause, durationMs: 1, bytes: 1, failed: false})
  const sizes = {size: 1, fetched: 1, deviceSize: 1, present: 1, prefetchSize: 1, requests: 1, errors: 0}
  metrics.follow(() => [{mountpoint: '/m', reference: 'r', digest: layer, lazy: true, ...sizes}])
  for (const line of (await metrics.read()).text.split('\n')) {
    const [, name = '', labels = ''] = /^([a-z_0-9]+)(?:\{(.*)\})? /.exec(line) ?? []
    served.set(name, new Set([...labels.matchAll(/([a-z_]+)="/g)].map(([, label]) => label!)))
  }
})

/** The metrics of an expression, each with the labels that it is chosen by. */
function metricsOf(expr: string): {name: string; labels: string[]}[] {
  const found = expr.matchAll(/\b((?:stargz|process|nodejs)_[a-z_0-9]+)(?:\{([^}]*)\})?/g)
  return Array.from(found, ([, name = '', labels = '']) => ({
    name,
    labels: [...labels.matchAll(/([a-z_]+)=/g)].map(([, label]) => label!),
  }))
}

/** Those that Prometheus adds. */
const TARGET_LABELS = ['job', 'instance']

it.each([
  ...panels.flatMap(({title, targets}) => targets.map(({expr}) => [title, expr])),
  ...rules.filter(({expr}) => !expr.startsWith('up')).map(({alert, expr}) => [alert, expr]),
] as [string, string][])('%s', (_, expr) => {
  const asked = metricsOf(expr)
  expect(asked.length).toBeGreaterThan(0)
  for (const {name, labels} of asked) {
    expect(served.has(name), name).toBe(true)
    for (const label of labels) expect([...served.get(name)!, ...TARGET_LABELS]).toContain(label)
  }
})

it('has panels that do not lie on each other', () => {
  const cells = panels.flatMap(({gridPos: {x, y, w, h}}) =>
    Array.from({length: w * h}, (_, cell) => `${x + (cell % w)} ${y + Math.floor(cell / w)}`),
  )
  expect(new Set(cells).size).toBe(cells.length)
  expect(new Set(panels.map(({id}) => id)).size).toBe(panels.length)
  expect(Math.max(...panels.map(({gridPos: {x, w}}) => x + w))).toBeLessThanOrEqual(24)
})

it('has alerts for the jobs that are scraped, which say what to do', () => {
  for (const {alert, expr, annotations} of rules) {
    expect(annotations.summary, alert).toContain('$labels.instance')
    expect(annotations.description.length, alert).toBeGreaterThan(40)
    const [, named] = /job=~"([^"]+)"/.exec(expr) ?? []
    if (named) expect(named.split('|')).toEqual(jobs)
  }
})
