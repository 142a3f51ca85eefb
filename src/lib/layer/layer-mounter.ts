// Mounts layers by their snapshots' labels: opens each once, however many mounts it has, and keeps fetching for it.

import {setTimeout as sleep} from 'node:timers/promises'
import pLimit from 'p-limit'
import type {BulkCodec} from '../compression/codec.ts'
import type {Decompressor} from '../compression/layer-format.ts'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {type OpenLayer, openLayer} from '../estargz/open-layer.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {LayerObserver} from '../snapshot/layer-observer.ts'
import type {LazyLayerMounter, LazyLayerStatus} from '../snapshot/lazy-layer-status.ts'
import type {SnapshotLog} from '../snapshot/ports.ts'
import {mapChunks} from './chunk-map.ts'
import type {FetchQueue} from './fetch-queue.ts'
import {type Labels, type LayerRequest, parseLabels} from './labels.ts'
import {createLazyLayer, type LazyLayer} from './lazy-layer.ts'
import type {LayerCache, LayerData, LayerOrigin, MountableLayer, MountBackend, MountKind} from './ports.ts'
import {createResolver} from './resolver.ts'
import {type TailBlob, withTail} from './tail-blob.ts'
import {type DeviceLayout, layOutDevice, treeOfToc} from './toc-tree.ts'

export interface LayerMounterOptions {
  readonly cache: LayerCache
  readonly origin: LayerOrigin
  readonly backend: MountBackend
  readonly decompressors: readonly Decompressor[]
  readonly codec: BulkCodec
  readonly queue: FetchQueue
  readonly log: SnapshotLog
  readonly observer: LayerObserver
  /** `required`: a layer without digests is refused unless its label asks for it and this is `on-request`. */
  readonly verification: 'required' | 'on-request' | 'off'
  /** Bytes to prefetch of a layer that has no landmark and no label; undefined: nothing of any layer. */
  readonly prefetchSize: number | undefined
  /** Whether to fetch the rest when nothing else is to do. */
  readonly fill: boolean
}

/** How long a layer's metadata may take, and are kept for a request that is expected. */
const RESOLVE_TIMEOUT_MS = 30_000
const RESOLVE_KEEP_MS = 120_000
/** After a fill that failed, milliseconds; doubled each time. */
const MIN_FILL_DELAY = 10_000
const MAX_FILL_DELAY = 600_000
/** Layers that could not be mounted lazily, remembered for `status`. */
const MAX_REFUSALS = 1000

/** A layer that is open, for all its mounts. */
interface SharedLayer {
  readonly key: string
  readonly request: LayerRequest
  readonly format: string
  readonly lazy: LazyLayer
  readonly data: LayerData
  readonly prefetchSize: number
  /** Ends its prefetch and its fill. */
  readonly fetching: AbortController
  readonly mountpoints: Map<string, MountKind>
  fetched: Promise<void>
  /** Mounts, and those on their way to one. */
  users: number
  /** What the first mount needs; dropped then, because it can be many times as large as all the rest. */
  contents: LayerContents | undefined
}

/** A layer's TOC, and where its files' data lie. */
interface LayerContents {
  readonly open: OpenLayer
  readonly blob: TailBlob
  readonly layout: DeviceLayout
}

export interface RestorableMounter extends LazyLayerMounter {
  /** After a restart, once every layer is mounted again: goes on with what was asked meanwhile. */
  resume(): void
}

