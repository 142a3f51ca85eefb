import {gunzipSync} from 'node:zlib'
import {beforeEach, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ConversionCache, ConversionFacts} from '../../src/lib/convert/conversion-cache.ts'
import {type ConvertedImage, convertImage} from '../../src/lib/convert/convert-image.ts'
import type {EstargzFormat} from '../../src/lib/convert/layer-format.ts'
import {
  type LayerConversionOptions,
  lazyConversion,
  samePaths,
} from '../../src/lib/convert/lazy-conversion.ts'
import {copyImage} from '../../src/lib/copy/copy-image.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import type {PlatformSelection} from '../../src/lib/image/image-tree.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {ImageSource, ImageTarget, Store} from '../../src/lib/oci/image-store.ts'
import {
  encodeJson,
  type ImageConfig,
  type ImageIndex,
  type ImageManifest,
  parseImageConfig,
} from '../../src/lib/oci/manifest.ts'
import {
  DOCKER_LAYER_FOREIGN,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_LAYER_FOREIGN,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'
import {ESTARGZ} from '../support/formats.ts'
import {readBlob, writeBlob, writeSampleImage, writeSampleIndex} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

let store: Store
let published: Descriptor | undefined

beforeEach(async () => {
  store = await openLocalStore(await temporaryDirectory())
  published = undefined
})

const source = (root: Descriptor): ImageSource => ({
  name: 'the source',
  content: store.content,
  resolve: async () => root,
  [Symbol.asyncDispose]: async () => {},
})

const target = (into = store): ImageTarget => ({
  name: 'the target',
  content: into.content,
  publish: async root => {
    published = root
  },
  [Symbol.asyncDispose]: async () => {},
})

const AMD64 = [{os: 'linux', architecture: 'amd64'}]

interface Wanted {
  readonly platforms?: PlatformSelection
  readonly oci?: boolean
  readonly paths?: readonly string[]
  readonly format?: Partial<EstargzFormat>
  readonly options?: Partial<LayerConversionOptions>
  readonly into?: Store
}

async function convert(root: Descriptor, wanted: Wanted = {}): Promise<ConvertedImage> {
  const prioritized = samePaths(wanted.paths ?? [])
  const layers = lazyConversion(
    {...ESTARGZ, ...wanted.format},
    {
      codec: createBulkCodec(),
      temporaryDirectory: await temporaryDirectory(),
      prioritizedIn: () => prioritized,
      ...wanted.options,
    },
  )
  const {platforms = AMD64, oci = true} = wanted
  return convertImage(source(root), target(wanted.into), {platforms, oci, layers, parallelLayers: 2})
}

const json = async <T>(descriptor: Descriptor) =>
  JSON.parse(String(await readBlob(store.content, descriptor))) as T
const manifestOf = (descriptor: Descriptor) => json<ImageManifest>(descriptor)
const configOf = async (manifest: ImageManifest): Promise<ImageConfig> =>
  parseImageConfig(await readBlob(store.content, manifest.config), 'config')
const failure = (work: Promise<unknown>) => work.then(() => 'no error', codeOf)

/** Names of a tar of short plain headers. */
function namesIn(tar: Buffer): string[] {
  const names: string[] = []
  for (let at = 0; tar[at] !== 0; ) {
    const name = tar.toString('latin1', at, tar.indexOf(0, at))
    names.push(name)
    at += 512 + Math.ceil(Number.parseInt(tar.toString('latin1', at + 124, at + 135), 8) / 512) * 512
  }
  return names
}

describe('a converted image', () => {
  it('has layers, DiffIDs and annotations that belong together', async () => {
    const {root} = await writeSampleImage(store.content)
    const image = await convert(root)
    expect(published).toEqual(image.root)
    const manifest = await manifestOf(image.root)
    const config = await configOf(manifest)
    for (const [index, layer] of manifest.layers.entries()) {
      const tar = gunzipSync(await readBlob(store.content, layer))
      expect(digestOf(tar)).toBe(config.rootfs.diff_ids[index])
      expect(layer.annotations!['io.containers.estargz.uncompressed-size']).toBe(String(tar.length))
      expect(layer.annotations!['containerd.io/snapshot/stargz/toc.digest']).toMatch(/^sha256:/)
    }
  })

  it('puts prioritised files first, between nothing and a landmark', async () => {
    const {root} = await writeSampleImage(store.content, {layers: [{a: '1', b: '2', c: '3'}, {d: '4'}]})
    const manifest = await manifestOf((await convert(root, {paths: ['c', 'gone']})).root)
    const layers = await Promise.all(
      manifest.layers.map(async layer => namesIn(gunzipSync(await readBlob(store.content, layer)))),
    )
    expect(layers).toEqual([
      ['c', '.prefetch.landmark', 'a', 'b', 'stargz.index.json'],
      ['.no.prefetch.landmark', 'd', 'stargz.index.json'],
    ])
  })

  it('lets a choice among the files of each layer decide', async () => {
    const {root} = await writeSampleImage(store.content, {layers: [{a: '1', b: '2'}]})
    const prioritizedIn = () => ({key: 'reverse', paths: (paths: readonly string[]) => [...paths].reverse()})
    const manifest = await manifestOf((await convert(root, {options: {prioritizedIn}})).root)
    expect(namesIn(gunzipSync(await readBlob(store.content, manifest.layers[0]!))).slice(0, 3)).toEqual([
      'b',
      'a',
      '.prefetch.landmark',
    ])
  })

  it('is the same whoever converts it, and how many layers at once', async () => {
    const {root} = await writeSampleImage(store.content)
    const first = await convert(root)
    expect((await convert(root)).root).toEqual(first.root)
  })

  it('keeps what its documents say beside layers', async () => {
    const {root} = await writeSampleImage(store.content)
    const manifest = {...(await manifestOf(root)), annotations: {kept: 'yes'}, unknown: [1]}
    const annotated = await writeBlob(store.content, encodeJson(manifest), OCI_MANIFEST)
    const converted = await manifestOf((await convert(annotated)).root)
    expect(converted).toMatchObject({annotations: {kept: 'yes'}, unknown: [1]})
    expect((await configOf(converted)).config).toEqual({Cmd: ['/bin/true']})
  })

  it('keeps Docker media types, or turns them into OCI ones', async () => {
    const {root} = await writeSampleImage(store.content, {family: 'docker'})
    const docker = await manifestOf((await convert(root, {oci: false})).root)
    expect([docker.mediaType, docker.config.mediaType, docker.layers[0]!.mediaType]).toEqual([
      'application/vnd.docker.distribution.manifest.v2+json',
      'application/vnd.docker.container.image.v1+json',
      'application/vnd.docker.image.rootfs.diff.tar.gzip',
    ])
    const oci = await manifestOf((await convert(root)).root)
    expect([oci.mediaType, oci.config.mediaType, oci.layers[0]!.mediaType]).toEqual([
      OCI_MANIFEST,
      OCI_CONFIG,
      'application/vnd.oci.image.layer.v1.tar+gzip',
    ])
  })

  it('forgets the image that its old layers were', async () => {
    const {root} = await writeSampleImage(store.content)
    const manifest = await manifestOf(root)
    const config = {...(await json<object>(manifest.config)), config: {Image: 'sha256:parent', Cmd: ['x']}}
    const configDescriptor = await writeBlob(store.content, encodeJson(config), OCI_CONFIG)
    const changed = await writeBlob(
      store.content,
      encodeJson({...manifest, config: configDescriptor}),
      OCI_MANIFEST,
    )
    expect((await configOf(await manifestOf((await convert(changed)).root))).config).toEqual({
      Image: '',
      Cmd: ['x'],
    })
  })

  it('has neither embedded data nor other places of the bytes of its source', async () => {
    const {root, config} = await writeSampleImage(store.content)
    const data = async (descriptor: Descriptor) =>
      (await readBlob(store.content, descriptor)).toString('base64')
    const source = await manifestOf(root)
    const layers = await Promise.all(
      source.layers.map(async layer => ({...layer, data: await data(layer), urls: ['https://x']})),
    )
    const manifest = await writeBlob(
      store.content,
      encodeJson({...source, layers, config: {...config, data: await data(config)}}),
      OCI_MANIFEST,
    )
    const entry = {...manifest, data: await data(manifest), platform: {os: 'linux', architecture: 'amd64'}}
    const index = await writeBlob(
      store.content,
      encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests: [entry]}),
      OCI_INDEX,
    )
    const image = await convert(index)
    const [converted] = (await json<ImageIndex>(image.root)).manifests
    expect(converted).toEqual({...image.manifests[0]!.descriptor, platform: entry.platform})
    const documents = await manifestOf(converted!)
    for (const descriptor of [converted!, documents.config, ...documents.layers]) {
      expect(descriptor).not.toHaveProperty('data')
      expect(descriptor).not.toHaveProperty('urls')
    }
  })

  it.each([
    ['without a place elsewhere', undefined, true, DOCKER_LAYER_FOREIGN, `${OCI_LAYER_FOREIGN}`],
    [
      'that is elsewhere too',
      ['https://x'],
      true,
      `${DOCKER_LAYER_FOREIGN}.gzip`,
      `${OCI_LAYER_FOREIGN}+gzip`,
    ],
    [
      'that is only elsewhere',
      ['https://x'],
      false,
      `${DOCKER_LAYER_FOREIGN}.gzip`,
      `${OCI_LAYER_FOREIGN}+gzip`,
    ],
  ])('keeps a foreign layer %s, under its OCI type', async (_, urls, isHere, mediaType, ociType) => {
    const {root} = await writeSampleImage(store.content)
    const manifest = await manifestOf(root)
    const bytes = Buffer.from('foreign')
    const blob = isHere
      ? await writeBlob(store.content, bytes)
      : {digest: digestOf(bytes), size: bytes.length}
    const foreign = {...blob, mediaType, ...(urls ? {urls} : {})}
    const config = await configOf(manifest)
    const diffIds = [foreign.digest, ...config.rootfs.diff_ids]
    const configDescriptor = await writeBlob(
      store.content,
      encodeJson({...config, rootfs: {type: 'layers', diff_ids: diffIds}}),
      OCI_CONFIG,
    )
    const withForeign = {...manifest, config: configDescriptor, layers: [foreign, ...manifest.layers]}
    const elsewhere = await openLocalStore(await temporaryDirectory())
    const image = await convert(await writeBlob(store.content, encodeJson(withForeign), OCI_MANIFEST), {
      into: elsewhere,
    })
    const converted: ImageManifest = JSON.parse(String(await readBlob(elsewhere.content, image.root)))
    expect(converted.layers[0]).toEqual({...foreign, mediaType: ociType})
    expect((await elsewhere.content.info(foreign)) !== undefined).toBe(isHere)
  })
})

