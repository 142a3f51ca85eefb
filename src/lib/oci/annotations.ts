// Annotation and label keys of the eStargz ecosystem; spelling is a contract with peers.

/** sha256 of the raw TOC JSON; on the layer descriptor. eStargz spec, "Verification". */
export const TOC_DIGEST = 'containerd.io/snapshot/stargz/toc.digest'
/** Size of the whole decompressed layer stream in bytes, decimal; on the layer descriptor. */
export const UNCOMPRESSED_SIZE = 'io.containers.estargz.uncompressed-size'
/** Digest of the layer that a TOC-image layer describes (external TOC). */
export const EXTERNAL_TOC_LAYER = 'containerd.io/snapshot/stargz/layer.digest'
/** containerd's content label that maps a compressed layer to its DiffID. */
export const CONTAINERD_UNCOMPRESSED = 'containerd.io/uncompressed'
/** The name of an image in an OCI layout's index.json (image-spec annotations.md). */
export const REF_NAME = 'org.opencontainers.image.ref.name'
/** The full image name that containerd and Docker put in archives. */
export const CONTAINERD_IMAGE_NAME = 'io.containerd.image.name'
