import {gunzipSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import type {Compressor} from '../../src/lib/compression/layer-format.ts'
import type {ConvertedBlob, ConvertLayerOptions} from '../../src/lib/convert/convert-layer.ts'
import {estargzCompressor, externalTocCompressor} from '../../src/lib/estargz/compressor.ts'
import {type OpenLayer, openLayer, readFile} from '../../src/lib/estargz/open-layer.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {encodePrefetchPlan, PREFETCH_PLAN, parsePrefetchPlan} from '../../src/lib/prefetch/prefetch-plan.ts'
import type {LayerReads} from '../../src/lib/prefetch/read-ranges.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {zstdChunkedCompressor} from '../../src/lib/zstdchunked/compressor.ts'
import {buildBlob, convertTar} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {createRandom} from '../support/random.ts'
import {archive, directory, member} from '../support/tar.ts'

const KB = 1024

function noise(size: number, seed: number): Uint8Array {
  const random = createRandom(seed)
  return Uint8Array.from({length: size}, () => random(256))
}

const LARGE = noise(500 * KB, 1)
const SMALL = noise(3 * KB, 2)
const TAR = archive(
  directory('d/'),
  member({name: 'd/unread'}, noise(50 * KB, 3)),
  member({name: 'd/large'}, LARGE),
  member({name: 'small'}, SMALL),
  member({name: 'link', typeflag: '1', linkName: 'd/large'}),
)

const READS: LayerReads = new Map([
  ['small', [{offset: 0, end: 3 * KB, atMs: 0}]],
  [
    'd/large',
    [
      {offset: 400 * KB, end: 440 * KB, atMs: 5},
      {offset: 0, end: 100 * KB, atMs: 700},
    ],
  ],
])

type Made = ConvertedBlob & {readonly bytes: Uint8Array}

function planOf({descriptor}: ConvertedBlob) {
  return parsePrefetchPlan(descriptor.annotations![PREFETCH_PLAN]!)
}

/** What a reader sees who has nothing but what the plan names: zeros elsewhere. */
function plannedOnly(layer: Made): Uint8Array {
  const bytes = new Uint8Array(layer.bytes.length)
  for (const {offset, end} of planOf(layer)) bytes.set(layer.bytes.subarray(offset, end), offset)
  return bytes
}

async function open(layer: Made): Promise<OpenLayer> {
  const {descriptor, detachedToc} = layer
  return openLayer(memoryBlob(layer.bytes), {
    where: 'the layer',
    annotations: descriptor.annotations,
    externalToc: detachedToc && gunzipTar(detachedToc),
  })
}

/** The TOC in the archive of a detached one. */
function gunzipTar(detachedToc: Uint8Array): Uint8Array {
  const tar = gunzipSync(detachedToc)
  return tar.subarray(512, 512 + Number.parseInt(tar.toString('latin1', 124, 135), 8))
}

async function contents(layer: OpenLayer, path: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for await (const part of readFile(layer, layer.files.get(path)!)) parts.push(part)
  return Buffer.concat(parts)
}

const FORMATS: readonly [string, Compressor, Partial<ConvertLayerOptions>][] = [
  ['eStargz', estargzCompressor(6), {}],
  ['eStargz with streams of several chunks', estargzCompressor(6), {minChunkSize: 30 * KB}],
  ['eStargz whose TOC is elsewhere', externalTocCompressor(6, {lossless: false}), {}],
  ['eStargz that keeps its DiffID', externalTocCompressor(6, {lossless: true}), {lossless: true}],
  ['zstd:chunked', zstdChunkedCompressor(3, 'podman'), {}],
]

describe.each(FORMATS)('the prefetch plan of %s', (_, compressor, more) => {
  const build = (options: Partial<ConvertLayerOptions> = {}) =>
    buildBlob(TAR, {compressor, prioritizedPaths: ['small', 'd/large'], reads: READS, ...more, ...options})

  it('brings all that is read, and not much more', async () => {
    const layer = await build()
    const bytes = plannedOnly(layer)
    const whole = await open(layer)
    const planned = {...whole, blob: memoryBlob(bytes)}
    expect(Buffer.compare(await contents(planned, 'small'), SMALL)).toBe(0)
    for (const {offset, end} of READS.get('d/large')!) {
      const chunks = whole.files.get('d/large')!.chunks
      const read = chunks.filter(chunk => chunk.chunkOffset < end && chunk.chunkOffset + chunk.size > offset)
      expect(read.length).toBeGreaterThan(0)
      for (const {chunkOffset} of read) {
        const parts: Uint8Array[] = []
        for await (const part of readFile(planned, {
          ...whole.files.get('d/large')!,
          chunks: chunks.filter(chunk => chunk.chunkOffset === chunkOffset),
        }))
          parts.push(part)
        const part = Buffer.concat(parts)
        expect(Buffer.compare(part, LARGE.subarray(chunkOffset, chunkOffset + part.length))).toBe(0)
      }
    }
    const size = planOf(layer).reduce((sum, {offset, end}) => sum + end - offset, 0)
    expect(size).toBeGreaterThan(143 * KB)
    expect(size).toBeLessThan(230 * KB)
    expect(Buffer.compare(await contents(whole, 'd/large'), LARGE)).toBe(0)
  })

  it('is in the order of time', async () => {
    const layer = await build()
    const times = planOf(layer).map(({atMs}) => atMs)
    expect(times).toEqual([...times].sort((a, b) => a - b))
    expect(new Set(times)).toEqual(new Set([0, 5, 700].filter(atMs => times.includes(atMs))))
    expect(times[0]).toBe(0)
  })

  it('fits the layer, which verify checks', async () => {
    const layer = await build()
    const options = {
      codec: createBulkCodec(),
      diffId: layer.diffId,
      externalToc: layer.detachedToc && gunzipTar(layer.detachedToc),
    }
    const verify = (plan: string) => {
      const annotations = {...layer.descriptor.annotations, [PREFETCH_PLAN]: plan}
      return verifyLayer(memoryBlob(layer.bytes), {...layer.descriptor, annotations}, options)
    }
    const whole = layer.descriptor.annotations![PREFETCH_PLAN]!
    expect((await verify(whole)).findings).toEqual([])
    expect((await verify('1.')).findings).toEqual([])
    const [first] = planOf(layer)
    for (const [plan, message] of [
      [encodePrefetchPlan([{offset: first!.offset + 1, end: first!.end, atMs: 0}]), /are no streams/],
      [encodePrefetchPlan([{offset: first!.offset, end: first!.end - 1, atMs: 0}]), /are no streams/],
      [encodePrefetchPlan([{offset: 0, end: layer.bytes.length, atMs: 0}]), /are no streams/],
      ['1.gA', /does not end/],
      ['2.', /another version/],
    ] as const) {
      expect((await verify(plan)).findings).toEqual([
        {kind: 'prefetch-plan', message: expect.stringMatching(message)},
      ])
    }
  })

  it('is the same for the same input, and so is the layer', async () => {
    const [a, b] = [await build(), await build()]
    expect(b.descriptor).toEqual(a.descriptor)
  })

  it('is empty where nothing is read, and not there where nothing is known', async () => {
    expect(planOf(await build({reads: new Map()}))).toEqual([])
    expect(planOf(await build({reads: new Map([['gone', READS.get('small')!]])}))).toEqual([])
    expect((await build({reads: undefined})).descriptor.annotations).not.toHaveProperty([PREFETCH_PLAN])
  })

  it('is of what a hard link leads to', async () => {
    const reads = new Map([['link', READS.get('d/large')!]])
    expect(planOf(await build({reads})).length).toBeGreaterThan(0)
  })
})

describe('a layer that is converted again', () => {
  it('keeps no plan of what it was', async () => {
    const first = await convertTar(TAR, {prioritizedPaths: ['small'], reads: READS})
    const again = await convertTar(first.tar, {}, {blob: first.bytes})
    expect(again.descriptor.annotations).not.toHaveProperty([PREFETCH_PLAN])
  })
})
