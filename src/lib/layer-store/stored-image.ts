// An image that a layer store shows as one of an additional image store.

import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {StoredLayer} from './stored-layer.ts'

/** Sizes are bytes. */
export interface ImageLayer {
  readonly digest: Digest
  readonly diffId: Digest
  readonly mediaType: string
  readonly compressedSize: number
  readonly uncompressedSize: number
  /** What it is mounted by; undefined for a layer that was unpacked, with the reason. */
  readonly lazy: StoredLayer | undefined
  readonly reason?: string
}

export interface StoredImage {
  /** The hexadecimal digest of its config, as Podman names images. */
  readonly id: string
  /** References with their tags, the last that was added first. */
  readonly names: readonly string[]
  readonly digest: Digest
  /** The documents' text. */
  readonly manifest: string
  readonly config: string
  /** RFC 3339. */
  readonly created: string
  /** Bottom first. */
  readonly layers: readonly ImageLayer[]
}

/** Images that are stored, durable once a call returns. */
export interface StoredImageTable {
  list(): readonly StoredImage[]
  put(image: StoredImage): void
  delete(id: string): void
}

/** The directory that Podman, Buildah and CRI-O read as an additional image store. */
export interface GraphRoot {
  /** Shows these images, each layer where `directoryOf` says, and nothing else. */
  show(images: readonly StoredImage[], directoryOf: (layer: ImageLayer) => string): Promise<void>
  /** The first image of which some container's root file system is mounted. */
  findUser(image: StoredImage): Promise<string | undefined>
}

/** Layers that cannot be mounted lazily. */
export interface UnpackedLayers {
  /** Unpacks a layer, unless it is there; resolves to the size of its tar when all of it is on disk. */
  unpack(reference: string, layer: UnpackedLayer, options: CallOptions): Promise<number>
  directoryOf(diffId: Digest): string
  remove(diffId: Digest): Promise<void>
}

export type UnpackedLayer = Pick<ImageLayer, 'digest' | 'diffId' | 'mediaType' | 'compressedSize'>
