// Layers that are open: each once, however many mounts and images use it, and while it is, more of it is fetched.

import {setTimeout as sleep} from 'node:timers/promises'
import type {BulkCodec} from '../compression/codec.ts'
import {CodedError, describeError} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {LayerObserver} from '../snapshot/layer-observer.ts'
import type {SnapshotLog} from '../snapshot/ports.ts'
import type {FetchQueue} from './fetch-queue.ts'
import type {LayerRequest} from './labels.ts'
import type {LayerIdentity, LayerOpener} from './layer-opener.ts'
import {createLazyLayer, type LazyLayer} from './lazy-layer.ts'
import type {LayerCache, LayerData, MountableLayer} from './ports.ts'

/** `required`: a layer without digests is refused unless its label asks for it and this is `on-request`. */
export type Verification = 'required' | 'on-request' | 'off'

export interface SharedLayersOptions {
  readonly cache: LayerCache
  readonly opener: LayerOpener
  readonly codec: BulkCodec
  readonly queue: FetchQueue
  readonly log: SnapshotLog
  readonly observer: LayerObserver
  readonly verification: Verification
  /** Bytes to prefetch of a layer that has no landmark and no label; undefined: nothing of any layer. */
  readonly prefetchSize: number | undefined
  /** Whether to fetch the rest when nothing else is to do. */
  readonly fill: boolean
  /** Told when all of a layer is there. */
  readonly onComplete: (layer: SharedLayer) => void
}

/** An open layer. Whoever has acquired it releases it. */
export interface SharedLayer extends MountableLayer {
  readonly request: LayerRequest
  readonly format: string
  readonly device: LazyLayer
  readonly prefetchSize: number
  /** Makes what has been fetched survive a crash of the machine. */
  sync(): Promise<void>
}

export interface SharedLayers {
  /** Opens a layer, or joins those who have it open. */
  acquire(request: LayerRequest, options: CallOptions): Promise<SharedLayer>
  /** Closes a layer with its last user; `onClose` runs when nobody will read of it any more. */
  release(layer: SharedLayer, onClose: (name: string) => Promise<void>): Promise<void>
  /** Ends all: fetching ahead, then `onServed`, which must end all reading, then what is open. */
  close(onServed: () => Promise<void>): Promise<void>
}

/** After a fill that failed, milliseconds; doubled each time. */
const MIN_FILL_DELAY = 10_000
const MAX_FILL_DELAY = 600_000

/** An open layer, and how it is closed. */
interface Holding {
  readonly layer: SharedLayer
  readonly data: LayerData
  /** Ends its prefetch and its fill, and when they have ended. */
  readonly fetching: AbortController
  readonly fetched: Promise<void>
  users: number
}

