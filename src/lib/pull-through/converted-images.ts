// The images that were converted: kept in a store of their own under the name of what they were made from, found by every
// digest that they consist of, and taken away again when they are many. What they were is remembered then: whoever still
// reads one, or asks for it by its digest, has it made again, with the same bytes.

import {digestOf} from '../blob/sha256.ts'
import {hasCode} from '../errors/coded-error.ts'
import {readWholeBlob} from '../image/image-tree.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import type {ImageRecord, ImageTarget, Store} from '../oci/image-store.ts'
import {MAX_MANIFEST_SIZE, parseImageDocument} from '../oci/manifest.ts'
import {isForeignLayer} from '../oci/media-type.ts'

export interface ConvertedImagesOptions {
  /** Bytes of content that are kept, about; what is in use is kept beyond it. */
  readonly maxSize: number
  /** How long after a read an image counts as in use, milliseconds. */
  readonly inUseMs: number
}

/** A document that we made, with its parts: a manifest, or an index over manifests. */
export interface ConvertedImage {
  /** Repository that it was made from: `docker.io/library/debian`. */
  readonly repository: string
  /** The manifest or index there that it takes the place of. */
  readonly source: Digest
  readonly descriptor: Descriptor
  readonly kind: 'manifest' | 'index'
  /** For a manifest all of its content; for an index itself alone. */
  readonly content: readonly Descriptor[]
  /** Whether all of it is here; if not, the document alone is. */
  readonly isWhole: boolean
}

/** How much is kept. */
export interface ConvertedSize {
  readonly images: number
  readonly bytes: number
}

/** The label of an image that says which manifest it was made from. */
const SOURCE_LABEL = 'io.ctr-remote.pull-through.source'
/** And one with the media type of a document which the store is to keep alone: the type there says nothing of what it refers to. */
const TYPE_LABEL = 'io.ctr-remote.pull-through.type'
const DOCUMENT_ALONE = 'application/octet-stream'
/** Names in the store, which has room for 4096; those of what is not whole go first. */
const MAX_NAMES = 3000

interface Kept extends ConvertedImage {
  readonly name: string
  /** What of it is here. */
  readonly held: readonly Descriptor[]
  usedAt: number
  readers: number
}

export class ConvertedImages {
  readonly store: Store
  readonly #options: ConvertedImagesOptions
  readonly #byName = new Map<string, Kept>()
  /** By repository and digest of anything that it has. */
  readonly #byContent = new Map<string, Set<Kept>>()
  /** How many images have a blob; its size counts once. */
  readonly #shared = new Map<Digest, {readonly size: number; images: number}>()
  #bytes = 0
  #evicting: Promise<void> = Promise.resolve()

  /** Opens what the store has; an image that is not whole is forgotten, and made again when it is asked for. */
  static async open(
    store: Store,
    options: ConvertedImagesOptions,
    call: CallOptions = {},
  ): Promise<ConvertedImages> {
    const images = new ConvertedImages(store, options)
    const records = await store.images.list(call)
    for (const record of records) await images.#load(record, call)
    // What a process that was killed had written, and nothing names.
    await store.collectGarbage(call)
    return images
  }

  private constructor(store: Store, options: ConvertedImagesOptions) {
    this.store = store
    this.#options = options
  }

