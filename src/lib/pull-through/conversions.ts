// Conversions on behalf of clients: one for an image however many pull it, a few at a time, and none that has just failed.

import pLimit from 'p-limit'
import {convertImage, type LayerConversion} from '../convert/convert-image.ts'
import {TaskScope} from '../io/task-scope.ts'
import {FailureMemory} from '../layer/failure-memory.ts'
import {tocDigestOf} from '../oci/annotations.ts'
import type {ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageManifest} from '../oci/manifest.ts'
import {isConfigMediaType, isForeignLayer, layerCompressionOf} from '../oci/media-type.ts'
import type {ConvertedImage, ConvertedImages} from './converted-images.ts'

/** One manifest to convert, and how it can be read. */
export interface ConversionRequest {
  /** `docker.io/library/debian`. */
  readonly repository: string
  readonly descriptor: Descriptor
  readonly manifest: ImageManifest
  /** Opens the repository for whoever asked; the conversion disposes it when it ends. */
  readonly open: () => AsyncDisposable & {readonly repository: {readonly content: ContentStore}}
}

/** What became of a conversion, for logs and counters. */
export type ConversionEvent =
  | {readonly kind: 'started'; readonly image: string}
  | {readonly kind: 'converted'; readonly image: string; readonly elapsedMs: number; readonly bytes: number}
  | {readonly kind: 'failed'; readonly image: string; readonly error: unknown}

export interface ConversionsOptions {
  readonly images: ConvertedImages
  /** Into what the layers of a repository's images are converted. */
  readonly layersOf: (repository: string) => Promise<LayerConversion>
  readonly parallelLayers: number
  /** Images converted at once. */
  readonly parallelImages: number
  /** Bytes of the largest image that is converted: what the store may hold. */
  readonly maxSize: number
  readonly onEvent: (event: ConversionEvent) => void
}

/** Images that wait for their conversion; more are served as they are, and wait the next time. */
const MAX_WAITING = 1000
/** An image that cannot be converted is tried again after a minute, and less and less often. */
const HOLD_BACK = {minMs: 60_000, maxMs: 3_600_000}

export class Conversions implements AsyncDisposable {
  readonly #options: ConversionsOptions
  readonly #running = new Map<string, Promise<ConvertedImage | undefined>>()
  readonly #failures = new FailureMemory()
  readonly #scope = new TaskScope()
  readonly #limit: ReturnType<typeof pLimit>

  constructor(options: ConversionsOptions) {
    this.#options = options
    this.#limit = pLimit(options.parallelImages)
  }

  /** Conversions that run or wait. */
  get pending(): number {
    return this.#running.size
  }

  /**
   * Has an image converted, unless it is or cannot be. The result is what it became, undefined when it stays what it is;
   * never a failure, which is only reported.
   */
  start(request: ConversionRequest): Promise<ConvertedImage | undefined> {
    const {images, maxSize} = this.#options
    const {repository, descriptor, manifest} = request
    const known = images.find(repository, descriptor.digest)
    if (known) return Promise.resolve(known)
    const name = `${repository}@${descriptor.digest}`
    const running = this.#running.get(name)
    if (running) return running
    const isOfUse = isConvertible(manifest) && sizeOf(manifest) <= maxSize
    if (!isOfUse || this.#running.size >= MAX_WAITING || this.#failures.recall(name)) {
      return Promise.resolve(undefined)
    }
    const conversion = this.#run(name, request).finally(() => this.#running.delete(name))
    this.#running.set(name, conversion)
    return conversion
  }

  /** Stops what runs; nothing of it is left. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope.close(new Error('The registry ends'))
  }

  async #run(name: string, request: ConversionRequest): Promise<ConvertedImage | undefined> {
    const {onEvent} = this.#options
    const started = this.#failures.now()
    try {
      return await this.#scope.run(() =>
        this.#limit(async () => {
          this.#scope.signal.throwIfAborted()
          onEvent({kind: 'started', image: name})
          const image = await this.#convert(request)
          this.#failures.succeeded(name)
          const bytes = image?.content.reduce((sum, {size}) => sum + size, 0) ?? 0
          onEvent({kind: 'converted', image: name, elapsedMs: this.#failures.now() - started, bytes})
          return image
        }),
      )
    } catch (error) {
      if (this.#scope.signal.aborted) return undefined
      this.#failures.failed(name, error, {started, ...HOLD_BACK})
      onEvent({kind: 'failed', image: name, error})
      return undefined
    }
  }

  async #convert({
    repository: name,
    descriptor,
    manifest,
    open,
  }: ConversionRequest): Promise<ConvertedImage | undefined> {
    const {images, layersOf, parallelLayers} = this.#options
    const {signal} = this.#scope
    const layers = await layersOf(name)
    await images.makeRoom(sizeOf(manifest), {signal})
    await using opened = open()
    {
      await using target = await images.target(name, descriptor.digest, {signal})
      const tree = {
        root: descriptor,
        index: undefined,
        manifests: [{descriptor, manifest, platform: undefined}],
        nestedIndexes: [],
      }
      const source = {
        name: `docker://${name}`,
        content: opened.repository.content,
        resolve: async () => descriptor,
        [Symbol.asyncDispose]: async () => {},
      }
      await convertImage(source, target, {platforms: 'all', tree, oci: true, layers, parallelLayers, signal})
    }
    await images.makeRoom(0, {signal})
    return images.find(name, descriptor.digest)
  }
}

/** Whether a conversion would make anything of a manifest: not of artifacts, nor of what can be read lazily as it is. */
export function isConvertible({config, layers}: ImageManifest): boolean {
  if (!isConfigMediaType(config.mediaType)) return false
  const own = layers.filter(
    ({mediaType}) => !isForeignLayer(mediaType) && layerCompressionOf(mediaType) !== undefined,
  )
  return own.some(({annotations}) => tocDigestOf(annotations) === undefined)
}

function sizeOf({config, layers}: ImageManifest): number {
  return layers.reduce((sum, {size}) => sum + size, config.size)
}
