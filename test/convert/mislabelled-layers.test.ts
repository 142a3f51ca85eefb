// Builders give layers wrong media types (containerd#14160, buildah#1589), and every runtime goes by the bytes.

import {tmpdir} from 'node:os'
import {gunzipSync, gzipSync, zstdCompressSync, zstdDecompressSync} from 'node:zlib'
import {beforeEach, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {convertImage, type LayerConversion} from '../../src/lib/convert/convert-image.ts'
import {lazyConversion, samePaths} from '../../src/lib/convert/lazy-conversion.ts'
import {plainConversion} from '../../src/lib/convert/plain-conversion.ts'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson, type ImageManifest} from '../../src/lib/oci/manifest.ts'
import {
  DOCKER_CONFIG,
  DOCKER_LAYER,
  DOCKER_LAYER_GZIP,
  DOCKER_MANIFEST,
  isDockerMediaType,
  OCI_CONFIG,
  OCI_LAYER,
  OCI_LAYER_GZIP,
  OCI_LAYER_ZSTD,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'
import {verifyImage} from '../../src/lib/verify/verify-image.ts'
import {ESTARGZ, plainFormat} from '../support/formats.ts'
import {entriesOf} from '../support/layers.ts'
import {type MemoryContent, memoryContent} from '../support/memory-content.ts'
import {tarOf, writeBlob} from '../support/sample-image.ts'

const codec = createBulkCodec()
const TAR = tarOf({'a.txt': 'a\n', 'b.txt': 'b\n'})
const EMPTY = Buffer.alloc(0)

let content: MemoryContent

beforeEach(() => {
  content = memoryContent()
})

/** An image of one layer, whose bytes need not be what its media type says. */
async function writeImage(bytes: Uint8Array, mediaType: string, tar: Uint8Array): Promise<Descriptor> {
  const isDocker = isDockerMediaType(mediaType)
  const layer = await writeBlob(content, bytes, mediaType)
  const config = await writeBlob(
    content,
    encodeJson({architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: [digestOf(tar)]}}),
    isDocker ? DOCKER_CONFIG : OCI_CONFIG,
  )
  const type = isDocker ? DOCKER_MANIFEST : OCI_MANIFEST
  return writeBlob(content, encodeJson({schemaVersion: 2, mediaType: type, config, layers: [layer]}), type)
}

const imageAt = (root: Descriptor) => ({
  name: 'an image',
  content,
  resolve: async () => root,
  publish: async () => {},
  [Symbol.asyncDispose]: async () => {},
})

/** The only layer of the converted image. */
async function convert(root: Descriptor, layers: LayerConversion, oci = false) {
  const image = imageAt(root)
  const converted = await convertImage(image, image, {platforms: 'all', oci, layers, parallelLayers: 1})
  const manifest: ImageManifest = JSON.parse(String(content.blobs.get(converted.root.digest)))
  const [layer] = manifest.layers
  return {root: converted.root, mediaType: layer!.mediaType, bytes: content.blobs.get(layer!.digest)!}
}

const toEstargz = () =>
  lazyConversion(ESTARGZ, {
    codec,
    temporaryDirectory: tmpdir(),
    prioritizedIn: () => samePaths(['b.txt']),
  })

const LAYERS: readonly (readonly [string, Uint8Array, string, Uint8Array])[] = [
  ['zstd labelled gzip', zstdCompressSync(TAR), OCI_LAYER_GZIP, TAR],
  ['zstd labelled tar', zstdCompressSync(TAR), OCI_LAYER, TAR],
  ['gzip labelled zstd', gzipSync(TAR), OCI_LAYER_ZSTD, TAR],
  ['gzip labelled tar', gzipSync(TAR), OCI_LAYER, TAR],
  ['a tar labelled gzip', TAR, OCI_LAYER_GZIP, TAR],
  ['a tar labelled zstd', TAR, OCI_LAYER_ZSTD, TAR],
  ['no bytes labelled gzip', EMPTY, OCI_LAYER_GZIP, EMPTY],
  ['no bytes labelled zstd', EMPTY, OCI_LAYER_ZSTD, EMPTY],
  ["gzip as Docker's tar", gzipSync(TAR), DOCKER_LAYER, TAR],
  ["a tar as Docker's gzip", TAR, DOCKER_LAYER_GZIP, TAR],
]

describe.each(LAYERS)('%s', (_, bytes, mediaType, tar) => {
  const isDocker = isDockerMediaType(mediaType)

  it('becomes eStargz, which is labelled gzip', async () => {
    const layer = await convert(await writeImage(bytes, mediaType, tar), toEstargz())
    expect(layer.mediaType).toBe(isDocker ? DOCKER_LAYER_GZIP : OCI_LAYER_GZIP)
    const paths = entriesOf(gunzipSync(layer.bytes)).map(({path}) => path)
    expect(paths).toEqual(
      tar === EMPTY
        ? ['.no.prefetch.landmark', 'stargz.index.json']
        : ['b.txt', '.prefetch.landmark', 'a.txt', 'stargz.index.json'],
    )
    expect((await verifyImage(imageAt(layer.root), {codec, platforms: 'all'})).sound).toBe(true)
  })

  it('becomes plain gzip with its label', async () => {
    const layer = await convert(
      await writeImage(bytes, mediaType, tar),
      plainConversion(plainFormat('gzip'), {codec, temporaryDirectory: tmpdir()}),
    )
    expect(layer.mediaType).toBe(isDocker ? DOCKER_LAYER_GZIP : OCI_LAYER_GZIP)
    expect(gunzipSync(layer.bytes).equals(tar)).toBe(true)
  })

  it('becomes plain zstd with its label', async () => {
    const root = await writeImage(bytes, mediaType, tar)
    const layer = await convert(
      root,
      plainConversion(plainFormat('zstd'), {codec, temporaryDirectory: tmpdir()}),
      true,
    )
    expect(layer.mediaType).toBe(OCI_LAYER_ZSTD)
    expect(zstdDecompressSync(layer.bytes).equals(tar)).toBe(true)
  })

  it('becomes a tar with its label', async () => {
    const layer = await convert(
      await writeImage(bytes, mediaType, tar),
      plainConversion(plainFormat('none'), {codec, temporaryDirectory: tmpdir()}),
    )
    expect(layer.mediaType).toBe(isDocker ? DOCKER_LAYER : OCI_LAYER)
    expect(Buffer.from(layer.bytes).equals(tar)).toBe(true)
  })
})

it.each([
  ['xz', Buffer.from('fd377a585a000004e6d6b446', 'hex')],
  ['bzip2', Buffer.from('425a68393141592653594eece836', 'hex')],
])('a layer in %s is refused by that name', async (name, bytes) => {
  const failure = await convert(await writeImage(bytes, OCI_LAYER_GZIP, TAR), toEstargz()).catch(
    error => error,
  )
  expect(codeOf(failure)).toBe('unsupported')
  expect(messageOf(failure)).toContain(`${name} is not supported`)
})
