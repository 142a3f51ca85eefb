// Fetches what opening a layer needs, for all layers of an image at once: containerd asks for one after the other, and
// each would cost round trips of its own.

import type {Decompressor} from '../compression/layer-format.ts'
import {CodedError} from '../errors/coded-error.ts'
import {readFooter} from '../estargz/layer-reader.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {LayerRequest} from './labels.ts'
import type {LayerOrigin} from './ports.ts'
import {type TailBlob, withTail} from './tail-blob.ts'

/** A blob with its footer and TOC at hand; nothing of them has been believed yet. */
export interface ResolvedLayer {
  readonly blob: TailBlob
  readonly externalToc: Uint8Array | undefined
}

export interface Resolver {
  /** Fetches a layer's footer and TOC. Throws `unsupported` when the layer has none. */
  resolve(request: LayerRequest, options: CallOptions): Promise<ResolvedLayer>
  /** Starts to resolve a layer that will be asked for soon. */
  anticipate(request: LayerRequest): void
}

export interface ResolverOptions {
  readonly origin: LayerOrigin
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

export function createResolver(options: ResolverOptions): Resolver {
  const {origin, decompressors} = options
  const ahead = new Map<string, Promise<ResolvedLayer>>()

  async function fetchLayer(request: LayerRequest, call: CallOptions): Promise<ResolvedLayer> {
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

  function anticipate(request: LayerRequest): void {
    const key = keyOf(request)
    if (ahead.has(key)) return
    const signal = AbortSignal.any([options.signal, AbortSignal.timeout(options.timeoutMs)])
    const result = fetchLayer(request, {signal})
    // Whoever asks for the layer hears of it.
    result.catch(() => {})
    ahead.set(key, result)
    setTimeout(() => ahead.delete(key), options.keepMs).unref()
  }

  return {
    resolve: async (request, {signal}) => {
      const known = ahead.get(keyOf(request))
      ahead.delete(keyOf(request))
      const call = {
        signal: AbortSignal.any([
          options.signal,
          AbortSignal.timeout(options.timeoutMs),
          ...(signal ? [signal] : []),
        ]),
      }
      if (!known) return fetchLayer(request, call)
      try {
        return await known
      } catch {
        // It may have been a passing trouble.
        return fetchLayer(request, call)
      }
    },
    anticipate,
  }
}

function tailSizeOf({size}: LayerRequest): number {
  return size === undefined
    ? DEFAULT_TAIL
    : Math.round(Math.min(MAX_TAIL, Math.max(MIN_TAIL, size * TAIL_SHARE)))
}

function keyOf({reference, digest}: LayerRequest): string {
  return `${reference} ${digest}`
}
