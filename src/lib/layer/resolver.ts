// Fetches what opening a layer needs, for all layers of an image at once: containerd asks for one after the other, and
// each would cost round trips of its own.

import type {Decompressor} from '../compression/layer-format.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {readFooter} from '../estargz/layer-reader.ts'
import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {FailureMemory} from './failure-memory.ts'
import {placeOfImage} from './image-place.ts'
import type {LayerRequest} from './layer-request.ts'
import type {LayerOrigin} from './ports.ts'
import {type TailBlob, withTail} from './tail-blob.ts'

/** A blob with its footer and TOC at hand; nothing of them has been believed yet. */
export interface ResolvedLayer {
  readonly blob: TailBlob
  readonly externalToc: Uint8Array | undefined
}

export interface ResolverOptions {
  readonly origin: LayerOrigin
  readonly failures: FailureMemory
  readonly decompressors: readonly Decompressor[]
  /** How long what was resolved ahead is kept for whoever asks, milliseconds. */
  readonly keepMs: number
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

/**
 * The end of a blob to fetch at first, bytes. TOCs were found to be 0.5 to 0.9 % of their layers; a second request costs a
 * round trip, and what is fetched in vain keeps others waiting.
 */
const DEFAULT_TAIL = 256 << 10
const MIN_TAIL = 64 << 10
const MAX_TAIL = 4 << 20
const TAIL_SHARE = 0.01
/** A compressed TOC with its footer is never larger: a million files have about 40 MiB. */
const MAX_TAIL_SIZE = 96 << 20

/** A host that did not answer is not asked for this long, milliseconds, and then given less time until it does. */
const SILENCE = {minMs: 20_000, maxMs: 300_000}
const TRIAL_MS = 5_000
/** The part of its time that a host must have taken until it failed. */
const SLOW = 0.6

export class Resolver {
  readonly #options: ResolverOptions
  readonly #ahead = new Map<string, Promise<ResolvedLayer>>()

  constructor(options: ResolverOptions) {
    this.#options = options
  }

  /**
   * Fetches a layer's footer and TOC. Throws `unsupported` when the layer has none, `unavailable` for a host that does not
   * answer: at once, if it has just kept somebody else waiting.
   */
  async resolve(request: LayerRequest, {signal}: CallOptions): Promise<ResolvedLayer> {
    const key = keyOf(request)
    const known = this.#ahead.get(key)
    this.#ahead.delete(key)
    if (known) {
      try {
        return await raceAbort(known, signal)
      } catch {
        signal?.throwIfAborted()
        // It may have been a passing trouble.
      }
    }
    return this.#resolve(request, {signal})
  }

  /** Starts to resolve a layer that will be asked for soon. */
  anticipate(request: LayerRequest): void {
    const key = keyOf(request)
    if (this.#ahead.has(key)) return
    const result = this.#resolve(request, {})
    // Whoever asks for the layer hears of it.
    result.catch(() => {})
    this.#ahead.set(key, result)
    setTimeout(() => this.#ahead.delete(key), this.#options.keepMs).unref()
  }

  async #resolve(request: LayerRequest, call: CallOptions): Promise<ResolvedLayer> {
    const {failures} = this.#options
    const {host} = placeOfImage(request.reference)
    const place = `opening layers of ${host}`
    const known = failures.recall(place)
    if (known !== undefined) throw known
    const started = failures.now()
    const limitMs = failures.isFailing(place) ? TRIAL_MS : this.#options.timeoutMs
    const silence = silent(host, request, limitMs)
    const late = new AbortController()
    const timer = setTimeout(() => late.abort(silence), limitMs).unref()
    const signals = [this.#options.signal, late.signal, ...(call.signal ? [call.signal] : [])]
    try {
      const resolved = await this.#fetchLayer(request, {signal: AbortSignal.any(signals)})
      failures.succeeded(place)
      return resolved
    } catch (error) {
      this.#options.signal.throwIfAborted()
      call.signal?.throwIfAborted()
      const reason = late.signal.aborted ? silence : error
      // One that says at once that it cannot serve may be asked again at once.
      const isSlow = failures.now() - started > limitMs * SLOW
      if (isSlow && hasCode(reason, 'unavailable')) failures.failed(place, reason, {...SILENCE, started})
      throw reason
    } finally {
      clearTimeout(timer)
    }
  }

  async #fetchLayer(request: LayerRequest, call: CallOptions): Promise<ResolvedLayer> {
    const {origin, decompressors} = this.#options
    const opened = await origin.openBlob(request, tailSizeOf(request), call)
    const blob = withTail(opened.blob, opened.tail)
    const {tocOffset} = await readFooter(blob, {...call, where: `layer ${request.digest}`, decompressors})
    if (tocOffset === undefined) return {blob, externalToc: await origin.externalToc(request, call)}
    if (blob.size - tocOffset > MAX_TAIL_SIZE) {
      throw new CodedError(
        'unsupported',
        `Cannot read layer ${request.digest} lazily: its TOC has ${blob.size - tocOffset} compressed bytes`,
      )
    }
    await blob.read(tocOffset, blob.size - tocOffset, call)
    return {blob, externalToc: undefined}
  }
}

function silent(host: string, {digest}: LayerRequest, limitMs: number): CodedError {
  return new CodedError(
    'unavailable',
    `Cannot open layer ${digest}: ${host} has not answered within ${limitMs / 1000} s; see that the daemon reaches it, ` +
      'which has its own environment (proxy, firewall, DNS)',
  )
}

function tailSizeOf({size}: LayerRequest): number {
  return size === undefined
    ? DEFAULT_TAIL
    : Math.round(Math.min(MAX_TAIL, Math.max(MIN_TAIL, size * TAIL_SHARE)))
}

function keyOf({reference, digest}: LayerRequest): string {
  return `${reference} ${digest}`
}
