// What a layer store keeps of a layer, and where.

import type {Digest} from '../oci/digest.ts'

/** Which layer is meant: an image, and one of a layer's two names. */
export interface StoredLayerName {
  /** As whoever asked has it. */
  readonly reference: string
  /** The digest of the layer's TOC, of its TOC as compressed (zstd:chunked), or of its blob. */
  readonly name: Digest
}

/** A layer that is served. Sizes are bytes. */
export interface StoredLayer extends StoredLayerName {
  /** Of the blob. */
  readonly digest: Digest
  readonly tocDigest: Digest
  /** As the image's config has it. */
  readonly diffId: Digest
  readonly compressedSize: number
  /** Of the tar; undefined when the image does not say. */
  readonly uncompressedSize: number | undefined
  readonly mediaType: string
  /** What the layer is mounted by. */
  readonly labels: Readonly<Record<string, string>>
}

/** A stored layer, and how many use it. */
export interface CountedLayer extends StoredLayer {
  readonly users: number
}

/** Layers that are stored, durable once a call returns. */
export interface StoredLayerTable {
  get(name: StoredLayerName): CountedLayer | undefined
  list(): readonly CountedLayer[]
  /** Keeps a layer that has no users yet; one that is there stays. */
  add(layer: StoredLayer): void
  /** Adds `change` to a layer's users, down to 0; the users that it has then. */
  count(name: StoredLayerName, change: 1 | -1): number
  delete(name: StoredLayerName): void
}