describe('an image of several platforms', () => {
  it('keeps only the platforms that were converted', async () => {
    const {root} = await writeSampleIndex(store.content, ['amd64', 'arm64'])
    const image = await convert(root)
    const index = await json<ImageIndex>(image.root)
    expect(index.manifests.map(entry => entry.platform)).toEqual([{os: 'linux', architecture: 'amd64'}])
    expect(image.manifests.map(manifest => manifest.source)).toHaveLength(1)
  })

  it('is converted whole when asked', async () => {
    const {root} = await writeSampleIndex(store.content, ['amd64', 'arm64'])
    const index = await json<ImageIndex>((await convert(root, {platforms: 'all'})).root)
    expect(index.manifests).toHaveLength(2)
  })

  it('drops attestations, whose subject is no longer there', async () => {
    const {root} = await writeSampleIndex(store.content, ['amd64'])
    const index = await json<ImageIndex>(root)
    const attestation = {
      ...index.manifests[0]!,
      platform: {os: 'unknown', architecture: 'unknown'},
      annotations: {'vnd.docker.reference.type': 'attestation-manifest'},
    }
    const attested = await writeBlob(
      store.content,
      encodeJson({...index, manifests: [...index.manifests, attestation]}),
      OCI_INDEX,
    )
    for (const platforms of ['all', AMD64] as const) {
      const image = await convert(attested, {platforms})
      expect((await json<ImageIndex>(image.root)).manifests).toHaveLength(1)
      expect(image.droppedAttestations).toEqual([attestation])
    }
  })

  it('is refused when it is an artifact, such as a Helm chart', async () => {
    const config = await writeBlob(
      store.content,
      Buffer.from('{}'),
      'application/vnd.cncf.helm.config.v1+json',
    )
    const chart = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: []}
    const work = convert(await writeBlob(store.content, encodeJson(chart), OCI_MANIFEST))
    await expect(work).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining(
        'it is no container image, but an artifact of type "application/vnd.cncf.helm',
      ),
    })
  })

  it('names the platforms there are when the wanted one is not among them', async () => {
    const {root} = await writeSampleIndex(store.content, ['arm64'])
    await expect(convert(root)).rejects.toThrow(/linux\/amd64.*it is for linux\/arm64/)
  })

  it('converts a layer that platforms share once', async () => {
    const {root} = await writeSampleImage(store.content)
    const manifests = ['amd64', 'arm64'].map(architecture => ({
      ...root,
      platform: {os: 'linux', architecture},
    }))
    const index = await writeBlob(
      store.content,
      encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests}),
      OCI_INDEX,
    )
    let reads = 0
    const counted = {
      ...store.content,
      open: (...args: Parameters<typeof store.content.open>) => {
        if (args[0].mediaType.includes('layer')) reads++
        return store.content.open(...args)
      },
    }
    const from = {...source(index), content: counted}
    const prioritized = samePaths([])
    const layers = lazyConversion(ESTARGZ, {
      codec: createBulkCodec(),
      temporaryDirectory: await temporaryDirectory(),
      prioritizedIn: () => prioritized,
    })
    await convertImage(from, target(), {platforms: 'all', oci: true, layers, parallelLayers: 4})
    expect(reads).toBe(2)
  })
})

