// Lazy pulls between content stores in memory; the snapshotter is one that mounts what it is told to.

import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {CodedError, codeOf} from '../../src/lib/errors/coded-error.ts'
import type {ContentStore} from '../../src/lib/oci/content-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {ImageTarget} from '../../src/lib/oci/image-store.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {parsePlatform} from '../../src/lib/oci/platform.ts'
import {announceImage, readAhead} from '../../src/lib/rpull/announce-image.ts'
import {
  type LayerSnapshots,
  type LazyPullOptions,
  type PulledLayer,
  pullLazily,
  type UnpackRequest,
} from '../../src/lib/rpull/lazy-pull.ts'
import {type MemoryContent, memoryContent} from '../support/memory-content.ts'
import {writeBlob} from '../support/sample-image.ts'

const TOC = {'containerd.io/snapshot/stargz/toc.digest': digestOf('toc')}
const REMOTE = {'containerd.io/snapshot/remote': 'remote snapshot'}

/** A layer of the images here: what it says it is, and what the snapshotter does with it. */
type Kind = 'lazy' | 'plain' | 'refused' | 'unpacked'

interface TestImage {
  readonly content: MemoryContent
  readonly root: Descriptor
  readonly config: Descriptor
  readonly layers: readonly Descriptor[]
}

async function makeImage(
  kinds: readonly Kind[],
  content = memoryContent(),
  architecture = 'amd64',
): Promise<TestImage> {
  const layers: Descriptor[] = []
  for (const [index, kind] of kinds.entries()) {
    const blob = await writeBlob(content, Buffer.from(`${architecture} ${index}`), OCI_LAYER_GZIP)
    layers.push(kind === 'plain' || kind === 'unpacked' ? blob : {...blob, annotations: TOC})
  }
  const rootfs = {type: 'layers', diff_ids: layers.map(({digest}) => digestOf(digest))}
  const config = await writeBlob(content, encodeJson({architecture, os: 'linux', rootfs}), OCI_CONFIG)
  const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers}
  return {content, root: await writeBlob(content, encodeJson(manifest), OCI_MANIFEST), config, layers}
}

interface Pull {
  readonly target: MemoryContent
  readonly published: Descriptor[]
  readonly layers: PulledLayer[]
  /** The digests of everything that was fetched, in order. */
  readonly fetched: string[]
  /** What the snapshotter was asked. */
  readonly unpacked: UnpackRequest[]
  readonly unpack: (request: UnpackRequest) => Promise<void>
  run(options?: Partial<LazyPullOptions>): ReturnType<typeof pullLazily>
}

/** A pull of `root` from `content` into an empty store. */
function preparePull(content: ContentStore, root: Descriptor, kinds: readonly Kind[]): Pull {
  const target = memoryContent()
  const [prepared, published]: [Descriptor[], Descriptor[]] = [[], []]
  const layers: PulledLayer[] = []
  const fetched: string[] = []
  const unpacked: Pull['unpacked'] = []
  const image: ImageTarget = {
    name: 'target',
    content: target,
    async prepare(descriptor) {
      expect(published).toEqual([])
      expect(target.blobs.has(descriptor.digest), 'the manifest is there').toBe(true)
      prepared.push(descriptor)
    },
    async publish(descriptor) {
      expect(prepared).toEqual([descriptor])
      published.push(descriptor)
    },
    async [Symbol.asyncDispose]() {},
  }
  const unpack = async (request: UnpackRequest): Promise<void> => {
    unpacked.push(request)
    for (const [index, layer] of request.manifest.layers.entries()) {
      const kind = kinds[index]
      if (kind === 'lazy' || kind === 'unpacked') {
        request.onLayer?.(index, {kind: 'present', labels: kind === 'lazy' ? REMOTE : {}})
        continue
      }
      await request.contentReady?.(layer, index)
      expect(target.blobs.has(layer.digest), `layer ${index} is there when it is applied`).toBe(true)
      request.onLayer?.(index, {kind: 'applied'})
    }
    await request.contentReady?.(request.manifest.config, 'config')
    expect(target.blobs.has(request.manifest.config.digest)).toBe(true)
  }
  return {
    target,
    published,
    layers,
    fetched,
    unpacked,
    unpack,
    run: options =>
      pullLazily(
        {name: 'source', content, resolve: async () => root, async [Symbol.asyncDispose]() {}},
        image,
        {
          platforms: [parsePlatform('linux/amd64')],
          reference: 'example.com/app:1',
          skipContentVerify: false,
          snapshots: {
            name: 'stargz',
            isRemote: true,
            unpack,
            announce: async () => {},
            explain: async () => undefined,
          },
          onFetch: ({digest}) => fetched.push(digest),
          onLayer: layer => layers.push(layer),
          ...options,
        },
      ),
  }
}

