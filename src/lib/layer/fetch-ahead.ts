// What is fetched of a layer before anybody asks: first what the layer says will be read, then the rest.

import {setTimeout as sleep} from 'node:timers/promises'
import {describeError} from '../errors/coded-error.ts'
import type {PrefetchPlan} from '../prefetch/prefetch-plan.ts'
import type {SnapshotLog} from '../snapshot/ports.ts'
import type {LayerObserver} from './layer-observer.ts'
import type {LayerRequest} from './layer-request.ts'
import type {LazyLayer} from './lazy-layer.ts'

/** After a fill that failed, milliseconds; doubled each time. */
const MIN_FILL_DELAY = 10_000
const MAX_FILL_DELAY = 600_000

export interface FetchAheadOptions {
  readonly request: LayerRequest
  readonly prefetchSize: number
  /** What to prefetch instead, where that is known. */
  readonly plan: PrefetchPlan | undefined
  /** Whether to fetch the rest. */
  readonly fill: boolean
  /** Makes what has been fetched survive a crash of the machine. */
  readonly sync: () => Promise<void>
  readonly log: SnapshotLog
  readonly observer: LayerObserver
  readonly signal: AbortSignal
}

/** Fetches until all is here or `signal` aborts. Never fails: what goes wrong is in the log. */
export async function fetchAhead(device: LazyLayer, options: FetchAheadOptions): Promise<void> {
  const {prefetchSize, plan, fill, signal} = options
  const isWanted = plan ? plan.length > 0 : prefetchSize > 0
  if (isWanted && !device.isComplete()) await prefetch(device, options)
  if (!fill) return
  for (let delay = MIN_FILL_DELAY; !signal.aborted; delay = Math.min(delay * 2, MAX_FILL_DELAY)) {
    if (device.isComplete() || (await fillOnce(device, options))) return
    await sleep(delay, undefined, {signal, ref: false}).catch(() => {})
  }
}

async function prefetch(device: LazyLayer, options: FetchAheadOptions): Promise<void> {
  const {request, prefetchSize, plan, sync, observer, signal} = options
  const started = performance.now()
  try {
    await (plan ? device.prefetchPlanned(plan, {signal}) : device.prefetch(prefetchSize, {signal}))
    await sync()
  } catch (error) {
    if (signal.aborted) return
    warn(options, error, 'failed to prefetch')
  }
  const durationMs = performance.now() - started
  const bytes = plan?.reduce((sum, {offset, end}) => sum + end - offset, 0) ?? prefetchSize
  observer.event('prefetched', {layer: request.digest, durationMs, bytes})
}

/** Resolves to whether all is here; what another reader was fetching may have failed. */
async function fillOnce(device: LazyLayer, options: FetchAheadOptions): Promise<boolean> {
  const {request, observer, signal} = options
  const started = performance.now()
  try {
    await device.fill({signal})
    if (!device.isComplete()) return false
    observer.event('filled', {layer: request.digest, durationMs: performance.now() - started})
    return true
  } catch (error) {
    if (!signal.aborted) warn(options, error, 'failed to fetch in the background')
    return false
  }
}

function warn({log, request: {reference, digest}}: FetchAheadOptions, error: unknown, message: string): void {
  log.warn({reference, digest, error: describeError(error)}, message)
}
