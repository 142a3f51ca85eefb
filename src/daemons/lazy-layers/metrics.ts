// Prometheus metrics: the reference's names, fed by layer events and by the status of layers, and a few of ours.

import {Counter, collectDefaultMetrics, Gauge, Histogram, Registry} from 'prom-client'
import type {LayerEvents, LayerObserver} from '../../lib/layer/layer-observer.ts'
import type {LazyLayerStatus} from '../../lib/layer/lazy-layer-status.ts'

export interface Metrics {
  readonly observer: LayerObserver
  /** Tells the sizes of layers too, as they are at each scrape. */
  follow(status: () => readonly LazyLayerStatus[]): void
  /** The text that Prometheus scrapes, and its media type. */
  read(): Promise<{readonly text: string; readonly contentType: string}>
}

/** Doubling, as the reference has them: 1 ms to 16 s, and 1 µs to 1 s. */
const MILLISECONDS = Array.from({length: 15}, (_, exponent) => 2 ** exponent)
const MICROSECONDS = Array.from({length: 21}, (_, exponent) => 2 ** exponent)
const OPERATION = ['operation_type', 'layer']

export function createMetrics(): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({register: registry})

  let updateHits = (): void => {}
  const milliseconds = new Histogram({
    name: 'stargz_fs_operation_duration_milliseconds',
    help: 'Latency in milliseconds of operations on layers',
    labelNames: OPERATION,
    buckets: MILLISECONDS,
    registers,
  })
  const microseconds = new Histogram({
    name: 'stargz_fs_operation_duration_microseconds',
    help: 'Latency in microseconds of operations on layers',
    labelNames: OPERATION,
    buckets: MICROSECONDS,
    registers,
  })
  const operations = new Counter({
    name: 'stargz_fs_operation_count',
    help: 'Operations on layers',
    labelNames: OPERATION,
    registers,
  })
  const bytesServed = new Counter({
    name: 'stargz_fs_bytes_served',
    help: 'Bytes served or fetched for layers',
    labelNames: OPERATION,
    registers,
  })
  const requests = new Counter({
    name: 'stargz_fs_registry_requests_total',
    help: 'Requests to registries',
    labelNames: ['cause', 'result'],
    registers,
  })
  const received = new Counter({
    name: 'stargz_fs_registry_bytes_total',
    help: 'Bytes received from registries',
    labelNames: ['cause'],
    registers,
  })
  const reads = new Counter({
    name: 'stargz_fs_reads_total',
    help: 'Reads that reached the daemon, by whether the cache had everything',
    labelNames: ['result'],
    registers,
    collect: () => updateHits(),
  })
  const onDemand = new Histogram({
    name: 'stargz_fs_on_demand_read_seconds',
    help: 'Time that readers waited for data that had to be fetched',
    registers,
  })

  const handlers: {readonly [N in keyof LayerEvents]?: (fields: LayerEvents[N]) => void} = {
    mounted: ({layer, durationMs}) => milliseconds.observe({operation_type: 'mount', layer}, durationMs),
    requested: ({layer, cause, durationMs, bytes, failed}) => {
      milliseconds.observe({operation_type: 'remote_registry_get', layer}, durationMs)
      requests.inc({cause, result: failed ? 'error' : 'ok'})
      received.inc({cause}, bytes)
      if (cause !== 'on-demand') return
      operations.inc({operation_type: 'on_demand_remote_registry_fetch_count', layer})
      bytesServed.inc({operation_type: 'on_demand_bytes_fetched', layer}, bytes)
    },
    metadataFetched: ({layer, part, durationMs}) =>
      milliseconds.observe({operation_type: `stargz_${part}_get`, layer}, durationMs),
    tocParsed: ({layer, durationMs}) =>
      milliseconds.observe({operation_type: 'stargz_toc_json_deserialize', layer}, durationMs),
    read: ({layer, durationMs, bytes, hit}) => {
      reads.inc({result: hit ? 'hit' : 'miss'})
      operations.inc({operation_type: 'on_demand_read_access_count', layer})
      bytesServed.inc({operation_type: 'on_demand_bytes_served', layer}, bytes)
      if (hit) return
      microseconds.observe({operation_type: 'read_on_demand', layer}, durationMs * 1000)
      onDemand.observe(durationMs / 1000)
    },
    prefetched: ({layer, durationMs}) =>
      milliseconds.observe({operation_type: 'all_prefetches_completed', layer}, durationMs),
    filled: ({layer, durationMs}) =>
      milliseconds.observe({operation_type: 'background_fetch_download', layer}, durationMs),
  }
  return {
    observer: {event: (name, fields) => handlers[name]?.(fields)},
    follow: status => {
      registerLayerGauges(registry, status)
      updateHits = countHits(reads, status)
    },
    read: async () => ({text: await registry.metrics(), contentType: registry.contentType}),
  }
}

/**
 * Reads that were answered without us hearing of each: threads count them by layer. What has come in since the last
 * scrape is added, so that the sum does not shrink when a layer is released.
 */
function countHits(reads: Counter<'result'>, status: () => readonly LazyLayerStatus[]): () => void {
  let last = new Map<string, number>()
  return () => {
    const layers = status().filter(({lazy}) => lazy)
    // A layer that is mounted in several places is counted once.
    const now = new Map(layers.map(({digest, tocDigest, hits = 0}) => [`${digest} ${tocDigest}`, hits]))
    // One that was released and opened again counts from the start.
    for (const [layer, hits] of now) {
      const before = last.get(layer) ?? 0
      reads.inc({result: 'hit'}, hits >= before ? hits - before : hits)
    }
    last = now
  }
}

/** Sizes of layers, as they are when somebody asks. */
function registerLayerGauges(registry: Registry, status: () => readonly LazyLayerStatus[]): void {
  const gauge = (name: string, help: string, value: (layer: LazyLayerStatus) => number) =>
    new Gauge({
      name,
      help,
      labelNames: ['digest', 'mountpoint'],
      registers: [registry],
      collect() {
        this.reset()
        for (const layer of status()) {
          if (layer.lazy) this.set({digest: layer.digest, mountpoint: layer.mountpoint}, value(layer))
        }
      },
    })
  gauge('stargz_fs_layer_fetched_size_bytes', 'Bytes of a layer fetched so far', layer => layer.fetched)
  gauge('stargz_fs_layer_prefetch_size_bytes', 'Bytes of a layer to prefetch', layer => layer.prefetchSize)
  gauge(
    'stargz_fs_layer_prefetched_unread_bytes',
    'Prefetched bytes of a layer that nobody has read',
    layer => layer.prefetchedUnread ?? 0,
  )
  gauge('stargz_fs_layer_size_bytes', 'Size of a layer', layer => layer.size)
}