async function pullOf(kinds: readonly Kind[]): Promise<TestImage & {readonly pull: Pull}> {
  const image = await makeImage(kinds)
  return {...image, pull: preparePull(image.content, image.root, kinds)}
}

describe('the announcement of an image', () => {
  const layerOf = (labels: Readonly<Record<string, string>>) =>
    labels['containerd.io/snapshot/remote/stargz.digest']

  /** What is told a snapshotter of an image, when its content goes to `to`. */
  async function announced(
    {content, root}: Pick<TestImage, 'content' | 'root'>,
    {to = memoryContent(), isRemote = true, fails = false} = {},
  ): Promise<Readonly<Record<string, string>>[]> {
    const told: Readonly<Record<string, string>>[] = []
    const snapshots: LayerSnapshots = {
      name: 'stargz',
      isRemote,
      unpack: () => Promise.reject(new Error('asked to unpack')),
      explain: () => Promise.reject(new Error('asked for a reason')),
      announce: async labels => void told.push(labels),
    }
    const source = {name: 'source', content, resolve: async () => root, async [Symbol.asyncDispose]() {}}
    const platforms = [parsePlatform('linux/amd64')]
    await announceImage(readAhead(source, {platforms}), {
      platforms,
      reference: 'example.com/app:1',
      skipContentVerify: false,
      snapshots: fails ? Promise.reject(new Error('there is no snapshotter')) : Promise.resolve(snapshots),
      content: to,
    })
    return told
  }

  it('names the first layer that can be lazy, and those above it', async () => {
    const image = await makeImage(['plain', 'lazy', 'lazy'])
    const told = await announced(image)
    expect(told.map(layerOf)).toEqual([image.layers[1]!.digest])
    expect(told[0]).toMatchObject(TOC)
    expect(told[0]!['containerd.io/snapshot/remote/stargz.layers']).toBe(
      image.layers
        .slice(1)
        .map(({digest}) => digest)
        .join(','),
    )
  })

  it('is not made for what cannot be lazy, and not for an image that is here', async () => {
    expect(await announced(await makeImage(['plain', 'plain']))).toEqual([])
    const image = await makeImage(['lazy'])
    expect(await announced(image, {isRemote: false})).toEqual([])
    expect(await announced(image, {to: image.content})).toEqual([])
  })

  it('fails nobody', async () => {
    const image = await makeImage(['lazy'])
    expect(await announced(image, {fails: true})).toEqual([])
    expect(await announced({content: memoryContent(), root: image.root})).toEqual([])
  })
})

