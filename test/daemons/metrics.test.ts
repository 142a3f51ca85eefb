// What Prometheus reads: events become the reference's metrics, and sizes are those of the moment.

import {describe, expect, it} from 'vitest'
import {createMetrics, type Metrics} from '../../src/daemons/lazy-layers/metrics.ts'
import type {LazyLayerStatus} from '../../src/lib/layer/lazy-layer-status.ts'

const LAYER = 'sha256:aa'

/** The values of a metric by its labels, as written. */
async function valuesOf(metrics: Metrics, name: string): Promise<Record<string, number>> {
  const {text} = await metrics.read()
  const lines = text.split('\n').filter(line => line.startsWith(`${name}{`) || line.startsWith(`${name} `))
  return Object.fromEntries(
    lines.map(line => {
      const end = line.lastIndexOf(' ')
      return [line.slice(name.length, end), Number(line.slice(end + 1))]
    }),
  )
}

const status = (more: Partial<LazyLayerStatus>): LazyLayerStatus => ({
  mountpoint: '/m/1',
  reference: 'a.example/app:1',
  digest: LAYER,
  lazy: true,
  size: 100,
  fetched: 40,
  deviceSize: 4096,
  present: 0,
  prefetchSize: 30,
  requests: 0,
  errors: 0,
  ...more,
})

describe('metrics', () => {
  it('time what happens to layers, under the operations of the reference', async () => {
    const metrics = createMetrics()
    const {observer} = metrics
    observer.event('mounted', {layer: LAYER, durationMs: 3})
    observer.event('metadataFetched', {layer: LAYER, part: 'footer', durationMs: 1})
    observer.event('metadataFetched', {layer: LAYER, part: 'toc', durationMs: 2})
    observer.event('tocParsed', {layer: LAYER, durationMs: 4})
    observer.event('prefetched', {layer: LAYER, durationMs: 5, bytes: 9})
    observer.event('filled', {layer: LAYER, durationMs: 6})
    const sums = await valuesOf(metrics, 'stargz_fs_operation_duration_milliseconds_sum')
    const labels = (operation: string) => `{operation_type="${operation}",layer="${LAYER}"}`
    expect(sums).toEqual({
      [labels('mount')]: 3,
      [labels('stargz_footer_get')]: 1,
      [labels('stargz_toc_get')]: 2,
      [labels('stargz_toc_json_deserialize')]: 4,
      [labels('all_prefetches_completed')]: 5,
      [labels('background_fetch_download')]: 6,
    })
  })

  it('count requests and bytes by why they were made', async () => {
    const metrics = createMetrics()
    const request = {layer: LAYER, durationMs: 1, bytes: 10, failed: false}
    metrics.observer.event('requested', {...request, cause: 'on-demand'})
    metrics.observer.event('requested', {...request, cause: 'prefetch', bytes: 500})
    metrics.observer.event('requested', {...request, cause: 'prefetch', bytes: 0, failed: true})
    expect(await valuesOf(metrics, 'stargz_fs_registry_requests_total')).toEqual({
      '{cause="on-demand",result="ok"}': 1,
      '{cause="prefetch",result="ok"}': 1,
      '{cause="prefetch",result="error"}': 1,
    })
    expect(await valuesOf(metrics, 'stargz_fs_registry_bytes_total')).toEqual({
      '{cause="on-demand"}': 10,
      '{cause="prefetch"}': 500,
    })
    expect(await valuesOf(metrics, 'stargz_fs_bytes_served')).toEqual({
      [`{operation_type="on_demand_bytes_fetched",layer="${LAYER}"}`]: 10,
    })
  })

  it('tell how long readers waited, and how many did not have to', async () => {
    const metrics = createMetrics()
    metrics.observer.event('read', {layer: LAYER, durationMs: 20, bytes: 4096, hit: false})
    metrics.observer.event('read', {layer: LAYER, durationMs: 0, bytes: 4096, hit: true})
    expect(await valuesOf(metrics, 'stargz_fs_reads_total')).toEqual({
      '{result="miss"}': 1,
      '{result="hit"}': 1,
    })
    expect((await valuesOf(metrics, 'stargz_fs_on_demand_read_seconds_sum'))['']).toBeCloseTo(0.02)
    const micro = await valuesOf(metrics, 'stargz_fs_operation_duration_microseconds_sum')
    expect(Object.values(micro)).toEqual([20_000])
  })

  it('add up reads that threads have counted, whatever becomes of their layers', async () => {
    const metrics = createMetrics()
    let layers = [status({hits: 5}), status({mountpoint: '/m/2', hits: 5})]
    metrics.follow(() => layers)
    const hits = async () => (await valuesOf(metrics, 'stargz_fs_reads_total'))['{result="hit"}']
    expect(await hits()).toBe(5)
    layers = [status({hits: 8}), status({digest: 'sha256:bb', hits: 1})]
    expect(await hits()).toBe(9)
    layers = []
    expect(await hits()).toBe(9)
    layers = [status({hits: 2})]
    expect(await hits()).toBe(11)
  })

  it('have the sizes of lazy layers that are mounted now', async () => {
    const metrics = createMetrics()
    let layers = [status({prefetchedUnread: 7}), status({mountpoint: '/m/3', lazy: false})]
    metrics.follow(() => layers)
    const at = `{digest="${LAYER}",mountpoint="/m/1"}`
    expect(await valuesOf(metrics, 'stargz_fs_layer_size_bytes')).toEqual({[at]: 100})
    expect(await valuesOf(metrics, 'stargz_fs_layer_fetched_size_bytes')).toEqual({[at]: 40})
    expect(await valuesOf(metrics, 'stargz_fs_layer_prefetch_size_bytes')).toEqual({[at]: 30})
    expect(await valuesOf(metrics, 'stargz_fs_layer_prefetched_unread_bytes')).toEqual({[at]: 7})
    layers = []
    expect(await valuesOf(metrics, 'stargz_fs_layer_size_bytes')).toEqual({})
  })
})
