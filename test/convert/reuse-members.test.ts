// Converting a layer that is eStargz already: members that stay as they are move, and the output is the same as if it had
// been made of a plain layer.

import {readdirSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {gunzipSync, gzipSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {
  type ConvertedBlob,
  type ConvertLayerOptions,
  convertLayer,
} from '../../src/lib/convert/convert-layer.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {estargzCompressor} from '../../src/lib/estargz/compressor.ts'
import {encodeFooter, FOOTER_SIZE, parseFooter} from '../../src/lib/estargz/footer.ts'
import {openLayer} from '../../src/lib/estargz/open-layer.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {createNodeCodec} from '../../src/lib/native/node-codec.ts'
import {TOC_DIGEST} from '../../src/lib/oci/annotations.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {OCI_LAYER} from '../../src/lib/oci/media-type.ts'
import {zstdChunkedCompressor} from '../../src/lib/zstdchunked/compressor.ts'
import {type ConvertedTar, convertTar, entriesOf} from '../support/layers.ts'
import {memoryBlob, memoryContent} from '../support/memory-content.ts'
import {createRandom} from '../support/random.ts'
import {archive, directory, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const codec = createBulkCodec()
const text = (index: number, size: number) =>
  `${index} is what this file is about. `.repeat(size).slice(0, size * 9)

/** Two hundred files of many sizes, and one of several chunks. */
const TAR = archive(
  directory('d/'),
  ...Array.from({length: 200}, (_, index) => member({name: `d/${index}`}, text(index, (index * 37) % 900))),
  member({name: 'large'}, text(7, 90_000)),
)

/** A tar as a zstd:chunked layer. */
async function convertZstd(tar: Uint8Array, options: Partial<ConvertLayerOptions>) {
  const source = {bytes: tar, descriptor: descriptorOf(tar, OCI_LAYER), diffId: digestOf(tar)}
  return again(source, options)
}

function descriptorOf(bytes: Uint8Array, mediaType: string): Descriptor {
  return {mediaType, digest: digestOf(bytes), size: bytes.length}
}

/** Converts a converted layer again, as it is in an image: with its annotations. */
async function again(
  layer: Pick<ConvertedTar, 'bytes' | 'descriptor' | 'diffId'>,
  options: Partial<ConvertLayerOptions> = {},
): Promise<ConvertedBlob & {readonly bytes: Uint8Array}> {
  const content = memoryContent()
  await using writer = await content.write({mediaType: layer.descriptor.mediaType})
  await writer.write(layer.bytes)
  await writer.commit(layer.descriptor)
  const result = await convertLayer(
    {content, descriptor: layer.descriptor, diffId: layer.diffId},
    {
      codec,
      compressor: estargzCompressor(6),
      target: content,
      family: 'oci',
      temporaryDirectory: tmpdir(),
      ...options,
    },
  )
  return {...result, bytes: content.blobs.get(result.descriptor.digest)!}
}

describe('converting eStargz again', () => {
  it('with nothing changed moves all members but the first', async () => {
    const layer = await convertTar(TAR)
    const result = await again(layer)
    expect(result.descriptor).toEqual(layer.descriptor)
    expect(result.counts.members - result.counts.movedMembers).toBeLessThanOrEqual(2)
  })
  it('in another order compresses only what has other neighbours', async () => {
    const prioritizedPaths = ['d/150', 'large', 'd/3', 'd/151']
    const expected = await convertTar(TAR, {prioritizedPaths, chunkSize: 100_000})
    const result = await again(await convertTar(TAR, {chunkSize: 100_000}), {
      prioritizedPaths,
      chunkSize: 100_000,
    })
    expect(result.descriptor).toEqual(expected.descriptor)
    const {members, movedMembers} = result.counts
    expect(members - movedMembers).toBeLessThanOrEqual(3 * (prioritizedPaths.length + 1))
    expect(movedMembers).toBeGreaterThan(180)
  })
  it('with a minimum size of streams moves those that come out the same', async () => {
    const random = createRandom(1)
    const files = Array.from({length: 300}, (_, index) => {
      const body = Uint8Array.from({length: random(1000)}, () => random(256))
      return member({name: `d/${index}`}, body)
    })
    const tar = archive(...files)
    const [minChunkSize, prioritizedPaths] = [1000, ['d/3']]
    const expected = await convertTar(tar, {minChunkSize, prioritizedPaths})
    const result = await again(await convertTar(tar, {minChunkSize}), {minChunkSize, prioritizedPaths})
    expect(result.descriptor).toEqual(expected.descriptor)
    expect(result.counts.movedMembers).toBeGreaterThan(result.counts.members / 2)
  })
  it.each([
    ['another size of chunks', {chunkSize: 50_000}],
    ['streams of several chunks', {minChunkSize: 3000}],
    ['another level', {compressor: estargzCompressor(1)}],
    ['another compressor', {codec: createNodeCodec()}],
  ])('to %s gives what a plain layer gives', async (_, options) => {
    const expected = await convertTar(TAR, options)
    expect((await again(await convertTar(TAR), options)).descriptor).toEqual(expected.descriptor)
  })
  it.each([
    ['at another level', {compressor: estargzCompressor(9)}],
    ['by another compressor', {codec: createNodeCodec()}],
  ])('that was compressed %s moves nothing', async (_, options) => {
    const result = await again(await convertTar(TAR, options))
    expect(result.counts.movedMembers).toBe(0)
    expect(result.descriptor).toEqual((await convertTar(TAR)).descriptor)
  })
  it.each(['podman', 'stargz'] as const)('as zstd:chunked of dialect %s moves its frames', async dialect => {
    const options = {compressor: zstdChunkedCompressor(3, dialect)}
    const prioritizedPaths = ['d/150', 'large', 'd/3']
    const layer = await convertZstd(TAR, options)
    const expected = await convertZstd(TAR, {...options, prioritizedPaths})
    const result = await again(layer, {...options, prioritizedPaths})
    expect(result.descriptor).toEqual(expected.descriptor)
    expect(result.counts.movedMembers).toBeGreaterThan(180)
    const other = await again(layer, {compressor: zstdChunkedCompressor(5, dialect)})
    expect(other.counts.movedMembers).toBe(0)
  })
  it('to zstd:chunked and back moves nothing, and loses nothing', async () => {
    const layer = await convertTar(TAR)
    const options = {compressor: zstdChunkedCompressor(3, 'podman')}
    const there = await again(layer, options)
    expect(there.descriptor).toEqual((await convertZstd(TAR, options)).descriptor)
    expect(there.counts.movedMembers).toBe(0)
    const back = await again(await convertZstd(TAR, options))
    expect(back.descriptor).toEqual(layer.descriptor)
  })
  it('of a layer that is too large for memory needs a place for it, and leaves it empty', async () => {
    const large = archive(member({name: 'large'}, Buffer.alloc(20 << 20, 'x y z ')), member({name: 'a'}, 'a'))
    const home = await temporaryDirectory()
    const options = {temporaryDirectory: home, chunkSize: 1 << 20, prioritizedPaths: ['a']}
    const result = await again(await convertTar(large, {chunkSize: 1 << 20}), options)
    expect(result.descriptor).toEqual((await convertTar(large, options)).descriptor)
    expect(result.counts.movedMembers).toBeGreaterThan(15)
    expect(readdirSync(home)).toEqual([])
  })
  it('stops when told to, with nothing left behind', async () => {
    const home = await temporaryDirectory()
    const abort = new AbortController()
    const layer = await convertTar(TAR)
    const onBytes = () => abort.abort()
    const work = again(layer, {temporaryDirectory: home, signal: abort.signal, onBytes})
    expect(await work.then(() => 'done', codeOf)).toBe('cancelled')
    expect(readdirSync(home)).toEqual([])
  })
})

describe('a source that misleads', () => {
  /** The layer with another TOC, and a manifest that vouches for it. */
  async function withToc(change: (json: string) => string): Promise<ConvertedTar> {
    const layer = await convertTar(TAR)
    const {tocOffset} = parseFooter(layer.bytes.subarray(-FOOTER_SIZE))!
    const toc = entriesOf(layer.tar).at(-1)!
    const start = toc.headerOffset + 512
    const json = Buffer.from(change(layer.tar.subarray(start, start + toc.size).toString()))
    const tocTar = archive(member({name: 'stargz.index.json'}, json))
    const bytes = Buffer.concat([
      layer.bytes.subarray(0, tocOffset),
      gzipSync(tocTar),
      encodeFooter(tocOffset!),
    ])
    const annotations = {...layer.descriptor.annotations, [TOC_DIGEST]: digestOf(json)}
    const descriptor = {...layer.descriptor, digest: digestOf(bytes), size: bytes.length, annotations}
    return {...layer, bytes, descriptor, diffId: digestOf(gunzipSync(bytes))}
  }

  it.each([
    [
      'about where a stream starts',
      (json: string) => json.replace(/"offset": (\d+)/, (_, at) => `"offset": ${Number(at) + 1}`),
    ],
    ['about where many streams start', (json: string) => json.replace(/"offset": (\d+)\d/g, '"offset": $15')],
    ['about all streams', (json: string) => json.replace(/"offset": \d+/g, '"offset": 1')],
  ])('%s is converted to what it holds', async (_, change) => {
    const progress: number[] = []
    const result = await again(await withToc(change), {onBytes: done => progress.push(done)})
    expect(progress).toEqual([...progress].sort((left, right) => left - right))
    expect(result.descriptor.digest).toBe((await convertTar(TAR)).descriptor.digest)
  })
  it('by bytes between its members, which unpackers end at, is corrupt', async () => {
    const layer = await convertTar(TAR)
    const {files} = await openLayer(memoryBlob(layer.bytes), {where: 'the layer'})
    const at = files.get('d/100')!.chunks[0]!.end
    const hidden = Buffer.from('hidden between members')
    const shifted = await withToc(json =>
      json.replace(
        /"offset": (\d+)/g,
        (_, offset) => `"offset": ${Number(offset) + (Number(offset) < at ? 0 : hidden.length)}`,
      ),
    )
    const {tocOffset} = parseFooter(shifted.bytes.subarray(-FOOTER_SIZE))!
    const bytes = Buffer.concat([
      shifted.bytes.subarray(0, at),
      hidden,
      shifted.bytes.subarray(at, -FOOTER_SIZE),
      encodeFooter(tocOffset! + hidden.length),
    ])
    const descriptor = {...shifted.descriptor, ...descriptorOf(bytes, shifted.descriptor.mediaType)}
    // The image says what all members decompress to, which no program makes of them.
    const work = again({...shifted, bytes, descriptor})
    expect(await work.then(() => 'done', codeOf)).toBe('corrupt')
  })
  it('by its TOC digest is converted to what it holds', async () => {
    const layer = await convertTar(TAR)
    const annotations = {...layer.descriptor.annotations, [TOC_DIGEST]: digestOf('other')}
    const result = await again({...layer, descriptor: {...layer.descriptor, annotations}})
    expect(result.descriptor).toEqual(layer.descriptor)
  })
  it('by its DiffID is corrupt', async () => {
    const work = again({...(await convertTar(TAR)), diffId: digestOf('other')})
    expect(await work.then(() => 'done', codeOf)).toBe('corrupt')
  })
  it('by a bomb behind its TOC is refused', async () => {
    const layer = await convertTar(TAR)
    const work = again(layer, {maxUncompressedSize: 100_000})
    expect(await work.then(() => 'done', codeOf)).toBe('unsupported')
  })
})
