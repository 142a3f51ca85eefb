import {gzipSync} from 'node:zlib'
import {beforeEach, describe, expect, it} from 'vitest'
import {describeExplanation, linesOfExplanation} from '../../src/cli/explain-report.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ConvertLayerOptions} from '../../src/lib/convert/convert-layer.ts'
import {explainImage} from '../../src/lib/explain/explain-image.ts'
import {adviceFor, costsOf, totalsOfImage} from '../../src/lib/explain/start-costs.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {PREFETCH_PLAN} from '../../src/lib/prefetch/prefetch-plan.ts'
import {parseProfile} from '../../src/lib/record/profile-file.ts'
import {buildBlob} from '../support/layers.ts'
import {type MemoryContent, memoryContent} from '../support/memory-content.ts'
import {createRandom} from '../support/random.ts'
import {writeBlob} from '../support/sample-image.ts'
import {archive, member} from '../support/tar.ts'

const KB = 1024
const LINK = {delayMs: 10, mbit: 200}

function noise(size: number, seed: number): Uint8Array {
  const random = createRandom(seed)
  return Uint8Array.from({length: size}, () => random(256))
}

const TAR = archive(
  member({name: 'large'}, noise(400 * KB, 1)),
  member({name: 'small'}, noise(10 * KB, 2)),
  member({name: 'unread'}, noise(200 * KB, 3)),
)
const READS = new Map([
  ['small', [{offset: 0, end: 10 * KB, atMs: 4}]],
  ['large', [{offset: 0, end: 100 * KB, atMs: 300}]],
])

let content: MemoryContent
beforeEach(() => {
  content = memoryContent()
})

async function lazyLayer(options: Partial<ConvertLayerOptions>): Promise<Descriptor> {
  const {bytes, descriptor} = await buildBlob(TAR, options)
  await writeBlob(content, bytes, descriptor.mediaType)
  return descriptor
}

async function explain(layers: readonly Descriptor[], profile?: string) {
  const diffIds = layers.map(() => digestOf('any'))
  const config = encodeJson({
    architecture: 'amd64',
    os: 'linux',
    rootfs: {type: 'layers', diff_ids: diffIds},
  })
  const root = await writeBlob(
    content,
    encodeJson({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config: await writeBlob(content, config, OCI_CONFIG),
      layers,
    }),
    OCI_MANIFEST,
  )
  const source = {name: 'an image', content, resolve: async () => root, [Symbol.asyncDispose]: async () => {}}
  return await explainImage(source, {
    platforms: 'all',
    profile: profile === undefined ? undefined : parseProfile(Buffer.from(profile), 'it'),
  })
}

const textsOf = (image: Awaited<ReturnType<typeof explain>>) =>
  adviceFor(image, totalsOfImage(image), bytes => `${bytes} B`).map(({text}) => text)

const PRIORITIZED = {prioritizedPaths: ['small', 'large']}

