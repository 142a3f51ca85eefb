// Manifests and indexes of upstreams, by digest: asked for once, whoever wants them, and kept in memory for a while.

import {LRUCache} from 'lru-cache'
import {readWholeBlob} from '../image/image-tree.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {type ImageDocument, MAX_MANIFEST_SIZE, parseImageDocument} from '../oci/manifest.ts'
import type {Repository} from '../registry/repository.ts'
import type {SourceRepository} from './upstreams.ts'

export interface FoundDocument {
  readonly descriptor: Descriptor
  readonly bytes: Uint8Array
  readonly document: ImageDocument
}

/** Bytes of documents that are kept; one has some KiB, at most 8 MiB. */
const MAX_BYTES = 64 * 1024 * 1024

export class Documents {
  readonly #known = new LRUCache<string, FoundDocument>({
    maxSize: MAX_BYTES,
    sizeCalculation: ({bytes}) => bytes.length || 1,
  })
  readonly #reading = new Map<string, Promise<FoundDocument>>()

  /**
   * The document of a repository that may be read, as the caller knows. Throws `not-found`, `corrupt`, and `unsupported` for
   * what is neither manifest nor index of an image.
   */
  async read(source: SourceRepository, digest: Digest, repository: Repository): Promise<FoundDocument> {
    const key = `${source.name}@${digest}`
    const known = this.#known.get(key)
    if (known) return known
    const reading = this.#reading.get(key) ?? readDocument(digest, repository)
    this.#reading.set(key, reading)
    try {
      const found = await reading
      this.#known.set(key, found)
      return found
    } finally {
      if (this.#reading.get(key) === reading) this.#reading.delete(key)
    }
  }
}

async function readDocument(digest: Digest, repository: Repository): Promise<FoundDocument> {
  const descriptor = await repository.resolve(digest)
  const bytes = await readWholeBlob(repository.content, descriptor, MAX_MANIFEST_SIZE)
  const document = parseImageDocument(
    bytes,
    descriptor.mediaType,
    `the manifest ${digest} of ${repository.name}`,
  )
  return {descriptor, bytes, document}
}
