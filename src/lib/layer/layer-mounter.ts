// Mounts layers by their snapshots' labels, and opens ahead what will be asked for next.

import pLimit from 'p-limit'
import type {Decompressor} from '../compression/layer-format.ts'
import {CodedError, describeError} from '../errors/coded-error.ts'
import type {LazyLayerMounter, LazyLayerStatus} from '../snapshot/lazy-layer-status.ts'
import {type Labels, type LayerRequest, parseLabels} from './labels.ts'
import {createLayerOpener} from './layer-opener.ts'
import type {LayerParser} from './parse-layer.ts'
import type {LayerOrigin, MountBackend, MountKind} from './ports.ts'
import {createResolver} from './resolver.ts'
import {createSharedLayers, type SharedLayer, type SharedLayersOptions} from './shared-layers.ts'

export interface LayerMounterOptions extends Omit<SharedLayersOptions, 'opener' | 'onComplete'> {
  readonly origin: LayerOrigin
  readonly backend: MountBackend
  readonly decompressors: readonly Decompressor[]
  readonly parse: LayerParser
}

export interface RestorableMounter extends LazyLayerMounter {
  /** After a restart, once every layer is mounted again: goes on with what was asked meanwhile. */
  resume(): void
}

/** How long a layer's metadata may take, and how long what is opened ahead is kept for whoever asks. */
const RESOLVE_TIMEOUT_MS = 30_000
const AHEAD_MS = 120_000
/** Layers that could not be mounted lazily, remembered for `status`. */
const MAX_REFUSALS = 1000

/** A layer at its mountpoint. */
interface Mounted {
  readonly layer: SharedLayer
  kind: MountKind
}

export function createLayerMounter(options: LayerMounterOptions): RestorableMounter {
  const {cache, origin, backend, decompressors, log, observer} = options
  const closing = new AbortController()
  const resolver = createResolver({
    origin,
    decompressors,
    keepMs: AHEAD_MS,
    timeoutMs: RESOLVE_TIMEOUT_MS,
    signal: closing.signal,
  })
  const layers = createSharedLayers({
    ...options,
    opener: createLayerOpener({...options, resolver, wantsImages: backend.wantsImages}),
    onComplete: layer => void settle(layer),
  })
  const mounts = new Map<string, Mounted>()
  const refusals = new Map<string, LazyLayerStatus>()
  /** Blobs that are open ahead. */
  const ahead = new Set<string>()
  /** What changes a mount that is there. */
  const oneAtATime = pLimit(1)

  async function mount(mountpoint: string, labels: Labels, signal: AbortSignal): Promise<void> {
    const started = performance.now()
    const request = parseLabels(labels)
    try {
      anticipate(request)
      await options.queue.demand(() => mountLayer(mountpoint, request, signal))
    } catch (error) {
      refuse(mountpoint, request, error)
      throw error
    }
    refusals.delete(request.digest)
    observer.event('mounted', {layer: request.digest, durationMs: performance.now() - started})
  }

  async function mountLayer(mountpoint: string, request: LayerRequest, signal: AbortSignal): Promise<void> {
    const layer = await layers.acquire(request, {signal})
    try {
      mounts.set(mountpoint, {layer, kind: await backend.mount(layer, mountpoint, {signal})})
    } catch (error) {
      await release(layer)
      throw error
    }
    if (layer.isComplete()) void settle(layer)
  }

  /**
   * Starts on the other layers of the image. Those whose TOC's digest is known are opened, so that their prefetch starts
   * and the mount finds all ready; of the others, what opening them needs is fetched.
   */
  function anticipate(request: LayerRequest): void {
    for (const {digest, tocDigest, size} of request.neighbours) {
      if (digest === request.digest || ahead.has(digest)) continue
      const neighbour = {...request, digest, tocDigest, size, neighbours: []}
      if (tocDigest) void openAhead(neighbour)
      else if (!cache.hasBlob(digest)) resolver.anticipate(neighbour)
    }
  }

  async function openAhead(request: LayerRequest): Promise<void> {
    ahead.add(request.digest)
    try {
      const signal = AbortSignal.any([closing.signal, AbortSignal.timeout(RESOLVE_TIMEOUT_MS)])
      const layer = await layers.acquire(request, {signal})
      const isOver = setTimeout(() => void release(layer), AHEAD_MS)
      isOver.unref()
    } catch {
      // Whoever asks for the layer hears of it.
    } finally {
      setTimeout(() => ahead.delete(request.digest), AHEAD_MS).unref()
    }
  }

  function refuse(mountpoint: string, {reference, digest}: LayerRequest, error: unknown): void {
    const reason = describeError(error)
    refusals.delete(digest)
    refusals.set(digest, {...NOTHING, mountpoint, reference, digest, lazy: false, reason})
    const [oldest] = refusals.keys()
    if (refusals.size > MAX_REFUSALS && oldest !== undefined) refusals.delete(oldest)
  }

  /** From now on a complete layer needs no process: not after a crash of the machine, and not for new containers. */
  async function settle(layer: SharedLayer): Promise<void> {
    try {
      await layer.sync()
      for (const [mountpoint, mounted] of [...mounts]) {
        if (mounted.layer !== layer) continue
        await oneAtATime(async () => {
          const isCurrent = mounts.get(mountpoint) === mounted && !closing.signal.aborted
          if (isCurrent && mounted.kind !== 'plain') mounted.kind = await backend.settle(layer, mountpoint)
        })
      }
    } catch (error) {
      const {reference, digest} = layer.request
      log.warn({reference, digest, error: describeError(error)}, 'cannot settle a complete layer')
    }
  }

  /** Never fails: what goes wrong with it is in the log. */
  function release(layer: SharedLayer): Promise<void> {
    return layers.release(layer, name => backend.release(name))
  }

  async function unmount(mountpoint: string): Promise<void> {
    const mounted = await oneAtATime(async () => {
      await backend.unmount(mountpoint)
      const there = mounts.get(mountpoint)
      mounts.delete(mountpoint)
      return there
    })
    if (mounted) await release(mounted.layer)
  }

  return {
    mount,
    unmount,
    check: async mountpoint => {
      if (mounts.has(mountpoint)) return
      throw new CodedError(
        'unavailable',
        `Cannot use the layer at ${JSON.stringify(mountpoint)}: it is not mounted`,
      )
    },
    status: () => [
      ...[...mounts].map(([mountpoint, mounted]) => statusOf(mountpoint, mounted)),
      ...refusals.values(),
    ],
    resume: () => backend.resume(),
    close: async how => {
      closing.abort()
      await layers.close(() => backend.close(how))
    },
  }
}

const NOTHING = {size: 0, fetched: 0, deviceSize: 0, present: 0, prefetchSize: 0, requests: 0, errors: 0}

function statusOf(mountpoint: string, {layer, kind}: Mounted): LazyLayerStatus {
  const {request, format, device, prefetchSize} = layer
  const {keptBytes, totalBytes, presentBytes, requests, errors, lastError, hits} = device.counters()
  return {
    mountpoint,
    reference: request.reference,
    digest: request.digest,
    ...(request.tocDigest ? {tocDigest: request.tocDigest} : {}),
    lazy: true,
    format,
    backend: kind,
    size: totalBytes,
    fetched: keptBytes,
    deviceSize: device.size,
    present: presentBytes,
    prefetchSize,
    requests,
    errors,
    hits,
    prefetchedUnread: device.prefetchedUnread(),
    ...(lastError === undefined ? {} : {lastError}),
  }
}
