// Opens layers: from the cache where they are, else from the registry, and then keeps what opening them again needs.

import type {Decompressor} from '../compression/layer-format.ts'
import {hasCode} from '../errors/coded-error.ts'
import {type OpenLayer, openLayer} from '../estargz/open-layer.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {LayerObserver} from '../snapshot/layer-observer.ts'
import type {LayerRequest} from './labels.ts'
import type {LayerCache, LayerOrigin} from './ports.ts'
import type {Resolver} from './resolver.ts'
import {type TailBlob, withTail} from './tail-blob.ts'
import {type DeviceLayout, layOutDevice} from './toc-tree.ts'

/** A layer's TOC, and where its files' data lie. Large: a few kB for each file. */
export interface LayerContents {
  readonly open: OpenLayer
  readonly blob: TailBlob
  readonly layout: DeviceLayout
}

/** What is to be opened. */
export interface LayerIdentity {
  /** In the cache. */
  readonly key: string
  readonly request: LayerRequest
  /** Whether the TOC must have the digest that the request gives. */
  readonly verify: boolean
}

export interface LayerOpenerOptions {
  readonly cache: LayerCache
  readonly origin: LayerOrigin
  readonly resolver: Resolver
  readonly decompressors: readonly Decompressor[]
  readonly observer: LayerObserver
}

export interface LayerOpener {
  /** Throws `unsupported` for a layer that cannot be read lazily, `corrupt` for one that is not what was promised. */
  open(layer: LayerIdentity, options: CallOptions): Promise<LayerContents>
}

export function createLayerOpener(options: LayerOpenerOptions): LayerOpener {
  const {cache, observer} = options

  /** Undefined when the cache does not have the layer, or not soundly. */
  async function openCached(layer: LayerIdentity, call: CallOptions): Promise<LayerContents | undefined> {
    const record = await cache.find(layer.key)
    if (!record) return undefined
    const blob = withTail(options.origin.blob(layer.request, record.blobSize), record.tail)
    try {
      return await parse(layer, blob, record.externalToc, call)
    } catch (error) {
      if (!hasCode(error, 'corrupt', 'unsupported')) throw error
      await cache.remove(layer.key)
      return undefined
    }
  }

  async function openRemote(layer: LayerIdentity, call: CallOptions): Promise<LayerContents> {
    const {key, request} = layer
    const started = performance.now()
    const {blob, externalToc} = await options.resolver.resolve(request, call)
    const resolved = performance.now()
    observer.event('metadataFetched', {layer: request.digest, part: 'toc', durationMs: resolved - started})
    const contents = await parse(layer, blob, externalToc, call)
    observer.event('tocParsed', {layer: request.digest, durationMs: performance.now() - resolved})
    await cache.add(key, {blobDigest: request.digest, blobSize: blob.size, tail: blob.tail(), externalToc})
    return contents
  }

  async function parse(
    {request, verify}: LayerIdentity,
    blob: TailBlob,
    externalToc: Uint8Array | undefined,
    call: CallOptions,
  ): Promise<LayerContents> {
    const open = await openLayer(blob, {
      ...call,
      where: `layer ${request.digest}`,
      tocDigest: verify ? request.tocDigest : undefined,
      decompressors: options.decompressors,
      externalToc,
    })
    return {open, blob, layout: layOutDevice(open.files.values())}
  }

  return {open: async (layer, call) => (await openCached(layer, call)) ?? (await openRemote(layer, call))}
}
