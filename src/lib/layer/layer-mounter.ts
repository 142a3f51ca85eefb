// Mounts layers by their snapshots' labels, and opens ahead what will be asked for next.

import pLimit from 'p-limit'
import type {Decompressor} from '../compression/layer-format.ts'
import {CodedError, describeError} from '../errors/coded-error.ts'
import {ImageShares} from './image-shares.ts'
import {LayerOpener} from './layer-opener.ts'
import {type Labels, type LayerRequest, parseLabels} from './layer-request.ts'
import {LayersAhead} from './layers-ahead.ts'
import type {LazyLayerMounter, LazyLayerStatus} from './lazy-layer-status.ts'
import {type Mounted, Refusals, statusOf} from './mount-status.ts'
import type {LayerParser} from './parse-layer.ts'
import type {LayerOrigin, MountBackend, MountKind} from './ports.ts'
import {Resolver} from './resolver.ts'
import type {SharedLayer} from './shared-layer.ts'
import {type LayerUse, SharedLayers, type SharedLayersOptions} from './shared-layers.ts'
import {StartsAhead} from './starts-ahead.ts'

export interface LayerMounterOptions extends Omit<SharedLayersOptions, 'opener' | 'onComplete' | 'origin'> {
  readonly origin: LayerOrigin
  readonly backend: MountBackend
  readonly decompressors: readonly Decompressor[]
  readonly parse: LayerParser
  /** Throws why nobody could use what is mounted, where that is so. */
  readonly requireUse?: (() => void) | undefined
  /** Runs when nothing that the mounter was given is used any more. */
  readonly onClosed: () => Promise<void>
}

/** How long a layer's metadata may take, and how long what is opened ahead is kept for whoever asks. */
const RESOLVE_TIMEOUT_MS = 30_000
const AHEAD_MS = 120_000

export class LayerMounter implements LazyLayerMounter {
  readonly #options: LayerMounterOptions
  readonly #closing = new AbortController()
  readonly #layers: SharedLayers
  readonly #ahead: LayersAhead
  readonly #starts: StartsAhead
  readonly #mounts = new Map<string, Mounted>()
  readonly #shares = new ImageShares(mountpoint => this.#mounts.get(mountpoint)?.use)
  readonly #refusals = new Refusals()
  /** What changes a mount that is there. */
  readonly #oneAtATime = pLimit(1)

