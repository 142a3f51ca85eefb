// What a converting registry tells Prometheus: how much is pulled and in which form, what is converted, what is kept.

import {Counter, collectDefaultMetrics, Gauge, Histogram, Registry} from 'prom-client'
import type {ConversionEvent} from '../lib/pull-through/conversions.ts'
import type {CopyEvent} from '../lib/pull-through/copies.ts'
import type {PullThroughStatus} from '../lib/pull-through/serve-pull-through.ts'
import type {RequestLogEntry} from '../lib/registry-server/answer-request.ts'
import {startServer} from '../lib/registry-server/http-server.ts'
import {splitAddress} from './serving.ts'

export interface PullThroughMetrics extends AsyncDisposable {
  readonly url: string
  onRequest(entry: RequestLogEntry): void
  onEvent(event: ConversionEvent | CopyEvent): void
  onPull(form: 'converted' | 'plain'): void
  /** Tells at each scrape how the registry is then. */
  follow(status: () => PullThroughStatus): void
}

/** Seconds: small images to those of gigabytes. */
const CONVERSION_BUCKETS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000]

/** Serves `/metrics` at `host:port` until disposed. Throws `invalid-argument`, `failed-precondition`. */
export async function servePullThroughMetrics(address: string): Promise<PullThroughMetrics> {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({register: registry})
  const counter = (name: string, help: string, labelNames: string[] = []) =>
    new Counter({name: `ctr_remote_registry_${name}`, help, labelNames, registers})
  const requests = counter('requests_total', 'Answered requests', ['method', 'what', 'status'])
  const sent = counter('sent_bytes_total', 'Bytes of answers', ['what'])
  const pulls = counter('pulls_total', 'Manifests that were pulled by tag, in this form', ['form'])
  const conversions = counter('conversions_total', 'Conversions that have ended', ['result'])
  const copies = counter('copies_total', 'Copies to another registry that have ended', ['result'])
  const seconds = new Histogram({
    name: 'ctr_remote_registry_conversion_seconds',
    help: 'Time from when a conversion was asked for to its end',
    buckets: CONVERSION_BUCKETS,
    registers,
  })
  let status: (() => PullThroughStatus) | undefined
  const gauge = (name: string, help: string, value: (now: PullThroughStatus) => number) =>
    new Gauge({
      name: `ctr_remote_registry_${name}`,
      help,
      registers,
      collect() {
        if (status) this.set(value(status()))
      },
    })
  gauge('pending_conversions', 'Conversions that run or wait', ({pending}) => pending)
  gauge('kept_images', 'Converted images that are kept', ({images}) => images)
  gauge('kept_bytes', 'Bytes of converted images that are kept', ({bytes}) => bytes)

  const server = await startServer(splitAddress(address), async (request, response) => {
    if (request.url !== '/metrics') return void response.writeHead(404).end('/metrics\n')
    const text = await registry.metrics()
    response.setHeader('content-type', registry.contentType).end(text)
  })
  return {
    url: `${server.url}/metrics`,
    onRequest({method, path, status: code, sentBytes}) {
      const what = whatOf(path)
      requests.inc({method: methodOf(method), what, status: code})
      sent.inc({what}, sentBytes)
    },
    onEvent(event) {
      if (event.kind === 'copied') copies.inc({result: 'copied'})
      else if (event.kind === 'copy-failed') copies.inc({result: 'failed'})
      else if (event.kind !== 'started') conversions.inc({result: event.kind})
      if (event.kind === 'converted') seconds.observe(event.elapsedMs / 1000)
    },
    onPull: form => pulls.inc({form}),
    follow(now) {
      status = now
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  }
}

/** Few, whatever clients send: each value of a label is kept for good. */
function whatOf(path: string): string {
  return (
    /\/(manifests|blobs|tags|referrers)\//.exec(path)?.[1] ??
    /^\/(token|webhook)\b/.exec(path)?.[1] ??
    'other'
  )
}

function methodOf(method: string): string {
  return ['GET', 'HEAD', 'POST'].includes(method) ? method : 'other'
}
