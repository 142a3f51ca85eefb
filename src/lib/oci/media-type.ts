// Media types of manifests, configs and layers: OCI image-spec v1.1 media-types.md, and Docker image manifest v2 schema 2.

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json'
export const OCI_EMPTY = 'application/vnd.oci.empty.v1+json'
export const OCI_LAYER = 'application/vnd.oci.image.layer.v1.tar'
export const OCI_LAYER_GZIP = 'application/vnd.oci.image.layer.v1.tar+gzip'
export const OCI_LAYER_ZSTD = 'application/vnd.oci.image.layer.v1.tar+zstd'
export const OCI_LAYER_FOREIGN = 'application/vnd.oci.image.layer.nondistributable.v1.tar'
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'
export const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json'
export const DOCKER_LAYER = 'application/vnd.docker.image.rootfs.diff.tar'
export const DOCKER_LAYER_GZIP = 'application/vnd.docker.image.rootfs.diff.tar.gzip'
export const DOCKER_LAYER_ZSTD = 'application/vnd.docker.image.rootfs.diff.tar.zstd'
export const DOCKER_LAYER_FOREIGN = 'application/vnd.docker.image.rootfs.foreign.diff.tar'

/** How a layer's tar is compressed. */
export type LayerCompression = 'none' | 'gzip' | 'zstd'

/** Every manifest-like media type that we ask registries for. */
export const MANIFEST_MEDIA_TYPES: readonly string[] = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]

export function isIndexMediaType(mediaType: string): boolean {
  return mediaType === OCI_INDEX || mediaType === DOCKER_LIST
}

export function isManifestMediaType(mediaType: string): boolean {
  return mediaType === OCI_MANIFEST || mediaType === DOCKER_MANIFEST
}

export function isConfigMediaType(mediaType: string): boolean {
  return mediaType === OCI_CONFIG || mediaType === DOCKER_CONFIG
}

export function isDockerMediaType(mediaType: string): boolean {
  return mediaType.startsWith('application/vnd.docker.')
}

/** The OCI counterpart of Docker's media type of a layer; any other is the same. */
export function toOciLayerType(mediaType: string): string {
  switch (mediaType) {
    case DOCKER_LAYER:
      return OCI_LAYER
    case DOCKER_LAYER_GZIP:
      return OCI_LAYER_GZIP
    case DOCKER_LAYER_ZSTD:
      return OCI_LAYER_ZSTD
    case DOCKER_LAYER_FOREIGN:
      return OCI_LAYER_FOREIGN
    case `${DOCKER_LAYER_FOREIGN}.gzip`:
      return `${OCI_LAYER_FOREIGN}+gzip`
    case `${DOCKER_LAYER_FOREIGN}.zstd`:
      return `${OCI_LAYER_FOREIGN}+zstd`
    default:
      return mediaType
  }
}

/** Layers whose bytes must not be re-distributed or converted (Windows base layers). */
export function isForeignLayer(mediaType: string): boolean {
  return mediaType.startsWith(OCI_LAYER_FOREIGN) || mediaType.startsWith(DOCKER_LAYER_FOREIGN)
}

/** The compression that a layer media type names; undefined when it is no layer of a file-system image. */
export function layerCompressionOf(mediaType: string): LayerCompression | undefined {
  switch (mediaType) {
    case OCI_LAYER:
    case DOCKER_LAYER:
      return 'none'
    case OCI_LAYER_GZIP:
    case DOCKER_LAYER_GZIP:
      return 'gzip'
    case OCI_LAYER_ZSTD:
    case DOCKER_LAYER_ZSTD:
      return 'zstd'
    default:
      return undefined
  }
}

/** The layer media type for a compression, in the OCI or Docker family. */
export function layerMediaType(compression: LayerCompression, family: 'oci' | 'docker'): string {
  switch (compression) {
    case 'none':
      return family === 'oci' ? OCI_LAYER : DOCKER_LAYER
    case 'gzip':
      return family === 'oci' ? OCI_LAYER_GZIP : DOCKER_LAYER_GZIP
    case 'zstd':
      return family === 'oci' ? OCI_LAYER_ZSTD : DOCKER_LAYER_ZSTD
  }
}
