import {tmpdir} from 'node:os'
import {gunzipSync, gzipSync} from 'node:zlib'
import {beforeEach, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {type ConvertedImage, convertImage, type LayerConversion} from '../../src/lib/convert/convert-image.ts'
import {lazyConversion, samePaths} from '../../src/lib/convert/lazy-conversion.ts'
import {plainConversion} from '../../src/lib/convert/plain-conversion.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import {encodeJson, type ImageManifest} from '../../src/lib/oci/manifest.ts'
import {
  DOCKER_LAYER,
  OCI_CONFIG,
  OCI_LAYER,
  OCI_LAYER_GZIP,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'
import {ESTARGZ, plainFormat} from '../support/formats.ts'
import {readBlob, tarOf, writeBlob, writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

let store: Store
const codec = createBulkCodec()
const layers = [{'a.txt': 'a\n', 'large.bin': 'x'.repeat(9_000_000)}, {'b.txt': 'b\n'}]

beforeEach(async () => {
  store = await openLocalStore(await temporaryDirectory())
})

async function convert(root: Descriptor, conversion: LayerConversion, oci = true): Promise<ConvertedImage> {
  const nothing = async () => {}
  const image = {name: 'an image', content: store.content, [Symbol.asyncDispose]: nothing}
  const source = {...image, resolve: async () => root}
  const target = {...image, publish: nothing}
  return convertImage(source, target, {platforms: 'all', oci, layers: conversion, parallelLayers: 2})
}

const toEstargz = async () =>
  lazyConversion(ESTARGZ, {
    codec,
    temporaryDirectory: await temporaryDirectory(),
    prioritizedIn: () => samePaths(['b.txt']),
  })

const manifestOf = async ({root}: ConvertedImage): Promise<ImageManifest> =>
  JSON.parse(String(await readBlob(store.content, root)))

async function contentsOf(image: ConvertedImage): Promise<Buffer[]> {
  const {layers} = await manifestOf(image)
  return Promise.all(layers.map(async layer => Buffer.from(await readBlob(store.content, layer))))
}

describe('an uncompressed image', () => {
  it('has the tars as they were, and the config byte for byte', async () => {
    const {root, config} = await writeSampleImage(store.content, {layers})
    const image = await convert(
      root,
      plainConversion(plainFormat('none'), {codec, temporaryDirectory: tmpdir()}),
    )
    const manifest = await manifestOf(image)
    expect(manifest.layers.map(({mediaType}) => mediaType)).toEqual([OCI_LAYER, OCI_LAYER])
    expect(manifest.config).toEqual(config)
    const tars = layers.map(tarOf)
    expect((await contentsOf(image)).map(digestOf)).toEqual(tars.map(digestOf))
    expect(image.manifests[0]?.layers.map(({diffId}) => diffId)).toEqual(tars.map(digestOf))
  })

  it('keeps the Docker family', async () => {
    const {root} = await writeSampleImage(store.content, {layers, family: 'docker'})
    const image = await convert(
      root,
      plainConversion(plainFormat('none'), {codec, temporaryDirectory: tmpdir()}),
      false,
    )
    expect((await manifestOf(image)).layers[0]?.mediaType).toBe(DOCKER_LAYER)
  })

  it('is the source itself where that has no compression', async () => {
    const {root} = await writeSampleImage(store.content, {layers, compression: 'none'})
    const image = await convert(
      root,
      plainConversion(plainFormat('none'), {codec, temporaryDirectory: tmpdir()}),
    )
    expect(image.root).toEqual(root)
    expect(image.manifests[0]?.layers.every(({reused}) => reused)).toBe(true)
  })

  it('of eStargz says no more how to read it lazily, and keeps its TOC as a file', async () => {
    const {root} = await writeSampleImage(store.content, {layers})
    const lazy = await convert(root, await toEstargz())
    const back = await convert(
      lazy.root,
      plainConversion(plainFormat('none'), {codec, temporaryDirectory: tmpdir()}),
    )
    expect((await manifestOf(back)).layers.map(({annotations}) => annotations)).toEqual([
      undefined,
      undefined,
    ])
    const unpacked = (await contentsOf(lazy)).map(blob => digestOf(gunzipSync(blob)))
    expect((await contentsOf(back)).map(digestOf)).toEqual(unpacked)
    expect(String((await contentsOf(back))[1])).toContain('stargz.index.json')
  })
})

describe('a plain gzip image', () => {
  it('of an uncompressed one decompresses to the same tars, the large one in several members', async () => {
    const {root, config} = await writeSampleImage(store.content, {layers, compression: 'none'})
    const image = await convert(
      root,
      plainConversion(plainFormat('gzip'), {codec, temporaryDirectory: tmpdir()}),
    )
    const manifest = await manifestOf(image)
    expect(manifest.config).toEqual(config)
    expect(manifest.layers.map(({mediaType}) => mediaType)).toEqual([OCI_LAYER_GZIP, OCI_LAYER_GZIP])
    const tars = (await contentsOf(image)).map(blob => digestOf(gunzipSync(blob)))
    expect(tars).toEqual(layers.map(files => digestOf(tarOf(files))))
  })

  it('of eStargz is compressed anew, of plain gzip copied', async () => {
    const {root, layers: sources} = await writeSampleImage(store.content, {layers})
    const plain = plainConversion(plainFormat('gzip'), {codec, temporaryDirectory: tmpdir()})
    expect((await manifestOf(await convert(root, plain))).layers).toEqual(sources)
    const lazy = await convert(root, await toEstargz())
    const back = await convert(lazy.root, plain)
    const {layers: converted} = await manifestOf(back)
    expect(converted.map(({annotations}) => annotations)).toEqual([undefined, undefined])
    const unpack = async (image: ConvertedImage) =>
      (await contentsOf(image)).map(blob => digestOf(gunzipSync(blob)))
    expect(await unpack(back)).toEqual(await unpack(lazy))
  })
})

describe('a source that is damaged', () => {
  const failure = async (root: Descriptor) =>
    convert(root, plainConversion(plainFormat('none'), {codec, temporaryDirectory: tmpdir()})).then(
      () => 'no failure',
      codeOf,
    )

  async function imageOf(blob: Uint8Array, diffId = digestOf(tarOf(layers[1]!))): Promise<Descriptor> {
    const layer = await writeBlob(store.content, blob, OCI_LAYER_GZIP)
    const rootfs = {type: 'layers', diff_ids: [diffId]}
    const config = await writeBlob(
      store.content,
      encodeJson({architecture: 'amd64', os: 'linux', rootfs}),
      OCI_CONFIG,
    )
    const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer]}
    return writeBlob(store.content, encodeJson(manifest), OCI_MANIFEST)
  }

  it('is corrupt when it is cut short', async () => {
    expect(await failure(await imageOf(gzipSync(tarOf(layers[1]!)).subarray(0, -9)))).toBe('corrupt')
  })

  it('is corrupt when it does not have its DiffID', async () => {
    expect(await failure(await imageOf(gzipSync(tarOf(layers[1]!)), digestOf('other')))).toBe('corrupt')
  })
})