describe('what was converted before', () => {
  function memoryCache(): ConversionCache & {readonly facts: Map<string, ConversionFacts>} {
    const facts = new Map<string, ConversionFacts>()
    return {
      facts,
      find: async key => facts.get(key),
      remember: async (key, value) => void facts.set(key, value),
    }
  }

  it('is found again by source and options', async () => {
    const {root} = await writeSampleImage(store.content)
    const cache = memoryCache()
    const first = await convert(root, {options: {cache}})
    const second = await convert(root, {options: {cache}})
    expect(second.root).toEqual(first.root)
    expect(second.manifests[0]!.layers.map(layer => layer.reused)).toEqual([true, true])
    const other = await convert(root, {options: {cache}, paths: ['a.txt']})
    expect(other.manifests[0]!.layers.map(layer => layer.reused)).toEqual([false, false])
  })

  it('is found again with its TOC where that is outside, and converted again where the TOC is lost', async () => {
    const {root} = await writeSampleImage(store.content)
    const wanted: Wanted = {options: {cache: memoryCache()}, format: {toc: 'outside'}}
    const first = await convert(root, wanted)
    const again = await convert(root, wanted)
    expect(again.manifests[0]!.layers.map(layer => layer.reused)).toEqual([false, false])
    for (const {detachedToc} of first.manifests[0]!.layers) await writeBlob(store.content, detachedToc!)
    const third = await convert(root, wanted)
    expect(third.manifests[0]!.layers.map(layer => layer.reused)).toEqual([true, true])
    expect(third.manifests[0]!.layers.map(layer => digestOf(layer.detachedToc!))).toEqual(
      first.manifests[0]!.layers.map(layer => digestOf(layer.detachedToc!)),
    )
  })

  it('is converted again when the target has lost it', async () => {
    const {root} = await writeSampleImage(store.content)
    const cache = memoryCache()
    await convert(root, {options: {cache}})
    const gone = digestOf('gone')
    for (const [key, facts] of cache.facts)
      cache.facts.set(key, {...facts, descriptor: {...facts.descriptor, digest: gone}})
    const image = await convert(root, {options: {cache}})
    expect(image.manifests[0]!.layers.map(layer => layer.reused)).toEqual([false, false])
  })
})