  get size(): ConvertedSize {
    const images = [...this.#byName.values()].filter(({kind, isWhole}) => kind === 'manifest' && isWhole)
    return {images: images.length, bytes: this.#bytes}
  }

  /** What a manifest of a repository became; undefined when it is to be converted yet, or again. */
  find(repository: string, source: Digest): ConvertedImage | undefined {
    const image = this.#byName.get(nameOf(repository, source))
    return image?.isWhole && image.kind === 'manifest' ? image : undefined
  }

  /** Everything in a repository that has this content, a manifest, config or layer, whether it is here or was. */
  withContent(repository: string, digest: Digest): readonly ConvertedImage[] {
    return [...(this.#byContent.get(contentKey(repository, digest)) ?? [])]
  }

  /** Keeps an image while it is read; dispose it afterwards. */
  read(image: ConvertedImage): Disposable {
    const kept = this.#byName.get(nameOf(image.repository, keyDigest(image)))
    if (kept) kept.readers++
    return {
      [Symbol.dispose]: () => {
        if (!kept) return
        kept.readers--
        kept.usedAt = now()
      },
    }
  }

  /** Bytes of a document that we made; throws `not-found`, `corrupt`. */
  async readDocument({descriptor}: ConvertedImage, call: CallOptions = {}): Promise<Uint8Array> {
    return readWholeBlob(this.store.content, descriptor, MAX_MANIFEST_SIZE, call)
  }

  /** The place for what a manifest of a repository becomes; the caller disposes it. */
  async target(repository: string, source: Digest, call: CallOptions = {}): Promise<ImageTarget> {
    const lease = await this.store.lease(call)
    const name = nameOf(repository, source)
    return {
      name,
      content: this.store.content,
      publish: async (root, publishing) => {
        const labels = {[SOURCE_LABEL]: source}
        await this.#load(await this.store.images.put(name, root, {...publishing, labels}), publishing ?? {})
        await this.#forgetOldest()
      },
      [Symbol.asyncDispose]: () => lease[Symbol.asyncDispose](),
    }
  }

  /** Keeps an index that takes the place of `source`; one that is known costs nothing. */
  async addIndex(
    repository: string,
    source: Digest,
    index: {readonly mediaType: string; readonly bytes: Uint8Array},
    call: CallOptions = {},
  ): Promise<ConvertedImage> {
    const descriptor = {mediaType: index.mediaType, digest: digestOf(index.bytes), size: index.bytes.length}
    const name = nameOf(repository, descriptor.digest)
    const known = this.#byName.get(name)
    if (known) return known
    await using _lease = await this.store.lease(call)
    await using writer = await this.store.content.write({...descriptor, mediaType: DOCUMENT_ALONE}, call)
    await writer.write(index.bytes)
    await writer.commit(descriptor, call)
    const image: Kept = {
      name,
      repository,
      source,
      descriptor,
      kind: 'index',
      content: [descriptor],
      held: [descriptor],
      isWhole: true,
      usedAt: now(),
      readers: 0,
    }
    await this.#putDocument(image, call)
    this.#know(image)
    await this.#forgetOldest()
    return image
  }

  /** Takes away an image of which something turns out to be damaged or gone: it is made again when it is asked for. */
  discard(image: ConvertedImage): Promise<void> {
    const kept = this.#byName.get(nameOf(image.repository, keyDigest(image)))
    if (!kept) return Promise.resolve()
    if (kept.kind === 'manifest') this.#know(reduced(kept))
    else this.#forget(kept)
    return this.#inTurn(() => this.#takeAway(kept))
  }

  async #takeAway(kept: Kept): Promise<void> {
    const isReadable = await this.readDocument(kept).then(
      () => true,
      () => false,
    )
    if (isReadable && kept.kind === 'manifest') await this.#putDocument(kept, {})
    else await this.#remove(kept)
    await this.store.collectGarbage()
  }

  /** Takes away what was not used for the longest time, until `bytes` more fit, or all that is left is in use. */
  makeRoom(bytes = 0, call: CallOptions = {}): Promise<void> {
    return this.#inTurn(() => this.#evict(bytes, call))
  }

  /** One after the other; a conversion makes room first, so that it takes nothing over that is on its way out. */
  #inTurn(work: () => Promise<void>): Promise<void> {
    this.#evicting = this.#evicting.catch(() => {}).then(work)
    return this.#evicting
  }

  async #evict(bytes: number, call: CallOptions): Promise<void> {
    const {maxSize, inUseMs} = this.#options
    let removed = false
    while (this.#bytes + bytes > maxSize) {
      const idle = [...this.#byName.values()].filter(
        ({kind, isWhole, readers, usedAt}) =>
          kind === 'manifest' && isWhole && readers === 0 && usedAt + inUseMs <= now(),
      )
      const [oldest] = idle.sort((a, b) => a.usedAt - b.usedAt)
      if (!oldest) break
      // First what we know, so that nobody is sent to what is on its way out.
      this.#know(reduced(oldest))
      await this.#putDocument(oldest, call)
      removed = true
    }
    if (removed) await this.store.collectGarbage(call)
  }

  /** Has the store keep a document, and nothing that it refers to. */
  async #putDocument({name, source, descriptor}: Kept, call: CallOptions): Promise<void> {
    const labels = {[SOURCE_LABEL]: source, [TYPE_LABEL]: descriptor.mediaType}
    await this.store.images.put(name, {...descriptor, mediaType: DOCUMENT_ALONE}, {...call, labels})
  }

