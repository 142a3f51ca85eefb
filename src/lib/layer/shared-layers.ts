// Layers that are open: each once, however many mounts and images use it, and while it is, more of it is fetched.

import {CodedError} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {LayerIdentity, LayerOpener} from './layer-opener.ts'
import type {LayerRequest} from './layer-request.ts'
import type {LayerCache} from './ports.ts'
import {SharedLayer, type SharedLayerOptions} from './shared-layer.ts'

/** `required`: a layer without digests is refused unless its label asks for it and this is `on-request`. */
export type Verification = 'required' | 'on-request' | 'off'

export interface SharedLayersOptions extends SharedLayerOptions {
  readonly cache: LayerCache
  readonly opener: LayerOpener
  readonly verification: Verification
}

/** A layer in use by whoever has acquired it, who releases it. */
export interface LayerUse {
  readonly layer: SharedLayer
  readonly request: LayerRequest
}

export class SharedLayers {
  readonly #options: SharedLayersOptions
  readonly #closing = new AbortController()
  readonly #open = new Map<string, Promise<SharedLayer>>()
  /** Layers that are being closed: who wants one of them waits, and opens it anew. */
  readonly #endings = new Map<string, Promise<void>>()

  constructor(options: SharedLayersOptions) {
    this.#options = options
  }

  /** Opens a layer, or joins those who have it open. */
  async acquire(request: LayerRequest, {signal}: CallOptions): Promise<LayerUse> {
    const identity = identify(request, this.#options.verification)
    const closing = this.#closing.signal
    const call = {signal: signal ? AbortSignal.any([signal, closing]) : closing}
    const use = {layer: await this.#openOrJoin(identity, call), request}
    try {
      await this.#addSource(use, identity, call)
      return use
    } catch (error) {
      await this.release(use, async () => {})
      throw error
    }
  }

  /** Ends a use; with the last one the layer is closed. `onClose` runs when nobody will read of it any more. */
  async release(use: LayerUse, onClose: (name: string) => Promise<void>): Promise<void> {
    const {layer} = use
    layer.sources.remove(use)
    layer.users--
    // When all end, each is closed there.
    if (this.#closing.signal.aborted || layer.users > 0) return
    const {key} = layer
    this.#open.delete(key)
    const ended = layer.close(() => onClose(key)).finally(() => this.#endings.delete(key))
    this.#endings.set(key, ended)
    await ended
  }

  /** Ends all: fetching ahead, then `onServed`, which must end all reading, then what is open. */
  async close(onServed: () => Promise<void>): Promise<void> {
    this.#closing.abort(new CodedError('cancelled', 'The daemon is ending'))
    const open = (await Promise.allSettled(this.#open.values())).flatMap(result =>
      result.status === 'fulfilled' ? [result.value] : [],
    )
    await Promise.all(this.#endings.values())
    // First, because readers who wait are left to the next daemon, or told, not failed by the end of what they wait for.
    await onServed()
    await Promise.all(open.map(layer => layer.close(async () => {})))
  }

  /** Opened by whoever asks first. */
  async #openOrJoin(identity: LayerIdentity, call: {readonly signal: AbortSignal}): Promise<SharedLayer> {
    const {key} = identity
    for (;;) {
      call.signal.throwIfAborted()
      const ending = this.#endings.get(key)
      if (ending) {
        await raceAbort(ending, call.signal)
        continue
      }
      const known = this.#open.get(key)
      if (!known) break
      // The other's failure is not ours: it may have been aborted.
      const layer = await raceAbort(
        known.catch(() => undefined),
        call.signal,
      )
      if (!layer || this.#open.get(key) !== known) continue
      layer.users++
      return layer
    }
    const opening = this.#openNew(identity, call)
    this.#open.set(key, opening)
    try {
      return await opening
    } catch (error) {
      this.#open.delete(key)
      throw error
    }
  }

  async #openNew(identity: LayerIdentity, call: CallOptions): Promise<SharedLayer> {
    const {cache, opener} = this.#options
    const opened = await opener.open(identity, call)
    const {map} = opened
    const data = await cache.open(identity.key, {deviceSize: map.deviceSize, chunkCount: map.count})
    try {
      const layer = new SharedLayer(identity, opened, data, this.#options)
      layer.users = 1
      return layer
    } catch (error) {
      await data[Symbol.asyncDispose]()
      throw error
    }
  }

  /** Lets the layer be fetched from this image too, if what the image calls so is this layer. */
  async #addSource(use: LayerUse, identity: LayerIdentity, call: CallOptions): Promise<void> {
    const {layer, request} = use
    const {blobs} = layer
    const size = blobs.get(request.digest) ?? (await this.#options.opener.vouch(identity, call))
    blobs.set(request.digest, size)
    layer.sources.add(use, request, size)
    layer.fetchAhead(request, this.#closing.signal)
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
