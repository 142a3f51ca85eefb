// Annotation and label keys of the eStargz ecosystem; spelling is a contract with peers.

import {type Descriptor, withAnnotations} from './descriptor.ts'

/** sha256 of the raw TOC JSON; on the layer descriptor. eStargz spec, "Verification". */
export const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest'
/** The same on layers that Podman 5 would refuse with it; our snapshotter, which is told this prefix too, takes either. */
export const OWN_TOC_DIGEST = 'containerd.io/snapshot/ctr-remote/toc.digest'
/** Size of the whole decompressed layer stream in bytes, decimal; on the layer descriptor. */
export const UNCOMPRESSED_SIZE = 'io.containers.estargz.uncompressed-size'
/**
 * Of zstd:chunked layers, as containers/storage has them: digest of the compressed TOC; `offset:size:rawSize:type` of the
 * TOC; `offset:size:rawSize` of the tar-split. Podman 5 refuses a layer that has the first of these and `TOC_DIGEST`.
 */
export const ZSTD_CHUNKED_CHECKSUM = 'io.github.containers.zstd-chunked.manifest-checksum'
export const ZSTD_CHUNKED_POSITION = 'io.github.containers.zstd-chunked.manifest-position'
export const TAR_SPLIT_POSITION = 'io.github.containers.zstd-chunked.tarsplit-position'
/** The first two as they were called before: Podman 4 reads them, stargz-snapshotter writes them. */
export const OLD_ZSTD_CHUNKED_CHECKSUM = 'io.containers.zstd-chunked.manifest-checksum'
export const OLD_ZSTD_CHUNKED_POSITION = 'io.containers.zstd-chunked.manifest-position'
/** Digest of the layer that a TOC-image layer describes (external TOC). */
export const EXTERNAL_TOC_LAYER = 'containerd.io/snapshot/stargz/layer.digest'
/** containerd's content label that maps a compressed layer to its DiffID. */
export const CONTAINERD_UNCOMPRESSED = 'containerd.io/uncompressed'
/** The name of an image in an OCI layout's index.json (image-spec annotations.md). */
export const REF_NAME = 'org.opencontainers.image.ref.name'
/** The full image name that containerd and Docker put in archives. */
export const CONTAINERD_IMAGE_NAME = 'io.containerd.image.name'

/** What starts the keys that say how to read a layer lazily; they hold for one compressed form of it only. */
const LAZY_PREFIXES = [
  'containerd.io/snapshot/stargz/',
  'containerd.io/snapshot/ctr-remote/',
  'io.github.containers.zstd-chunked.',
  'io.containers.zstd-chunked.',
]

/** What annotations of a descriptor, or labels of a snapshot, say the TOC's digest is. */
export function tocDigestOf(annotations: Readonly<Record<string, string>> | undefined): string | undefined {
  return annotations?.[TOC_DIGEST] ?? annotations?.[OWN_TOC_DIGEST]
}

/** True for an annotation that is about one lazily readable form of a layer, and must not survive another conversion. */
export function isLazyAnnotation(key: string): boolean {
  return key === UNCOMPRESSED_SIZE || LAZY_PREFIXES.some(prefix => key.startsWith(prefix))
}

/** `descriptor` without such annotations. */
export function withoutLazyAnnotations(descriptor: Descriptor): Descriptor {
  const keys = Object.keys(descriptor.annotations ?? {}).filter(isLazyAnnotation)
  return withAnnotations(descriptor, Object.fromEntries(keys.map(key => [key, undefined])))
}