export function createSharedLayers(options: SharedLayersOptions): SharedLayers {
  const {cache, log, observer} = options
  const closing = new AbortController()
  const holdings = new Map<string, Promise<Holding>>()
  /** Layers that are being closed: who wants one of them waits, and opens it anew. */
  const endings = new Map<string, Promise<void>>()

  /** Opened by whoever asks first. */
  async function acquire(request: LayerRequest, call: CallOptions): Promise<SharedLayer> {
    const identity = identify(request, options.verification)
    for (;;) {
      closing.signal.throwIfAborted()
      const ending = endings.get(identity.key)
      if (ending) {
        await raceAbort(ending, call.signal)
        continue
      }
      const known = holdings.get(identity.key)
      if (!known) break
      const holding = await known.catch(() => undefined)
      // The other's failure is not ours: it may have been aborted.
      if (!holding || holdings.get(identity.key) !== known) continue
      holding.users++
      return holding.layer
    }
    const opening = open(identity, call)
    holdings.set(identity.key, opening)
    try {
      return (await opening).layer
    } catch (error) {
      holdings.delete(identity.key)
      throw error
    }
  }

  async function open(identity: LayerIdentity, call: CallOptions): Promise<Holding> {
    const {key, request} = identity
    const opened = await options.opener.open(identity, call)
    const {map, format, image, tree} = opened
    const data = await cache.open(key, {deviceSize: map.deviceSize, chunkCount: map.count})
    const device = createLazyLayer({
      ...opened,
      name: key,
      where: `layer ${request.digest}`,
      layer: request.digest,
      data,
      codec: options.codec,
      queue: options.queue,
      observer,
      onComplete: () => options.onComplete(layer),
      onUncached: error => warnOf(request, error, 'cannot write to the cache: reading without it'),
    })
    const layer: SharedLayer = {
      request,
      format,
      device,
      prefetchSize: prefetchSizeOf(opened.prefetchSize ?? request.prefetchSize),
      isComplete: device.isComplete,
      image,
      tree,
      state: () => {
        const {totalBytes, keptBytes, lastError} = device.counters()
        return {digest: request.digest, size: totalBytes, fetchedSize: keptBytes, error: lastError}
      },
      sync: () => data.sync(),
    }
    const fetching = new AbortController()
    const signal = AbortSignal.any([closing.signal, fetching.signal])
    return {layer, data, fetching, users: 1, fetched: fetchAhead(layer, signal)}
  }

  function prefetchSizeOf(wanted: number | undefined): number {
    return options.prefetchSize === undefined ? 0 : (wanted ?? options.prefetchSize)
  }

  /** Fetches what will be needed: first what the layer says, then, in quiet times, the rest. */
  async function fetchAhead(
    {device, request, prefetchSize, sync}: SharedLayer,
    signal: AbortSignal,
  ): Promise<void> {
    const {digest} = request
    if (prefetchSize > 0 && !device.isComplete()) {
      const started = performance.now()
      try {
        await device.prefetch(prefetchSize, {signal})
        await sync()
      } catch (error) {
        if (signal.aborted) return
        warnOf(request, error, 'failed to prefetch')
      }
      const durationMs = performance.now() - started
      observer.event('prefetched', {layer: digest, durationMs, bytes: prefetchSize})
    }
    if (!options.fill) return
    for (let delay = MIN_FILL_DELAY; !device.isComplete(); delay = Math.min(delay * 2, MAX_FILL_DELAY)) {
      const started = performance.now()
      try {
        await device.fill({signal})
        observer.event('filled', {layer: digest, durationMs: performance.now() - started})
        return
      } catch (error) {
        if (signal.aborted) return
        warnOf(request, error, 'failed to fetch in the background')
      }
      await sleep(delay, undefined, {signal, ref: false}).catch(() => {})
      if (signal.aborted) return
    }
  }

  function warnOf({reference, digest}: LayerRequest, error: unknown, message: string): void {
    log.warn({reference, digest, error: describeError(error)}, message)
  }

  /** Closes a layer that has no users. Tells of what goes wrong: nobody could do anything about it. */
  async function end(
    {layer, data, fetching, fetched}: Holding,
    onClose: (name: string) => Promise<void>,
  ): Promise<void> {
    fetching.abort()
    await layer.device.close()
    await fetched
    try {
      await onClose(layer.device.name)
    } catch (error) {
      warnOf(layer.request, error, 'cannot release a layer')
    }
    await closeData(layer, data)
  }

  async function closeData({request}: SharedLayer, data: LayerData): Promise<void> {
    try {
      await data.sync()
    } catch (error) {
      warnOf(request, error, 'cannot sync a layer')
    }
    try {
      await data[Symbol.asyncDispose]()
    } catch (error) {
      warnOf(request, error, 'cannot close a layer')
    }
  }

  return {
    acquire,
    release: async (layer, onClose) => {
      const key = layer.device.name
      const holding = await holdings.get(key)
      // When all end, each is closed there.
      if (closing.signal.aborted) return
      if (holding?.layer !== layer || --holding.users > 0) return
      holdings.delete(key)
      const ended = end(holding, onClose).finally(() => endings.delete(key))
      endings.set(key, ended)
      await ended
    },
    close: async onServed => {
      closing.abort(new CodedError('cancelled', 'The daemon is ending'))
      const open = (await Promise.allSettled(holdings.values())).flatMap(result =>
        result.status === 'fulfilled' ? [result.value] : [],
      )
      await Promise.all(endings.values())
      // First, because readers who wait are left to the next daemon, or told, not failed by the end of what they wait for.
      await onServed()
      await Promise.all(
        open.map(async ({layer, data, fetched}) => {
          await layer.device.close()
          await fetched
          await closeData(layer, data)
        }),
      )
    },
  }
}

/** What starts the keys of layers that nobody verifies: they are kept apart from those that are. */
const UNVERIFIED = '0-'
const hexOf = (digest: string) => digest.slice(digest.indexOf(':') + 1)

/** Under which key a layer is kept; its TOC's digest says all about it. Throws `unsupported` when it must not be mounted. */
function identify(request: LayerRequest, verification: Verification): LayerIdentity {
  const {tocDigest, digest, skipVerify} = request
  if (verification !== 'off' && tocDigest) return {key: hexOf(tocDigest), request, verify: true}
  if (verification === 'off' || (skipVerify && verification === 'on-request')) {
    return {key: UNVERIFIED + hexOf(digest), request, verify: false}
  }
  throw new CodedError(
    'unsupported',
    `Cannot mount layer ${digest} lazily: the digest of its TOC was not given, so nothing of it could be verified`,
  )
}