describe('what a start fetches', () => {
  it('is what the plan names, and less than the files', async () => {
    const layer = await lazyLayer({...PRIORITIZED, reads: READS})
    const image = await explain([layer])
    const [explained] = image.layers
    expect(explained).toMatchObject({format: 'eStargz', problem: undefined, missedBytes: 0, wastedBytes: 0})
    expect(explained!.planBytes).toBeGreaterThan(110 * KB)
    expect(explained!.planBytes).toBeLessThan(160 * KB)
    expect(explained!.prefetchBytes).toBe(explained!.planBytes)
    expect(explained!.landmarkBytes).toBeGreaterThan(410 * KB)
    expect(explained!.tocBytes).toBeGreaterThan(0)
    expect(explained!.files.map(({path, firstMs}) => [path, firstMs])).toEqual([
      ['large', 300],
      ['small', 4],
    ])
    expect(explained!.files[0]!.prefetchBytes).toBeLessThan(explained!.files[0]!.storedBytes / 2)
    expect(textsOf(image)).toEqual([
      expect.stringMatching(/^A start fetches \d+ B of the \d+ B of its files: \d+.%\.$/),
    ])
  })

  it('is whole files where there is no plan, or a damaged one', async () => {
    const {annotations, ...layer} = await lazyLayer({...PRIORITIZED, reads: READS})
    for (const plan of [undefined, '1.gA']) {
      const own = {...annotations, ...(plan ? {[PREFETCH_PLAN]: plan} : {})}
      if (!plan) delete own[PREFETCH_PLAN]
      const image = await explain([{...layer, annotations: own}])
      expect(image.layers[0]!.plan).toBeUndefined()
      expect(image.layers[0]!.prefetchBytes).toBe(image.layers[0]!.landmarkBytes)
      expect(textsOf(image)).toContainEqual(expect.stringMatching(/^Whole files are fetched before a start/))
    }
  })

  it('is nothing of what nobody has optimized, and all of what cannot be read lazily', async () => {
    const plain = await writeBlob(content, gzipSync(TAR), OCI_LAYER_GZIP)
    const image = await explain([await lazyLayer({}), plain])
    expect(image.layers.map(({prefetchBytes}) => prefetchBytes)).toEqual([0, 0])
    expect(image.layers[1]).toMatchObject({format: undefined, problem: expect.stringContaining('footer')})
    expect(totalsOfImage(image).unlazyBytes).toBe(plain.size)
    expect(textsOf(image)).toEqual([
      expect.stringMatching(/^1 of 2 layers are pulled whole/),
      expect.stringMatching(/^Nothing says what a start reads/),
    ])
    expect(textsOf(await explain([plain]))).toEqual([expect.stringMatching(/^No layer can be read lazily/)])
  })

  it('is not to be lazy where it is nearly everything', async () => {
    const paths = ['small', 'large', 'unread']
    const reads = new Map(paths.map(path => [path, [{offset: 0, end: 2 ** 30, atMs: 0}]]))
    const image = await explain([await lazyLayer({prioritizedPaths: paths, reads})])
    expect(textsOf(image)).toContainEqual(
      expect.stringMatching(/^Do not pull this image lazily: \d+.% of it/),
    )
  })

  it('is compared with a profile: what is missed, and what is wasted', async () => {
    const layer = await lazyLayer({...PRIORITIZED, reads: READS})
    const same = await explain(
      [layer],
      '{"path":"small","reads":[[0,10240,1]]}\n{"path":"large","reads":[[0,102400,2]]}',
    )
    expect(totalsOfImage(same)).toMatchObject({missedBytes: 0, wastedBytes: 0})
    expect(textsOf(same)).toContainEqual('All that the profile reads is prefetched.')
    const other = await explain([layer], '{"path":"unread"}')
    expect(totalsOfImage(other)).toMatchObject({
      missedBytes: other.layers[0]!.files.find(({path}) => path === 'unread')!.storedBytes,
      wastedBytes: other.layers[0]!.prefetchBytes,
    })
    expect(textsOf(other)).toContainEqual(
      expect.stringMatching(/^What the profile reads is not all prefetched/),
    )
    expect(textsOf(other)).toContainEqual(expect.stringMatching(/are prefetched and not read/))
  })

  it('costs bytes and round trips', () => {
    const totals = {
      imageBytes: 100e6,
      tocBytes: 1e6,
      unlazyBytes: 0,
      landmarkBytes: 9e6,
      prefetchBytes: 3e6,
      readBytes: 0,
      missedBytes: 0,
      wastedBytes: 0,
    }
    expect(costsOf(totals, LINK)).toEqual({fullS: 4.06, landmarkS: 0.5, prefetchS: 0.24})
  })

  it('is told in lines, beside another image where one is given', async () => {
    const image = await explain([await lazyLayer({...PRIORITIZED, reads: READS})])
    const report = describeExplanation('app:1', image, LINK)
    const lines = linesOfExplanation({...report, against: {...report, name: 'app:0'}})
    expect(lines[0]).toMatch(/^app:1 linux\/amd64 sha256:/)
    expect(lines[1]).toMatch(/^against app:0 sha256:/)
    expect(lines).toContainEqual(
      expect.stringMatching(/^fetched before a start +\d+\.\d KiB {3}against \d+\.\d KiB$/),
    )
    expect(lines.at(-1)).toMatch(/^transfer times are estimates for 10 ms each way, 200 Mbit\/s/)
  })
})
