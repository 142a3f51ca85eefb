import {describe, expect, it} from 'vitest'
import {openLayer} from '../../src/lib/estargz/open-layer.ts'
import {chunkAt, chunksIn, chunksOfStream, mapChunks} from '../../src/lib/layer/chunk-map.ts'
import {layOutDevice} from '../../src/lib/layer/toc-tree.ts'
import {convertTar} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {archive, member} from '../support/tar.ts'

async function mapOf(
  sizes: Readonly<Record<string, number>>,
  options: Parameters<typeof convertTar>[1] = {},
) {
  const members = Object.entries(sizes).map(([name, size]) => member({name}, Buffer.alloc(size, name)))
  const {bytes} = await convertTar(archive(...members), options)
  const open = await openLayer(memoryBlob(bytes), {where: 'the layer'})
  const layout = layOutDevice(open.files.values())
  return {open, layout, map: mapChunks(layout, 'the layer', true)}
}

describe('the map of a layer', () => {
  it('places files at whole blocks, in the order of the blob, and chunks within them', async () => {
    const {layout, map} = await mapOf({a: 5000, b: 1, c: 0, d: 8192}, {chunkSize: 4000})
    expect(layout.files.map(({file, deviceOffset}) => [file.path, deviceOffset])).toEqual([
      ['a', 0],
      ['b', 8192],
      ['d', 12_288],
    ])
    expect(layout.size).toBe(20_480)
    expect([...map.deviceOffsets]).toEqual([0, 4000, 8192, 12_288, 16_288, 20_288])
    expect([...map.sizes]).toEqual([4000, 1000, 1, 4000, 4000, 192])
  })

  it('puts prioritised files first, whatever the order of the tar', async () => {
    const {layout} = await mapOf({a: 10, b: 10, c: 10}, {prioritizedPaths: ['c']})
    expect(layout.files.map(({file}) => file.path)).toEqual(['c', 'a', 'b'])
  })

  it('gives a layer without data a device of one block', async () => {
    const {layout, map} = await mapOf({a: 0})
    expect(layout.size).toBe(4096)
    expect(map).toMatchObject({count: 0, streamCount: 0})
    expect(chunksIn(map, 0, 4096)).toEqual({first: 0, last: -1})
  })

  it('refuses a layer that claims to hold more than any does', async () => {
    const {open} = await mapOf({a: 10, b: 10})
    const absurd = [...open.files.values()].map(file => ({
      ...file,
      entry: {...file.entry, size: 2 ** 39 + 1},
    }))
    expect(() => layOutDevice(absurd)).toThrow('too large')
  })

  it('finds chunks by what is read, none in the padding between files', async () => {
    const {map} = await mapOf({a: 5000, b: 1}, {chunkSize: 4000})
    expect(chunkAt(map, 0)).toBe(0)
    expect(chunkAt(map, 3999)).toBe(0)
    expect(chunkAt(map, 4000)).toBe(1)
    expect(chunksIn(map, 0, 1)).toEqual({first: 0, last: 0})
    expect(chunksIn(map, 3999, 2)).toEqual({first: 0, last: 1})
    expect(chunksIn(map, 5000, 3192)).toEqual({first: 2, last: 1})
    expect(chunksIn(map, 5000, 3193)).toEqual({first: 2, last: 2})
  })

  it('knows the chunks of a stream that holds several files', async () => {
    const {map} = await mapOf({a: 10, b: 20, c: 30}, {minChunkSize: 1000})
    expect(map.streamCount).toBe(1)
    expect([...chunksOfStream(map, 0)]).toEqual([0, 1, 2])
    expect(map.streamSizes[0]).toBe(map.innerOffsets[2]! + 30)
  })

  it('refuses chunks without digests, unless nothing is to be verified', async () => {
    const {layout} = await mapOf({a: 10})
    const files = layout.files.map(({file, deviceOffset}) => ({
      deviceOffset,
      file: {...file, chunks: file.chunks.map(chunk => ({...chunk, digest: undefined}))},
    }))
    expect(() => mapChunks({...layout, files}, 'the layer', true)).toThrow('"a" has a chunk without a digest')
    expect(mapChunks({...layout, files}, 'the layer', false).hashes).toBeUndefined()
  })

  it('refuses a stream too large to be held in memory, and asks for no more of a stream than it can have', async () => {
    const {layout} = await mapOf({a: 10})
    const withChunk = (change: object) => ({
      ...layout,
      files: layout.files.map(({file, deviceOffset}) => ({
        deviceOffset,
        file: {...file, chunks: file.chunks.map(chunk => ({...chunk, ...change}))},
      })),
    })
    expect(() => mapChunks(withChunk({innerOffset: 2 ** 40}), 'the layer', true)).toThrow('lazily')
    const map = mapChunks(withChunk({offset: 0, end: 2 ** 40}), 'the layer', true)
    expect(map.streamEnds[0]).toBeLessThan(1 << 20)
  })
})
