// Opens layers: from the cache where they are, else from the registry, and then keeps what opening them again needs.

import type {Decompressor} from '../compression/layer-format.ts'
import {hasCode} from '../errors/coded-error.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {LayerObserver} from '../snapshot/layer-observer.ts'
import type {DirectoryNode} from '../vfs/file-tree.ts'
import type {LayerRequest} from './labels.ts'
import {type LayerParser, type ParsedLayer, type ParseTask, parseTree} from './parse-layer.ts'
import type {LayerCache, LayerOrigin, LayerRecord} from './ports.ts'
import type {ResolvedLayer, Resolver} from './resolver.ts'

/** What is to be opened. */
export interface LayerIdentity {
  /** In the cache. */
  readonly key: string
  readonly request: LayerRequest
  /** Whether the TOC must have the digest that the request gives. */
  readonly verify: boolean
}

/** A layer whose record is in the cache. */
export interface OpenedLayer extends Omit<ParsedLayer, 'image'> {
  readonly blob: BlobSource
  /** The path of its EROFS image. */
  image(options?: CallOptions): Promise<string>
  tree(options?: CallOptions): Promise<DirectoryNode>
}

export interface LayerOpenerOptions {
  readonly cache: LayerCache
  readonly origin: LayerOrigin
  readonly resolver: Resolver
  readonly parse: LayerParser
  readonly decompressors: readonly Decompressor[]
  /** Whether layers are mounted by EROFS images; then these are made with the rest. */
  readonly wantsImages: boolean
  readonly observer: LayerObserver
}

export interface LayerOpener {
  /** Throws `unsupported` for a layer that cannot be read lazily, `corrupt` for one that is not what was promised. */
  open(layer: LayerIdentity, options: CallOptions): Promise<OpenedLayer>
}

/** The image beside a layer's data. A change of what it holds needs another name. */
const IMAGE_NAME = 'tree.erofs'

export function createLayerOpener(options: LayerOpenerOptions): LayerOpener {
  const {cache, origin, observer, wantsImages} = options

  /** Undefined when the cache does not have the layer, or not soundly. */
  async function openCached(layer: LayerIdentity, call: CallOptions): Promise<OpenedLayer | undefined> {
    const record = await cache.find(layer.key)
    if (!record) return undefined
    const wantsImage = wantsImages && !(await cache.hasFile(layer.key, IMAGE_NAME))
    try {
      const parsed = await options.parse(taskOf(layer, record, wantsImage), call)
      return await keepImage(layer, parsed, origin.blob(layer.request, record.blobSize))
    } catch (error) {
      if (!hasCode(error, 'corrupt', 'unsupported')) throw error
      await cache.remove(layer.key)
      return undefined
    }
  }

  async function openRemote(layer: LayerIdentity, call: CallOptions): Promise<OpenedLayer> {
    const {key, request} = layer
    const {blob, externalToc} = await resolve(request, call)
    const resolved = performance.now()
    const record = {blobDigest: request.digest, blobSize: blob.size, tail: blob.tail(), externalToc}
    const parsed = await options.parse(taskOf(layer, record, wantsImages), call)
    observer.event('tocParsed', {layer: request.digest, durationMs: performance.now() - resolved})
    await cache.add(key, record)
    return keepImage(layer, parsed, blob.whole)
  }

  async function resolve(request: LayerRequest, call: CallOptions): Promise<ResolvedLayer> {
    const started = performance.now()
    let bytes = 0
    try {
      const resolved = await options.resolver.resolve(request, call)
      bytes = resolved.blob.tail().length
      return resolved
    } finally {
      const durationMs = performance.now() - started
      const {digest: layer} = request
      observer.event('requested', {layer, cause: 'metadata', durationMs, bytes, failed: bytes === 0})
      observer.event('metadataFetched', {layer, part: 'toc', durationMs})
    }
  }

  async function keepImage(
    layer: LayerIdentity,
    parsed: ParsedLayer,
    blob: BlobSource,
  ): Promise<OpenedLayer> {
    const {image: made, ...rest} = parsed
    if (made) await cache.file(layer.key, IMAGE_NAME, async () => made)
    return {
      ...rest,
      blob,
      image: (call = {}) =>
        cache.file(layer.key, IMAGE_NAME, async () => (await parseAgain(layer, call)).image!),
      tree: (call = {}) => treeOf(layer, call),
    }
  }

  async function parseAgain(layer: LayerIdentity, call: CallOptions): Promise<ParsedLayer> {
    return options.parse(taskOf(layer, await recordOf(layer, call), true), call)
  }

  async function treeOf(layer: LayerIdentity, call: CallOptions): Promise<DirectoryNode> {
    return parseTree(taskOf(layer, await recordOf(layer, call), false), options.decompressors, call)
  }

  /** The record of a layer that is open, so that it should be in the cache. */
  async function recordOf({key, request}: LayerIdentity, call: CallOptions): Promise<LayerRecord> {
    const record = await cache.find(key)
    if (record) return record
    const {blob, externalToc} = await options.resolver.resolve(request, call)
    return {blobDigest: request.digest, blobSize: blob.size, tail: blob.tail(), externalToc}
  }

  return {open: async (layer, call) => (await openCached(layer, call)) ?? (await openRemote(layer, call))}
}

function taskOf({request, verify}: LayerIdentity, record: LayerRecord, wantsImage: boolean): ParseTask {
  const {blobSize, tail, externalToc} = record
  const tocDigest = verify ? request.tocDigest : undefined
  return {where: `layer ${request.digest}`, blobSize, tail, externalToc, tocDigest, wantsImage}
}