  /** Forgets indexes, and images that were taken away, when there are too many. */
  async #forgetOldest(): Promise<void> {
    const excess = this.#byName.size - MAX_NAMES
    if (excess <= 0) return
    const images = [...this.#byName.values()].filter(({readers}) => readers === 0)
    const rank = ({kind, isWhole}: Kept) => (kind === 'manifest' && isWhole ? 1 : 0)
    images.sort((a, b) => rank(a) - rank(b) || a.usedAt - b.usedAt)
    for (const kept of images.slice(0, excess)) await this.#remove(kept)
    await this.store.collectGarbage()
  }

  async #remove(kept: Kept): Promise<void> {
    const known = this.#byName.get(kept.name)
    if (known) this.#forget(known)
    await this.store.images.remove(kept.name).catch(error => {
      if (!hasCode(error, 'not-found')) throw error
    })
  }

  async #load(record: ImageRecord, call: CallOptions): Promise<void> {
    const image = await this.#readRecord(record, call).catch(error => {
      if (hasCode(error, 'not-found', 'corrupt', 'unsupported')) return undefined
      throw error
    })
    if (image) this.#know(image)
    else if (record.labels[SOURCE_LABEL] !== undefined) await this.store.images.remove(record.name)
  }

  async #readRecord(record: ImageRecord, call: CallOptions): Promise<Kept | undefined> {
    const {name, target, labels, updatedAt} = record
    const source = labels[SOURCE_LABEL]
    if (!isDigest(source)) return undefined
    const {content} = this.store
    const descriptor = {...target, mediaType: labels[TYPE_LABEL] ?? target.mediaType}
    const bytes = await readWholeBlob(content, descriptor, MAX_MANIFEST_SIZE, call)
    const document = parseImageDocument(bytes, descriptor.mediaType, `the manifest ${target.digest}`)
    const parts =
      document.kind === 'index' ? [] : [document.manifest.config, ...document.manifest.layers.filter(isKept)]
    const here = await Promise.all(parts.map(part => content.info(part, call)))
    const isWhole = target.mediaType !== DOCUMENT_ALONE && here.every(info => info !== undefined)
    const all = [descriptor, ...parts]
    return {
      name,
      repository: name.slice(0, name.lastIndexOf('@')),
      source,
      descriptor,
      kind: document.kind,
      content: all,
      held: isWhole ? all : [descriptor],
      isWhole: isWhole || document.kind === 'index',
      usedAt: Date.parse(updatedAt) || 0,
      readers: 0,
    }
  }

  #know(image: Kept): void {
    const before = this.#byName.get(image.name)
    if (before) this.#forget(before)
    this.#byName.set(image.name, image)
    for (const {digest, size} of image.held) {
      const shared = this.#shared.get(digest)
      if (!shared) this.#bytes += size
      this.#shared.set(digest, {size, images: (shared?.images ?? 0) + 1})
    }
    for (const {digest} of image.content) {
      const key = contentKey(image.repository, digest)
      const images = this.#byContent.get(key) ?? new Set()
      this.#byContent.set(key, images.add(image))
    }
  }

  #forget(image: Kept): void {
    if (this.#byName.get(image.name) !== image) return
    this.#byName.delete(image.name)
    for (const {digest, size} of image.held) {
      const shared = this.#shared.get(digest)
      if (shared && --shared.images > 0) continue
      this.#shared.delete(digest)
      this.#bytes -= size
    }
    for (const {digest} of image.content) {
      const key = contentKey(image.repository, digest)
      const images = this.#byContent.get(key)
      images?.delete(image)
      if (images?.size === 0) this.#byContent.delete(key)
    }
  }
}

/** Milliseconds since the epoch, finely enough to tell which of two reads was the later. */
function now(): number {
  return performance.timeOrigin + performance.now()
}

/** Of an image its document alone. */
function reduced(kept: Kept): Kept {
  return {...kept, held: [kept.descriptor], isWhole: false, readers: 0}
}

/** Layers that must not be distributed are elsewhere. */
function isKept({mediaType}: Descriptor): boolean {
  return !isForeignLayer(mediaType)
}

/** A manifest is kept under its source's digest, of which there is one form; an index, of which there are several, under its own. */
function keyDigest({kind, source, descriptor}: ConvertedImage): Digest {
  return kind === 'index' ? descriptor.digest : source
}

function nameOf(repository: string, digest: Digest): string {
  return `${repository}@${digest}`
}

function contentKey(repository: string, digest: Digest): string {
  return `${repository} ${digest}`
}