describe('bad input publishes nothing', () => {
  const check = (problem: string, code: string, make: () => Promise<Descriptor>) =>
    it(`${problem} is ${code}`, async () => {
      expect(await failure(convert(await make()))).toBe(code)
      expect(published).toBeUndefined()
    })

  async function changed(
    change: (manifest: ImageManifest, config: ImageConfig) => Promise<unknown>,
  ): Promise<Descriptor> {
    const {root} = await writeSampleImage(store.content)
    const manifest = await manifestOf(root)
    return writeBlob(
      store.content,
      encodeJson(await change(manifest, await configOf(manifest))),
      OCI_MANIFEST,
    )
  }

  const withConfig = (change: (config: ImageConfig) => unknown) => () =>
    changed(async (manifest, config) => ({
      ...manifest,
      config: await writeBlob(store.content, encodeJson(change(config)), OCI_CONFIG),
    }))

  check(
    'a DiffID that is not the layer’s',
    'corrupt',
    withConfig(config => ({
      ...config,
      rootfs: {type: 'layers', diff_ids: [...config.rootfs.diff_ids].reverse()},
    })),
  )
  check(
    'a config with too few DiffIDs',
    'corrupt',
    withConfig(config => ({
      ...config,
      rootfs: {type: 'layers', diff_ids: config.rootfs.diff_ids.slice(1)},
    })),
  )
  check(
    'a config that is no JSON object',
    'corrupt',
    withConfig(() => [1]),
  )
  check('a layer that is missing', 'not-found', () =>
    changed(async manifest => ({
      ...manifest,
      layers: [{...manifest.layers[0]!, digest: digestOf('x')}, manifest.layers[1]],
    })),
  )
  check('a layer that is no gzip', 'corrupt', () =>
    changed(async manifest => ({
      ...manifest,
      layers: [
        await writeBlob(store.content, Buffer.from('not gzip'), manifest.layers[0]!.mediaType),
        manifest.layers[1],
      ],
    })),
  )
  check('a layer that is cut short', 'corrupt', () =>
    changed(async manifest => {
      const bytes = await readBlob(store.content, manifest.layers[0]!)
      const cut = await writeBlob(store.content, bytes.subarray(0, -20), manifest.layers[0]!.mediaType)
      return {...manifest, layers: [cut, manifest.layers[1]]}
    }),
  )
  check('a manifest that is an index as well', 'corrupt', () =>
    changed(async manifest => ({...manifest, manifests: []})),
  )

  it('an abort stops everything', async () => {
    const {root} = await writeSampleImage(store.content)
    const layers = {key: () => 'k', convert: async () => Promise.reject(new Error('not reached'))}
    const options = {platforms: AMD64, oci: true, layers, parallelLayers: 1, signal: AbortSignal.abort()}
    expect(await failure(convertImage(source(root), target(), options))).toBe('cancelled')
    expect(published).toBeUndefined()
  })
})

