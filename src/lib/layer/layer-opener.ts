// Opens layers: from the cache where they are, else from the registry, and then keeps what opening them again needs.

import type {Decompressor} from '../compression/layer-format.ts'
import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {DirectoryNode} from '../vfs/file-tree.ts'
import type {LayerObserver} from './layer-observer.ts'
import type {LayerRequest} from './layer-request.ts'
import {type LayerParser, type ParsedLayer, type ParseTask, parseTree} from './parse-layer.ts'
import type {LayerCache, LayerRecord} from './ports.ts'
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
  /** The blob that its map was made from. */
  readonly blobDigest: Digest
  readonly blobSize: number
  /** The path of its EROFS image. */
  image(options?: CallOptions): Promise<string>
  tree(options?: CallOptions): Promise<DirectoryNode>
}

export interface LayerOpenerOptions {
  readonly cache: LayerCache
  readonly resolver: Resolver
  readonly parse: LayerParser
  readonly decompressors: readonly Decompressor[]
  /** Whether layers are mounted by EROFS images; then these are made with the rest. */
  readonly wantsImages: boolean
  readonly observer: LayerObserver
}

/** The image beside a layer's data. A change of what it holds needs another name. */
const IMAGE_NAME = 'tree.erofs'

export class LayerOpener {
  readonly #options: LayerOpenerOptions

  constructor(options: LayerOpenerOptions) {
    this.#options = options
  }

  /** Throws `unsupported` for a layer that cannot be read lazily, `corrupt` for one that is not what was promised. */
  async open(layer: LayerIdentity, call: CallOptions): Promise<OpenedLayer> {
    return (await this.#openCached(layer, call)) ?? (await this.#openRemote(layer, call))
  }

  /**
   * Looks once whether a blob is the layer of this key: a manifest may give it the TOC's digest of another, which is here.
   * Resolves to the blob's size; throws as `open`.
   */
  async vouch(layer: LayerIdentity, call: CallOptions): Promise<number> {
    const {cache} = this.#options
    const name = `blob-${layer.request.digest.slice(layer.request.digest.indexOf(':') + 1)}`
    const known = await cache.fileContents(layer.key, name)
    if (known) return Number(Buffer.from(known).toString())
    const {blob, externalToc} = await this.#resolve(layer.request, call)
    const record = {blobDigest: layer.request.digest, blobSize: blob.size, tail: blob.tail(), externalToc}
    await this.#options.parse(taskOf(layer, record, false), call)
    await cache.file(layer.key, name, async () => Buffer.from(String(blob.size)))
    return blob.size
  }

  /** Undefined when the cache does not have the layer, or not soundly. */
  async #openCached(layer: LayerIdentity, call: CallOptions): Promise<OpenedLayer | undefined> {
    const {cache, wantsImages} = this.#options
    const record = await cache.find(layer.key)
    if (!record) return undefined
    const wantsImage = wantsImages && !(await cache.hasFile(layer.key, IMAGE_NAME))
    try {
      const parsed = await this.#options.parse(taskOf(layer, record, wantsImage), call)
      return await this.#keepImage(layer, parsed, record)
    } catch (error) {
      if (!hasCode(error, 'corrupt', 'unsupported')) throw error
      await cache.remove(layer.key)
      return undefined
    }
  }

  async #openRemote(layer: LayerIdentity, call: CallOptions): Promise<OpenedLayer> {
    const {cache, observer, wantsImages} = this.#options
    const {key, request} = layer
    const {blob, externalToc} = await this.#resolve(request, call)
    const resolved = performance.now()
    const record = {blobDigest: request.digest, blobSize: blob.size, tail: blob.tail(), externalToc}
    const parsed = await this.#options.parse(taskOf(layer, record, wantsImages), call)
    observer.event('tocParsed', {layer: request.digest, durationMs: performance.now() - resolved})
    const {image} = parsed
    await cache.add(key, record, new Map(image ? [[IMAGE_NAME, image]] : []))
    return this.#keepImage(layer, {...parsed, image: undefined}, record)
  }

  async #resolve(request: LayerRequest, call: CallOptions): Promise<ResolvedLayer> {
    const {observer, resolver} = this.#options
    const started = performance.now()
    let bytes = 0
    try {
      const resolved = await resolver.resolve(request, call)
      bytes = resolved.blob.tail().length
      return resolved
    } finally {
      const durationMs = performance.now() - started
      const {digest: layer} = request
      observer.event('requested', {layer, cause: 'metadata', durationMs, bytes, failed: bytes === 0})
      observer.event('metadataFetched', {layer, part: 'toc', durationMs})
    }
  }

  async #keepImage(
    layer: LayerIdentity,
    parsed: ParsedLayer,
    {blobDigest, blobSize}: LayerRecord,
  ): Promise<OpenedLayer> {
    const {cache} = this.#options
    const {image: made, ...rest} = parsed
    if (made) await cache.file(layer.key, IMAGE_NAME, async () => made)
    return {
      ...rest,
      blobDigest,
      blobSize,
      image: (call = {}) =>
        cache.file(layer.key, IMAGE_NAME, async () => (await this.#parseAgain(layer, call)).image!),
      tree: (call = {}) => this.#treeOf(layer, call),
    }
  }

  async #parseAgain(layer: LayerIdentity, call: CallOptions): Promise<ParsedLayer> {
    return this.#options.parse(taskOf(layer, await this.#recordOf(layer, call), true), call)
  }

  async #treeOf(layer: LayerIdentity, call: CallOptions): Promise<DirectoryNode> {
    const task = taskOf(layer, await this.#recordOf(layer, call), false)
    return parseTree(task, this.#options.decompressors, call)
  }

  /** The record of a layer that is open, so that it should be in the cache. */
  async #recordOf({key, request}: LayerIdentity, call: CallOptions): Promise<LayerRecord> {
    const record = await this.#options.cache.find(key)
    if (record) return record
    const {blob, externalToc} = await this.#options.resolver.resolve(request, call)
    return {blobDigest: request.digest, blobSize: blob.size, tail: blob.tail(), externalToc}
  }
}

function taskOf({request, verify}: LayerIdentity, record: LayerRecord, wantsImage: boolean): ParseTask {
  const {blobSize, tail, externalToc} = record
  const tocDigest = verify ? request.tocDigest : undefined
  return {where: `layer ${request.digest}`, blobSize, tail, externalToc, tocDigest, wantsImage}
}