  constructor(options: LayerMounterOptions) {
    const {backend} = options
    const {signal} = this.#closing
    const resolver = new Resolver({...options, keepMs: AHEAD_MS, timeoutMs: RESOLVE_TIMEOUT_MS, signal})
    this.#options = options
    this.#layers = new SharedLayers({
      ...options,
      opener: new LayerOpener({...options, resolver, wantsImages: backend.wantsImages}),
      onComplete: layer => void this.#settle(layer),
    })
    this.#ahead = new LayersAhead({
      ...options,
      resolver,
      layers: this.#layers,
      release: use => this.#release(use),
      keepMs: AHEAD_MS,
      signal,
    })
    this.#starts = new StartsAhead({
      ...options,
      layers: this.#layers,
      release: use => this.#release(use),
      isWanted: backend.wantsImages && options.prefetchSize !== undefined,
    })
    backend.onLost(reason => void this.#mountAllAgain(reason))
  }

  announce(labels: Labels): void {
    const request = parseLabels(labels)
    const layers = [request.digest, ...above(request)].reverse()
    this.#options.observer.event('announced', {reference: request.reference, layers})
    this.#ahead.open(request)
    this.#ahead.anticipate(request)
  }

  async mount(mountpoint: string, labels: Labels, signal: AbortSignal): Promise<void> {
    const {observer} = this.#options
    const started = performance.now()
    const request = parseLabels(labels)
    observer.event('asked', {layer: request.digest, reference: request.reference, above: above(request)})
    try {
      this.#options.requireUse?.()
      this.#options.queue.pace.mounted()
      this.#ahead.anticipate(request)
      await this.#mount(mountpoint, request, signal)
    } catch (error) {
      this.#refusals.add(mountpoint, request, error)
      throw error
    } finally {
      this.#ahead.taken(request)
      this.#options.queue.pace.mounted()
    }
    this.#refusals.delete(request)
    observer.event('mounted', {layer: request.digest, durationMs: performance.now() - started})
  }

  async check(mountpoint: string): Promise<void> {
    this.#options.requireUse?.()
    if (this.#mounts.has(mountpoint)) return await this.#options.backend.check(mountpoint)
    const what = `Cannot use the layer at ${JSON.stringify(mountpoint)}`
    throw new CodedError('unavailable', `${what}: it is not mounted`)
  }

  share(mountpoint: string, labels: Labels, below: readonly string[]): void {
    this.#shares.add(mountpoint, labels, below)
  }

  expectStart(below: readonly string[], labels: Labels): void {
    const mounted = below.flatMap(mountpoint => this.#mounts.get(mountpoint)?.use.layer ?? [])
    this.#starts.expect(labels, mounted)
  }

  expectReads(mountpoints: readonly string[]): void {
    const [topmost, ...rest] = mountpoints.flatMap(
      mountpoint => this.#mounts.get(mountpoint)?.use.request ?? [],
    )
    if (!topmost) return
    const layers = [topmost, ...rest].map(({digest}) => digest)
    this.#options.observer.event('used', {reference: topmost.reference, layers})
  }

  /** The images whose layers are mounted, as their users named them. */
  references(): ReadonlySet<string> {
    const mounted = [...this.#mounts.values()].map(({use}) => use.request.reference)
    return new Set([...mounted, ...this.#shares.references()])
  }

  async unmount(mountpoint: string): Promise<void> {
    this.#shares.remove(mountpoint)
    const mounted = await this.#oneAtATime(async () => {
      await this.#options.backend.unmount(mountpoint)
      const there = this.#mounts.get(mountpoint)
      this.#mounts.delete(mountpoint)
      return there
    })
    if (mounted) await this.#release(mounted.use)
  }

  status(): readonly LazyLayerStatus[] {
    const mounted = [...this.#mounts].map(([mountpoint, there]) => statusOf(mountpoint, there))
    return [...mounted, ...this.#refusals.list()]
  }

  /** After a restart, once every layer is mounted again: goes on with what was asked meanwhile. */
  /** Lets go of the layers that were opened ahead, and that nobody has asked for. */
  endAhead(): Promise<void> {
    return this.#ahead.end()
  }

  resume(): void {
    this.#options.backend.resume()
  }

  async close(how: 'leave' | 'unmount'): Promise<void> {
    const ending = new CodedError('cancelled', 'The daemon is ending')
    this.#closing.abort(ending)
    try {
      await this.#starts.close(ending)
      await this.#layers.close(() => this.#options.backend.close(how))
    } finally {
      await this.#options.onClosed()
    }
  }

  async #mount(mountpoint: string, request: LayerRequest, signal: AbortSignal): Promise<void> {
    const use = await this.#layers.acquire(request, {signal})
    const before = this.#mounts.get(mountpoint)
    try {
      // A mount that is there has been lost; else nobody else is at this mountpoint.
      const kind = before
        ? await this.#oneAtATime(() => this.#mountAgain(mountpoint, {...before, use}, signal))
        : await this.#attach(use.layer, mountpoint, signal)
      this.#mounts.set(mountpoint, {...before, use, kind})
      this.#shares.mounted(mountpoint)
    } catch (error) {
      await this.#release(use)
      throw error
    }
    if (before) await this.#release(before.use)
    if (use.layer.isComplete()) void this.#settle(use.layer)
  }

  async #attach(layer: SharedLayer, mountpoint: string, signal: AbortSignal): Promise<MountKind> {
    const {backend, observer} = this.#options
    const started = performance.now()
    const kind = await backend.mount(layer, mountpoint, {signal})
    observer.event('attached', {layer: layer.request.digest, durationMs: performance.now() - started})
    return kind
  }

  /** What is mounted has died under the containers that use it; the next ones get it anew. */
  async #mountAllAgain(reason: string): Promise<void> {
    const {signal} = this.#closing
    for (const [mountpoint, mounted] of [...this.#mounts]) {
      if (mounted.kind === 'plain') continue
      mounted.problem = `${reason}: containers that were running then get I/O errors, and must be started again`
      try {
        await this.#oneAtATime(async () => {
          if (this.#mounts.get(mountpoint) !== mounted || signal.aborted) return
          mounted.kind = await this.#mountAgain(mountpoint, mounted, signal)
        })
      } catch (error) {
        this.#options.log.warn({mountpoint, error: describeError(error)}, 'cannot mount a layer again')
      }
    }
  }

  /** Whoever was faster may have given the mount to a container: one that is sound must stay. */
  async #mountAgain(mountpoint: string, {use, kind}: Mounted, signal: AbortSignal): Promise<MountKind> {
    try {
      await this.#options.backend.check(mountpoint)
      return kind
    } catch {
      return await this.#attach(use.layer, mountpoint, signal)
    }
  }

  /** From now on a complete layer needs no process: not after a crash of the machine, and not for new containers. */
  async #settle(layer: SharedLayer): Promise<void> {
    const {backend, log} = this.#options
    try {
      await layer.sync()
      for (const [mountpoint, mounted] of [...this.#mounts]) {
        if (mounted.use.layer !== layer) continue
        await this.#oneAtATime(async () => {
          const isCurrent = this.#mounts.get(mountpoint) === mounted && !this.#closing.signal.aborted
          if (isCurrent && mounted.kind !== 'plain') mounted.kind = await backend.settle(layer, mountpoint)
        })
      }
    } catch (error) {
      const {reference, digest} = layer.request
      log.warn({reference, digest, error: describeError(error)}, 'cannot settle a complete layer')
    }
  }

  /** Never fails: what goes wrong with it is in the log. */
  #release(use: LayerUse): Promise<void> {
    return this.#layers.release(use, name => this.#options.backend.release(name))
  }
}

/** The layers that will be asked for after this one, bottom first. */
function above({digest, neighbours}: LayerRequest): readonly string[] {
  const digests = neighbours.map(neighbour => neighbour.digest)
  return digests.slice(digests.indexOf(digest) + 1)
}