describe('copying', () => {
  const openOther = async () => openLocalStore(await temporaryDirectory())
  const present = async (other: Store, descriptors: readonly Descriptor[]) =>
    Promise.all(descriptors.map(async descriptor => (await other.content.info(descriptor)) !== undefined))

  it('copies everything under an image, and then nothing', async () => {
    const {root, layers, config} = await writeSampleImage(store.content)
    const other = await openOther()
    const options = {platforms: 'all', index: 'sparse'} as const
    const first = await copyImage(source(root), target(other), options)
    expect(await present(other, [root, config, ...layers])).toEqual([true, true, true, true])
    expect(first.copiedBytes).toBeGreaterThan(0)
    const second = await copyImage(source(root), target(other), options)
    expect([second.copiedBytes, second.presentBytes]).toEqual([0, first.copiedBytes])
  })

  it('keeps a sparse index whole, without the other platforms’ content', async () => {
    const {root, images} = await writeSampleIndex(store.content, ['amd64', 'arm64'])
    const other = await openOther()
    const copied = await copyImage(source(root), target(other), {platforms: AMD64, index: 'sparse'})
    expect(copied.root).toEqual(root)
    expect(await present(other, [images[0]!.layers[0]!, images[1]!.layers[0]!])).toEqual([true, false])
    const again = {...source(root), content: other.content}
    await expect(copyImage(again, target(), {platforms: 'all', index: 'sparse'})).rejects.toThrow(
      /linux\/arm64.*--all-platforms/,
    )
  })

  it('reduces an index to what was copied', async () => {
    const {root, images} = await writeSampleIndex(store.content, ['amd64', 'arm64', 's390x'])
    const other = await openOther()
    const one = await copyImage(source(root), target(other), {platforms: AMD64, index: 'reduced'})
    expect(one.root.digest).toBe(images[0]!.root.digest)
    const platforms = [...AMD64, {os: 'linux', architecture: 's390x'}]
    const two = await copyImage(source(root), target(other), {platforms, index: 'reduced'})
    expect(JSON.parse(String(await readBlob(other.content, two.root))).manifests).toHaveLength(2)
  })
})