describe('a lazy pull', () => {
  it('fetches the manifest and the config, and no layer that the snapshotter mounts', async () => {
    const {pull, root, config, layers} = await pullOf(['lazy', 'lazy', 'lazy'])
    const pulled = await pull.run()
    expect(pull.fetched).toEqual([root.digest, config.digest])
    expect([...pull.target.blobs.keys()].sort()).toEqual([root.digest, config.digest].sort())
    expect(pull.published).toEqual([root])
    expect(pulled.layers.map(({state}) => state)).toEqual(['lazy', 'lazy', 'lazy'])
    expect(pulled.layers.map(({descriptor}) => descriptor)).toEqual(layers)
  })

  it('tells the snapshotter of every layer which image it belongs to', async () => {
    const {pull, layers} = await pullOf(['lazy', 'lazy'])
    await pull.run()
    expect(pull.unpacked[0]!.layerLabels?.(1)).toMatchObject({
      'containerd.io/snapshot/remote/stargz.reference': 'example.com/app:1',
      'containerd.io/snapshot/remote/stargz.digest': layers[1]!.digest,
    })
  })

  it('fetches what cannot be lazy, says why, and leaves the rest to the snapshotter', async () => {
    const {pull, layers} = await pullOf(['plain', 'lazy', 'plain', 'lazy'])
    await pull.run()
    expect(pull.layers.map(({index, state}) => [index, state])).toEqual([
      [0, 'fetched'],
      [1, 'lazy'],
      [2, 'fetched'],
      [3, 'lazy'],
    ])
    expect(pull.layers[0]!.reason).toMatch(/neither eStargz nor zstd:chunked/)
    expect(pull.fetched).not.toContain(layers[1]!.digest)
    expect(pull.fetched).not.toContain(layers[3]!.digest)
  })

  it('gives the reason of the snapshotter where it has one, and its name where not', async () => {
    const {pull, layers} = await pullOf(['refused', 'refused'])
    const {unpack} = pull
    await pull.run({
      snapshots: {
        name: 'stargz',
        isRemote: true,
        unpack,
        announce: async () => {},
        explain: async layer => (layer.digest === layers[0]!.digest ? 'it is haunted' : undefined),
      },
    })
    expect(pull.layers[0]!.reason).toBe('it is haunted')
    expect(pull.layers[1]!.reason).toMatch(/"stargz" did not mount it/)
  })

  it('asks no snapshotter for reasons that mounts nothing by itself', async () => {
    const {pull} = await pullOf(['refused'])
    const {unpack} = pull
    const explain = () => Promise.reject(new Error('asked'))
    await pull.run({
      snapshots: {name: 'overlayfs', isRemote: false, unpack, announce: async () => {}, explain},
    })
    expect(pull.layers[0]!.reason).toMatch(/"overlayfs" mounts no layers by itself/)
  })

  it('tells layers that were unpacked before from lazy ones', async () => {
    const {pull} = await pullOf(['unpacked', 'lazy'])
    expect((await pull.run()).layers.map(({state}) => state)).toEqual(['present', 'lazy'])
    expect(pull.fetched).toHaveLength(2)
  })

  it('reads each document once, the index too, and keeps the index whole', async () => {
    const content = memoryContent()
    const images = [await makeImage(['lazy'], content), await makeImage(['lazy'], content, 'arm64')]
    const manifests = images.map(({root}, index) => ({
      ...root,
      platform: {os: 'linux', architecture: index === 0 ? 'amd64' : 'arm64'},
    }))
    const root = await writeBlob(
      content,
      encodeJson({schemaVersion: 2, mediaType: OCI_INDEX, manifests}),
      OCI_INDEX,
    )
    const pull = preparePull(content, root, ['lazy'])
    await pull.run()
    expect(pull.fetched).toEqual([root.digest, images[0]!.root.digest, images[0]!.config.digest])
    expect(pull.target.blobs.size).toBe(3)
    expect(pull.published).toEqual([root])
    const all = preparePull(content, root, ['lazy'])
    await all.run({platforms: 'all'})
    expect(all.unpacked).toHaveLength(2)
    expect(all.target.blobs.size).toBe(5)
  })

  it('publishes nothing when a layer cannot be fetched, and stops the other fetches', async () => {
    const {content, root, layers} = await makeImage(['plain', 'plain', 'plain'])
    const stopped: string[] = []
    const broken: ContentStore = {
      ...content,
      async open(descriptor, call) {
        if (descriptor.digest === layers[0]!.digest) throw new CodedError('unavailable', 'Cannot read it')
        if (!layers.some(({digest}) => digest === descriptor.digest)) return content.open(descriptor, call)
        const blob = await content.open(descriptor, call)
        return {
          ...blob,
          async *stream({signal} = {}) {
            await new Promise(resolve => signal?.addEventListener('abort', resolve, {once: true}))
            stopped.push(descriptor.digest)
            signal?.throwIfAborted()
          },
        }
      },
    }
    const pull = preparePull(broken, root, ['plain', 'plain', 'plain'])
    expect(codeOf(await pull.run().catch(error => error))).toBe('unavailable')
    expect(pull.published).toEqual([])
    expect(stopped.sort()).toEqual([layers[1]!.digest, layers[2]!.digest].sort())
  })

  it('stops fetching a layer ahead when the snapshotter mounts it after all', async () => {
    const {content, root, layers} = await makeImage(['refused', 'lazy', 'refused'])
    const stopped: string[] = []
    const slow: ContentStore = {
      ...content,
      async open(descriptor, call) {
        const blob = await content.open(descriptor, call)
        if (descriptor.digest !== layers[1]!.digest) return blob
        return {
          ...blob,
          async *stream({signal} = {}) {
            await new Promise(resolve => signal?.addEventListener('abort', resolve, {once: true}))
            stopped.push(descriptor.digest)
            signal?.throwIfAborted()
          },
        }
      },
    }
    const pull = preparePull(slow, root, ['refused', 'lazy', 'refused'])
    await pull.run()
    expect(pull.layers.map(({state}) => state)).toEqual(['fetched', 'lazy', 'fetched'])
    expect(stopped).toEqual([layers[1]!.digest])
    expect(pull.target.blobs.has(layers[1]!.digest)).toBe(false)
  })

  it('takes no document for another', async () => {
    const {content, root, config} = await makeImage(['lazy'])
    const lying: ContentStore = {
      ...content,
      open: descriptor =>
        content.open(descriptor.digest === config.digest ? {...descriptor, digest: root.digest} : descriptor),
    }
    const pull = preparePull(lying, root, ['lazy'])
    expect(codeOf(await pull.run().catch(error => error))).toBe('corrupt')
    expect(pull.published).toEqual([])
  })
})