export function createLayerMounter(options: LayerMounterOptions): RestorableMounter {
  const {cache, backend, log, observer} = options
  const closing = new AbortController()
  const resolver = createResolver({
    origin: options.origin,
    decompressors: options.decompressors,
    keepMs: RESOLVE_KEEP_MS,
    timeoutMs: RESOLVE_TIMEOUT_MS,
    signal: closing.signal,
  })
  const layers = new Map<string, Promise<SharedLayer>>()
  const byMountpoint = new Map<string, SharedLayer>()
  const refusals = new Map<string, LazyLayerStatus>()
  /** What changes a mount that is there. */
  const oneAtATime = pLimit(1)

  async function mount(mountpoint: string, labels: Labels, signal: AbortSignal): Promise<void> {
    const started = performance.now()
    const request = parseLabels(labels)
    try {
      anticipateNeighbours(request)
      const shared = await options.queue.demand(() => acquire(request, {signal}))
      try {
        const kind = await backend.mount(mountable(shared), mountpoint, {signal})
        shared.mountpoints.set(mountpoint, kind)
        byMountpoint.set(mountpoint, shared)
        shared.contents = undefined
        if (shared.lazy.isComplete()) void settle(shared)
      } catch (error) {
        await release(shared)
        throw error
      }
    } catch (error) {
      refuse(mountpoint, request, error)
      throw error
    }
    refusals.delete(request.digest)
    observer.event('mounted', {layer: request.digest, durationMs: performance.now() - started})
  }

  function anticipateNeighbours(request: LayerRequest): void {
    const others = request.neighbours.filter(digest => digest !== request.digest && !cache.hasBlob(digest))
    resolver.anticipate(others.map(digest => ({...request, digest, tocDigest: undefined})))
  }

  function refuse(mountpoint: string, {reference, digest}: LayerRequest, error: unknown): void {
    refusals.delete(digest)
    refusals.set(digest, {
      ...NOTHING,
      mountpoint,
      reference,
      digest,
      lazy: false,
      reason: describeError(error),
    })
    const [oldest] = refusals.keys()
    if (refusals.size > MAX_REFUSALS && oldest !== undefined) refusals.delete(oldest)
  }

  /** The layer, opened by whoever asks first. */
  async function acquire(request: LayerRequest, call: CallOptions): Promise<SharedLayer> {
    const key = keyOf(request, options.verification)
    for (;;) {
      const known = layers.get(key)
      if (known) {
        const shared = await known.catch(() => undefined)
        // Not the other's failure: it may have been aborted.
        if (shared && layers.get(key) === known) {
          shared.users++
          return shared
        }
        continue
      }
      const opening = openShared(key, request, call)
      layers.set(key, opening)
      try {
        return await opening
      } catch (error) {
        layers.delete(key)
        throw error
      }
    }
  }

  async function openShared(key: string, request: LayerRequest, call: CallOptions): Promise<SharedLayer> {
    const contents = (await openCached(key, request, call)) ?? (await openRemote(key, request, call))
    const {open, blob, layout} = contents
    const where = `layer ${request.digest}`
    const map = mapChunks(layout, where, isVerified(key))
    const data = await cache.open(key, {deviceSize: map.deviceSize, chunkCount: map.count})
    const landmarkSize = open.landmark ? open.prefetchSize : undefined
    const prefetchSize =
      options.prefetchSize === undefined ? 0 : (landmarkSize ?? request.prefetchSize ?? options.prefetchSize)
    const shared: SharedLayer = {
      key,
      request,
      format: open.decompressor.name,
      data,
      prefetchSize,
      fetching: new AbortController(),
      mountpoints: new Map(),
      fetched: Promise.resolve(),
      users: 1,
      contents,
      lazy: createLazyLayer({
        name: key,
        where,
        layer: request.digest,
        blob: blob.whole,
        memberKind: open.decompressor.memberKind,
        map,
        data,
        codec: options.codec,
        queue: options.queue,
        observer,
        onComplete: () => void settle(shared),
        onUncached: error => warnOf(request, error, 'cannot write to the cache: reading without it'),
      }),
    }
    const signal = AbortSignal.any([closing.signal, shared.fetching.signal])
    shared.fetched = fetchAhead(shared, signal)
    return shared
  }

  /** From now on a complete layer needs no process: not after a crash of the machine, and not for new containers. */
  async function settle(shared: SharedLayer): Promise<void> {
    try {
      await shared.data.sync()
      for (const mountpoint of [...shared.mountpoints.keys()]) {
        await oneAtATime(async () => {
          const kind = shared.mountpoints.get(mountpoint)
          if (kind === undefined || kind === 'plain' || closing.signal.aborted) return
          shared.mountpoints.set(mountpoint, await backend.settle(mountable(shared), mountpoint))
        })
      }
    } catch (error) {
      warnOf(shared.request, error, 'cannot settle a complete layer')
    }
  }

  function warnOf({reference, digest}: LayerRequest, error: unknown, message: string): void {
    log.warn({reference, digest, error: describeError(error)}, message)
  }

  /** The layer as the cache knows it; undefined when it does not, or not soundly. */
  async function openCached(
    key: string,
    request: LayerRequest,
    call: CallOptions,
  ): Promise<LayerContents | undefined> {
    const record = await cache.find(key)
    if (!record) return undefined
    const blob = withTail(options.origin.blob(request, record.blobSize), record.tail)
    try {
      const {externalToc} = record
      const open = await openLayer(blob, {...openOptions(key, request), externalToc, ...call})
      return contentsOf(open, blob)
    } catch (error) {
      if (!hasCode(error, 'corrupt', 'unsupported')) throw error
      await cache.remove(key)
      return undefined
    }
  }

  async function openRemote(key: string, request: LayerRequest, call: CallOptions): Promise<LayerContents> {
    const started = performance.now()
    const {blob, externalToc} = await resolver.resolve(request, call)
    observer.event('metadataFetched', {
      layer: request.digest,
      part: 'toc',
      durationMs: performance.now() - started,
    })
    const parsing = performance.now()
    const open = await openLayer(blob, {...openOptions(key, request), externalToc, ...call})
    observer.event('tocParsed', {layer: request.digest, durationMs: performance.now() - parsing})
    await cache.add(key, {blobDigest: request.digest, blobSize: blob.size, tail: blob.tail(), externalToc})
    return contentsOf(open, blob)
  }

  function openOptions(key: string, request: LayerRequest) {
    return {
      where: `layer ${request.digest}`,
      tocDigest: isVerified(key) ? request.tocDigest : undefined,
      decompressors: options.decompressors,
    }
  }

  /** Fetches what will be needed: first what the layer says, then, in quiet times, the rest. */
  async function fetchAhead(
    {lazy, request, prefetchSize, data}: SharedLayer,
    signal: AbortSignal,
  ): Promise<void> {
    if (prefetchSize > 0 && !lazy.isComplete()) {
      const started = performance.now()
      try {
        await lazy.prefetch(prefetchSize, {signal})
        await data.sync()
      } catch (error) {
        if (signal.aborted) return
        warnOf(request, error, 'failed to prefetch')
      }
      observer.event('prefetched', {
        layer: request.digest,
        durationMs: performance.now() - started,
        bytes: prefetchSize,
      })
    }
    if (!options.fill) return
    for (let delay = MIN_FILL_DELAY; !lazy.isComplete(); delay = Math.min(delay * 2, MAX_FILL_DELAY)) {
      const started = performance.now()
      try {
        await lazy.fill({signal})
        observer.event('filled', {layer: request.digest, durationMs: performance.now() - started})
        return
      } catch (error) {
        if (signal.aborted) return
        warnOf(request, error, 'failed to fetch in the background')
      }
      await sleep(delay, undefined, {signal, ref: false}).catch(() => {})
      if (signal.aborted) return
    }
  }

  function mountable(shared: SharedLayer): MountableLayer {
    const {key, request, lazy} = shared
    return {
      device: lazy,
      isComplete: lazy.isComplete,
      tree: async () => {
        const contents =
          shared.contents ?? (await openCached(key, request, {})) ?? (await openRemote(key, request, {}))
        return treeOfToc(contents.open.files.values(), contents.layout)
      },
      state: () => {
        const {totalBytes, keptBytes, lastError} = lazy.counters()
        return {digest: request.digest, size: totalBytes, fetchedSize: keptBytes, error: lastError}
      },
      file: (name, make) => cache.file(key, name, make),
    }
  }

  /** Closes a layer with its last user. */
  async function release(shared: SharedLayer): Promise<void> {
    shared.users--
    if (shared.users > 0) return
    layers.delete(shared.key)
    shared.fetching.abort()
    await shared.fetched
    await backend.release(shared.key)
    await shared.data[Symbol.asyncDispose]()
  }

  async function unmount(mountpoint: string): Promise<void> {
    const shared = await oneAtATime(async () => {
      await backend.unmount(mountpoint)
      const mounted = byMountpoint.get(mountpoint)
      byMountpoint.delete(mountpoint)
      mounted?.mountpoints.delete(mountpoint)
      return mounted
    })
    if (shared) await release(shared)
  }

  async function check(mountpoint: string): Promise<void> {
    if (byMountpoint.has(mountpoint)) return
    throw new CodedError(
      'unavailable',
      `Cannot use the layer at ${JSON.stringify(mountpoint)}: it is not mounted`,
    )
  }

  function status(): LazyLayerStatus[] {
    const mounted = [...byMountpoint].map(([mountpoint, shared]) => statusOf(mountpoint, shared))
    return [...mounted, ...refusals.values()]
  }

  return {
    mount,
    check,
    unmount,
    status,
    resume: () => backend.resume(),
    close: async how => {
      closing.abort()
      const open = await Promise.allSettled(layers.values())
      for (const result of open) if (result.status === 'fulfilled') await result.value.fetched
      await backend.close(how)
      for (const result of open) {
        if (result.status !== 'fulfilled') continue
        await result.value.data.sync()
        await result.value.data[Symbol.asyncDispose]()
      }
    },
  }
}

