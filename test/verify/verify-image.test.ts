import {gzipSync, zstdCompressSync} from 'node:zlib'
import {beforeEach, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER_FOREIGN,
  OCI_LAYER_GZIP,
  OCI_LAYER_ZSTD,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'
import {verifyImage} from '../../src/lib/verify/verify-image.ts'
import {buildBlob} from '../support/layers.ts'
import {type MemoryContent, memoryContent} from '../support/memory-content.ts'
import {tarOf, writeBlob} from '../support/sample-image.ts'

const TAR = tarOf({'a.txt': 'a\n'})

let content: MemoryContent

beforeEach(() => {
  content = memoryContent()
})

async function verify(root: Descriptor) {
  const source = {
    name: 'an image',
    content,
    resolve: async () => root,
    [Symbol.asyncDispose]: async () => {},
  }
  return verifyImage(source, {codec: createBulkCodec(), platforms: 'all'})
}

/** An image of one sound layer and perhaps others, with changes of the documents. */
async function writeImage(
  changes: {readonly layer?: object; readonly config?: object; readonly more?: readonly Descriptor[]} = {},
): Promise<Descriptor> {
  const {bytes, descriptor, diffId} = await buildBlob(TAR)
  await writeBlob(content, bytes)
  const {more = []} = changes
  const diffIds = [diffId, ...more.map(({digest}) => digest)]
  const config = await writeBlob(
    content,
    encodeJson({architecture: 'amd64', os: 'linux', rootfs: {type: 'layers', diff_ids: diffIds}}),
    OCI_CONFIG,
  )
  const manifest = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: {...config, ...changes.config},
    layers: [{...descriptor, ...changes.layer}, ...more],
  }
  return writeBlob(content, encodeJson(manifest), OCI_MANIFEST)
}

/** What is found in an image: of its documents, and of each of its layers. */
async function findings(root: Descriptor) {
  const {manifests, sound} = await verify(root)
  const kinds = manifests.flatMap(({findings: own, layers}) =>
    [own, ...layers.map(layer => layer.findings)].map(found => found.map(({kind}) => kind)),
  )
  expect(sound).toBe(kinds.every(found => found.length === 0))
  return kinds
}

describe('embedded data', () => {
  const base64 = (text: string) => Buffer.from(text).toString('base64')

  it('that are the contents are sound', async () => {
    const root = await writeImage()
    const {config} = JSON.parse(String(content.blobs.get(root.digest)))
    const data = Buffer.from(content.blobs.get(config.digest)!).toString('base64')
    expect(await findings(await writeImage({config: {data}}))).toEqual([[], []])
  })

  it.each([
    ['other bytes', base64('other')],
    ['no base64', '!'],
  ])('that are %s are found, of configs, layers and manifests', async (_, data) => {
    expect(await findings(await writeImage({config: {data}}))).toEqual([['descriptor'], []])
    expect(await findings(await writeImage({layer: {data}}))).toEqual([[], ['descriptor']])
    const manifest = {...(await writeImage()), data, platform: {os: 'linux', architecture: 'amd64'}}
    const index = {schemaVersion: 2, mediaType: OCI_INDEX, manifests: [manifest]}
    expect(await findings(await writeBlob(content, encodeJson(index), OCI_INDEX))).toEqual([
      ['descriptor'],
      [],
    ])
  })
})

describe('a media type', () => {
  it.each([
    ['gzip labelled zstd', gzipSync(TAR), OCI_LAYER_ZSTD, 'gzip'],
    ['zstd labelled gzip', zstdCompressSync(TAR), OCI_LAYER_GZIP, 'zstd'],
    ['a tar labelled gzip', TAR, OCI_LAYER_GZIP, 'not compressed'],
  ])('that is wrong is found: %s', async (_, bytes, mediaType, words) => {
    const layer = await writeBlob(content, bytes, mediaType)
    const {manifests} = await verify(await writeImage({more: [layer]}))
    expect(manifests[0]!.layers[1]!.findings).toContainEqual({
      kind: 'media-type',
      message: `The media type is "${mediaType}", but the bytes are ${words}`,
    })
  })
})

describe('a foreign layer', () => {
  const foreign = {mediaType: OCI_LAYER_FOREIGN, digest: digestOf('foreign'), size: 7}

  it('that is here is sound', async () => {
    await writeBlob(content, Buffer.from('foreign'))
    expect(await findings(await writeImage({more: [foreign]}))).toEqual([[], [], []])
  })
  it('that is elsewhere is sound', async () =>
    expect(await findings(await writeImage({more: [{...foreign, urls: ['https://x']}]}))).toEqual([
      [],
      [],
      [],
    ]))
  it('that is nowhere is missing', async () => {
    const {manifests} = await verify(await writeImage({more: [foreign]}))
    expect(manifests[0]!.layers[1]!.findings).toEqual([
      {kind: 'blob', message: `Cannot find ${foreign.digest} in memory`},
    ])
  })
})

it('an artifact, such as a Helm chart, is no image that could be sound', async () => {
  const config = await writeBlob(content, Buffer.from('{}'), 'application/vnd.cncf.helm.config.v1+json')
  const chart = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: []}
  const failure = await verify(await writeBlob(content, encodeJson(chart), OCI_MANIFEST)).catch(
    error => error,
  )
  expect(codeOf(failure)).toBe('unsupported')
  expect(messageOf(failure)).toContain(
    'it is no container image, but an artifact of type "application/vnd.cncf',
  )
})
