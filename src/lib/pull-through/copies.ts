// Copies of converted images on another registry, under the names of their sources, for clients that do not pull through us.

import pLimit from 'p-limit'
import {copyImage} from '../copy/copy-image.ts'
import {TaskScope} from '../io/task-scope.ts'
import {FailureMemory} from '../layer/failure-memory.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {ImageTarget} from '../oci/image-store.ts'
import {composeIndex} from './composed-index.ts'
import type {ConvertedImage, ConvertedImages} from './converted-images.ts'
import type {FoundDocument} from './documents.ts'
import type {SourceRepository} from './upstreams.ts'

/** An image whose tag was pulled or pushed, with all of it converted that is to be. */
export interface CopyOffer {
  readonly source: SourceRepository
  readonly tag: string
  readonly found: FoundDocument
  readonly images: readonly ConvertedImage[]
}

/** What became of a copy. */
export type CopyEvent =
  | {readonly kind: 'copied'; readonly image: string; readonly to: string}
  | {readonly kind: 'copy-failed'; readonly image: string; readonly to: string; readonly error: unknown}

export interface CopiesOptions {
  readonly images: ConvertedImages
  /** Opens the place for the image of a source's tag; the copy disposes it. */
  readonly target: (source: SourceRepository, tag: string) => Promise<ImageTarget>
  readonly onEvent: (event: CopyEvent) => void
}

/** Copied at once; the link is what bounds it. */
const PARALLEL = 2
/** Copies that wait; what is not taken is offered again with the next pull. */
const MAX_WAITING = 1000
/** Tags that are known to be copied; what is forgotten is asked for, and not sent, again. */
const MAX_KNOWN = 10_000
const HOLD_BACK = {minMs: 60_000, maxMs: 3_600_000}

export class Copies implements AsyncDisposable {
  readonly #options: CopiesOptions
  readonly #limit = pLimit(PARALLEL)
  readonly #scope = new TaskScope()
  readonly #failures = new FailureMemory()
  /** By tag the digests that it consisted of when it was copied, or is being. */
  readonly #known = new Map<string, string>()

  constructor(options: CopiesOptions) {
    this.#options = options
  }

  /** Takes an image to be copied, unless its tag has been already as it is now. */
  offer(offer: CopyOffer): void {
    const name = `${offer.source.name}:${offer.tag}`
    const digests = offer.images.map(({descriptor}) => descriptor.digest).join()
    const isKnown = this.#known.get(name) === digests
    if (isKnown || this.#limit.pendingCount >= MAX_WAITING || this.#failures.recall(name)) return
    this.#known.delete(name)
    this.#known.set(name, digests)
    const [oldest] = this.#known.keys()
    if (this.#known.size > MAX_KNOWN && oldest !== undefined) this.#known.delete(oldest)
    // What goes wrong is told by an event, and after the end by nothing.
    this.#scope.run(() => this.#limit(() => this.#copy(name, digests, offer))).catch(() => {})
  }

  /** Stops what runs; a tag there is moved last, so that it is the old one or the new one. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#scope.close(new Error('The registry ends'))
  }

  async #copy(name: string, digests: string, offer: CopyOffer): Promise<void> {
    const {target: open, onEvent} = this.#options
    const {signal} = this.#scope
    const started = this.#failures.now()
    let to = ''
    try {
      signal.throwIfAborted()
      await using target = await open(offer.source, offer.tag)
      to = target.name
      await this.#send(name, offer, target)
      this.#failures.succeeded(name)
      onEvent({kind: 'copied', image: name, to})
    } catch (error) {
      if (this.#known.get(name) === digests) this.#known.delete(name)
      if (signal.aborted) return
      this.#failures.failed(name, error, {started, ...HOLD_BACK})
      onEvent({kind: 'copy-failed', image: name, to, error})
    }
  }

  async #send(name: string, offer: CopyOffer, target: ImageTarget): Promise<void> {
    const {images} = this.#options
    const {signal} = this.#scope
    using reading = new DisposableStack()
    for (const image of offer.images) reading.use(images.read(image))
    const root = await this.#rootOf(offer)
    const source = {
      name,
      content: images.store.content,
      resolve: async () => root,
      [Symbol.asyncDispose]: async () => {},
    }
    await copyImage(source, target, {platforms: 'all', index: 'reduced', signal})
  }

  /** What the tag is to stand for: the manifest, or an index of those manifests that are converted alone. */
  async #rootOf({source, found: {descriptor, document}, images: converted}: CopyOffer): Promise<Descriptor> {
    const [only] = converted
    if (document.kind === 'manifest' && only) return only.descriptor
    const byDigest = new Map(converted.map(image => [image.source, image.descriptor]))
    const {images} = this.#options
    const index = document.kind === 'index' ? document.index : undefined
    const reduced = index && {...index, manifests: index.manifests.filter(({digest}) => byDigest.has(digest))}
    const composed = reduced && composeIndex(reduced, digest => byDigest.get(digest))
    if (!composed) throw new Error('Nothing is converted')
    return (await images.addIndex(source.name, descriptor.digest, composed, {signal: this.#scope.signal}))
      .descriptor
  }
}