const NOTHING = {size: 0, fetched: 0, deviceSize: 0, present: 0, prefetchSize: 0, requests: 0, errors: 0}

function contentsOf(open: OpenLayer, blob: TailBlob): LayerContents {
  return {open, blob, layout: layOutDevice(open.files.values())}
}

function statusOf(
  mountpoint: string,
  {request, format, lazy, prefetchSize, mountpoints}: SharedLayer,
): LazyLayerStatus {
  const counters = lazy.counters()
  const backend = mountpoints.get(mountpoint)
  return {
    mountpoint,
    reference: request.reference,
    digest: request.digest,
    ...(request.tocDigest ? {tocDigest: request.tocDigest} : {}),
    lazy: true,
    format,
    ...(backend ? {backend} : {}),
    size: counters.totalBytes,
    fetched: counters.keptBytes,
    deviceSize: lazy.size,
    present: counters.presentBytes,
    prefetchSize,
    requests: counters.requests,
    errors: counters.errors,
    ...(counters.lastError === undefined ? {} : {lastError: counters.lastError}),
  }
}

/** Layers that nobody verifies are kept apart from those that are: `0-` and the blob's digest, or the TOC's digest. */
function keyOf(
  {tocDigest, digest, skipVerify}: LayerRequest,
  verification: LayerMounterOptions['verification'],
): string {
  if (verification === 'off') return UNVERIFIED + hexOf(digest)
  if (tocDigest) return hexOf(tocDigest)
  if (skipVerify && verification === 'on-request') return UNVERIFIED + hexOf(digest)
  throw new CodedError(
    'unsupported',
    `Cannot mount layer ${digest} lazily: the digest of its TOC was not given, so nothing of it could be verified`,
  )
}

const UNVERIFIED = '0-'
const isVerified = (key: string) => !key.startsWith(UNVERIFIED)
const hexOf = (digest: string) => digest.slice(digest.indexOf(':') + 1)
