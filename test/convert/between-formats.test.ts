import {tmpdir} from 'node:os'
// Every format as the source of every other one: nothing of the files is lost on the way.

import {beforeEach, describe, expect, it} from 'vitest'
import {decompressStream} from '../../src/lib/blob/decompress.ts'
import {type ConvertedImage, convertImage, type LayerConversion} from '../../src/lib/convert/convert-image.ts'
import {lazyConversion, samePaths} from '../../src/lib/convert/lazy-conversion.ts'
import {plainConversion} from '../../src/lib/convert/plain-conversion.ts'
import {isLandmark, TOC_NAME} from '../../src/lib/estargz/landmark.ts'
import {openTocImage, writeTocImage} from '../../src/lib/external-toc/toc-image.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {isLazyAnnotation} from '../../src/lib/oci/annotations.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {ImageSource, Store} from '../../src/lib/oci/image-store.ts'
import {verifyImage} from '../../src/lib/verify/verify-image.ts'
import {ESTARGZ, plainFormat, ZSTD_CHUNKED} from '../support/formats.ts'
import {entriesOf} from '../support/layers.ts'
import {writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const layers = [
  {'bin/app': 'app\n', 'etc/config': 'config\n', 'var/data': 'data '.repeat(20_000), empty: ''},
  {'etc/other': 'other\n'},
]

let store: Store
let original: Descriptor
let conversions: Readonly<Record<string, LayerConversion>>

beforeEach(async () => {
  const directory = await temporaryDirectory()
  store = await openLocalStore(directory)
  original = (await writeSampleImage(store.content, {layers})).root
  const codec = createBulkCodec()
  const common = {
    codec,
    temporaryDirectory: directory,
    prioritizedIn: () => samePaths(['var/data']),
  }
  const estargz = {...ESTARGZ, chunkSize: 30_000}
  const zstdChunked = {...ZSTD_CHUNKED, chunkSize: 30_000}
  conversions = {
    estargz: lazyConversion(estargz, common),
    'estargz with a minimum': lazyConversion({...estargz, chunkSize: 1000, minChunkSize: 400}, common),
    'estargz, external TOC': lazyConversion({...estargz, toc: 'outside'}, common),
    'zstd:chunked': lazyConversion(zstdChunked, common),
    'zstd:chunked for stargz': lazyConversion({...zstdChunked, dialect: 'stargz'}, common),
    zstd: plainConversion(plainFormat('zstd'), {codec, temporaryDirectory: tmpdir()}),
    gzip: plainConversion(plainFormat('gzip'), {codec, temporaryDirectory: tmpdir()}),
    uncompressed: plainConversion(plainFormat('none'), {codec, temporaryDirectory: tmpdir()}),
  }
})

const isLazy = (format: string) => /:|estargz/.test(format)

function imageAt(root: Descriptor): ImageSource {
  return {
    name: 'the image',
    content: store.content,
    resolve: async () => root,
    [Symbol.asyncDispose]: async () => {},
  }
}

async function convert(root: Descriptor, layers: LayerConversion): Promise<ConvertedImage> {
  const target = {...imageAt(root), publish: async () => {}}
  return convertImage(imageAt(root), target, {platforms: 'all', oci: true, layers, parallelLayers: 2})
}

/** Everything in the layers of an image but what formats add, in the order of paths. */
async function filesOf({manifests}: ConvertedImage): Promise<unknown[]> {
  const files: unknown[] = []
  for (const {descriptor} of manifests[0]!.layers) {
    await using blob = await store.content.open(descriptor)
    const parts: Uint8Array[] = []
    for await (const part of decompressStream(blob.stream(), 'the layer')) parts.push(part)
    const tar = Buffer.concat(parts)
    const own = entriesOf(tar).filter(({path}) => !isLandmark(path) && path !== TOC_NAME)
    for (const {path, mode, size, headerOffset, headerSize} of own) {
      const start = headerOffset + headerSize
      files.push([path, mode, tar.subarray(start, start + size).toString()])
    }
  }
  return files.sort()
}

async function expectSound(image: ConvertedImage): Promise<void> {
  let tocs: Descriptor | undefined
  await writeTocImage({...imageAt(image.root), publish: async root => void (tocs = root)}, image.manifests)
  const verified = await verifyImage(imageAt(image.root), {
    codec: createBulkCodec(),
    platforms: 'all',
    tocs: openTocImage(imageAt(tocs!)),
  })
  expect(verified.manifests.flatMap(manifest => manifest.layers.flatMap(({findings}) => findings))).toEqual(
    [],
  )
}

describe.each([
  'estargz',
  'estargz with a minimum',
  'estargz, external TOC',
  'zstd:chunked',
  'zstd:chunked for stargz',
  'zstd',
  'gzip',
  'uncompressed',
])('from %s', from => {
  it('into every format', async () => {
    const source = await convert(original, conversions[from]!)
    const files = await filesOf(source)
    expect(files).toHaveLength(5)
    for (const [to, conversion] of Object.entries(conversions)) {
      const image = await convert(source.root, conversion)
      expect(await filesOf(image), to).toEqual(files)
      const annotations = image.manifests[0]!.layers.map(({descriptor}) => descriptor.annotations ?? {})
      for (const keys of annotations.map(Object.keys))
        expect(keys.some(isLazyAnnotation), to).toBe(isLazy(to))
      if (isLazy(to)) await expectSound(image)
      else expect(diffIdsOf(image), to).toEqual(diffIdsOf(source))
    }
  })
})

const diffIdsOf = (image: ConvertedImage) => image.manifests[0]!.layers.map(({diffId}) => diffId)
