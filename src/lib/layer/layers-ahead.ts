// Layers that will be asked for soon, because the layer below them was: opened before that, and kept for a while.

import {type LayerRequest, requestForNeighbour} from './layer-request.ts'
import type {LayerCache} from './ports.ts'
import type {Resolver} from './resolver.ts'
import type {LayerUse, SharedLayers} from './shared-layers.ts'

export interface LayersAheadOptions {
  readonly cache: Pick<LayerCache, 'hasBlob'>
  readonly resolver: Resolver
  readonly layers: SharedLayers
  /** Never fails. */
  readonly release: (use: LayerUse) => Promise<void>
  /** How long a layer is kept for whoever asks, milliseconds. */
  readonly keepMs: number
  readonly signal: AbortSignal
}

export class LayersAhead {
  readonly #options: LayersAheadOptions
  /** By blob; each says when it is not needed ahead any more. */
  readonly #ahead = new Map<string, {readonly over: AbortController; readonly ended: Promise<void>}>()

  constructor(options: LayersAheadOptions) {
    this.#options = options
  }

  /**
   * Starts on the other layers of the image. Those whose TOC's digest is known are opened, so that their prefetch starts
   * and the mount finds all ready; of the others, what opening them needs is fetched.
   */
  anticipate(request: LayerRequest): void {
    for (const neighbour of request.neighbours) {
      if (neighbour.digest !== request.digest) this.open(requestForNeighbour(request, neighbour))
    }
  }

  /** Starts on one layer, likewise. */
  open(request: LayerRequest): void {
    const {cache, resolver} = this.#options
    if (this.#ahead.has(request.digest)) return
    const alone = {...request, neighbours: []}
    if (request.tocDigest) {
      const over = new AbortController()
      this.#ahead.set(request.digest, {over, ended: this.#open(alone, over)})
    } else if (!cache.hasBlob(request.digest)) resolver.anticipate(alone)
  }

  /** Says that a layer has been asked for: who did keeps it open from now on, or does not want it. */
  taken({digest}: LayerRequest): void {
    this.#ahead.get(digest)?.over.abort()
  }

  /** Lets go of all that nobody has asked for. */
  async end(): Promise<void> {
    const all = [...this.#ahead.values()]
    for (const {over} of all) over.abort()
    await Promise.all(all.map(({ended}) => ended))
  }

  async #open(request: LayerRequest, over: AbortController): Promise<void> {
    const {layers, keepMs, signal: ending} = this.#options
    const {digest} = request
    const timer = setTimeout(() => over.abort(), keepMs).unref()
    try {
      const use = await layers.acquire(request, {signal: ending})
      if (!over.signal.aborted) await aborted(AbortSignal.any([over.signal, ending]))
      await this.#options.release(use)
    } catch {
      // Whoever asks for the layer hears of it. Until then it is not tried again with each of the image's other layers.
      if (!over.signal.aborted) await aborted(AbortSignal.any([over.signal, ending]))
    } finally {
      clearTimeout(timer)
      this.#ahead.delete(digest)
    }
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), {once: true})
  })
}
