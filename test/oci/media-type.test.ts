import {expect, test} from 'vitest'
import {
  DOCKER_CONFIG,
  DOCKER_LAYER_GZIP,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  isConfigMediaType,
  isDockerMediaType,
  isForeignLayer,
  isIndexMediaType,
  isManifestMediaType,
  type LayerCompression,
  layerCompressionOf,
  layerMediaType,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER_GZIP,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'

const COMPRESSIONS: readonly LayerCompression[] = ['none', 'gzip', 'zstd']

test.each(['oci', 'docker'] as const)('layer media types of %s name their compression', family => {
  for (const compression of COMPRESSIONS) {
    const mediaType = layerMediaType(compression, family)
    expect(layerCompressionOf(mediaType)).toBe(compression)
    expect(isDockerMediaType(mediaType)).toBe(family === 'docker')
  }
})

test('the spelling of the common ones is that of the specifications', () => {
  expect(OCI_LAYER_GZIP).toBe('application/vnd.oci.image.layer.v1.tar+gzip')
  expect(DOCKER_LAYER_GZIP).toBe('application/vnd.docker.image.rootfs.diff.tar.gzip')
})

test.each([
  [OCI_INDEX, 'index'],
  [DOCKER_LIST, 'index'],
  [OCI_MANIFEST, 'manifest'],
  [DOCKER_MANIFEST, 'manifest'],
  [OCI_CONFIG, 'config'],
  [DOCKER_CONFIG, 'config'],
  [OCI_LAYER_GZIP, 'none of these'],
  ['', 'none of these'],
])('%s is %s', (mediaType, kind) => {
  const kinds = [
    isIndexMediaType(mediaType) && 'index',
    isManifestMediaType(mediaType) && 'manifest',
    isConfigMediaType(mediaType) && 'config',
  ].filter(Boolean)
  expect(kinds).toEqual(kind === 'none of these' ? [] : [kind])
})

test.each([
  'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip',
])('%s is foreign, and no layer that we convert', mediaType => {
  expect(isForeignLayer(mediaType)).toBe(true)
  expect(layerCompressionOf(mediaType)).toBeUndefined()
})

test('an unknown media type is no layer', () => {
  expect(layerCompressionOf('application/vnd.in-toto+json')).toBeUndefined()
})
