import {mkdir, readdir, readFile, rmdir, truncate, utimes, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {openLayerCache} from '../../src/lib/cache/layer-cache.ts'
import {digestOf} from '../../src/lib/io/sha256.ts'
import type {LayerRecord} from '../../src/lib/layer/ports.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const record = (text: string): LayerRecord => ({
  blobDigest: digestOf(text),
  blobSize: 1000,
  tail: Buffer.from(text),
  externalToc: undefined,
})
const SIZE = {deviceSize: 8192, chunkCount: 2}

async function open(root: string, maxSize = 0) {
  return openLayerCache({root, maxSize, bootId: 'boot'})
}

describe('the cache of layers', () => {
  it('keeps what a layer needs to be opened again, across restarts', async () => {
    const root = await temporaryDirectory()
    const first = await open(root)
    expect(await first.find('a1')).toBeUndefined()
    await first.add('a1', {...record('one'), externalToc: Buffer.from('toc')})
    await first.add('a1', record('another of the same key'))
    const second = await open(root)
    expect(await second.find('a1')).toMatchObject({
      blobDigest: digestOf('one'),
      blobSize: 1000,
      tail: Buffer.from('one'),
      externalToc: Buffer.from('toc'),
    })
    expect(second.hasBlob(digestOf('one'))).toBe(true)
    expect(second.hasBlob(digestOf('two'))).toBe(false)
  })

  it('keeps chunks that were noted, and none that were only written', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    const data = await cache.open('a1', SIZE)
    await data.write(4096, [Buffer.from('abc'), Buffer.from('def')])
    await data.write(0, [Buffer.from('x')])
    data.note([1])
    await data[Symbol.asyncDispose]()
    await using again = await (await open(root)).open('a1', SIZE)
    expect([again.chunks.has(0), again.chunks.has(1)]).toEqual([false, true])
    expect(Buffer.from(await again.read(4094, 8)).toString('latin1')).toBe('\0\0abcdef')
  })

  it('believes no data of another size than the layer has', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    const data = await cache.open('a1', SIZE)
    await data.write(0, [Buffer.alloc(8192, 1)])
    data.note([0, 1])
    await data[Symbol.asyncDispose]()
    await truncate(join(root, 'a1', 'data'), 100)
    await using again = await cache.open('a1', SIZE)
    expect(again.chunks.count()).toBe(0)
    expect(await again.read(0, 8192)).toEqual(Buffer.alloc(8192))
  })

  it('lets nobody use data that have been disposed, least of all by their old descriptor', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    const data = await cache.open('a1', SIZE)
    expect(data.fd).toBeGreaterThan(2)
    const before = await readFile(data.path)
    await data[Symbol.asyncDispose]()
    await data[Symbol.asyncDispose]()
    const closed = {code: 'internal', message: expect.stringContaining('it is closed')}
    expect(() => data.fd).toThrow(expect.objectContaining(closed))
    expect(() => data.note([0])).toThrow(expect.objectContaining(closed))
    await expect(data.read(0, 1)).rejects.toMatchObject(closed)
    await expect(data.write(0, [Buffer.from('x')])).rejects.toMatchObject(closed)
    await expect(data.sync()).rejects.toMatchObject(closed)
    expect(await readFile(data.path)).toEqual(before)
  })

  it('syncs again after a sync that failed', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    await cache.add('a1', record('one'))
    await using data = await cache.open('a1', SIZE)
    data.note([0])
    const inTheWay = join(root, 'a1', 'journal.mark.new')
    await mkdir(inTheWay)
    await expect(data.sync()).rejects.toMatchObject({code: 'EISDIR'})
    await rmdir(inTheWay)
    await data.sync()
    expect(JSON.parse(await readFile(join(root, 'a1', 'journal.mark'), 'utf8'))).toMatchObject({synced: 1})
  })

  it('takes a damaged record for none, and removes it', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root)
    for (const text of ['{', '{}', '{"blobDigest":"x","blobSize":1}', '{"blobDigest":1,"blobSize":-1}']) {
      await cache.add('a1', record('one'))
      await writeFile(join(root, 'a1', 'record.json'), text)
      expect(await cache.find('a1')).toBeUndefined()
      expect(await readdir(root)).toEqual([])
    }
  })

  it('sweeps what a crash has left half-made', async () => {
    const root = await temporaryDirectory()
    await mkdir(join(root, 'new-abc'))
    await writeFile(join(root, 'new-abc', 'tail'), 'x')
    await open(root)
    expect(await readdir(root)).toEqual([])
  })

  it('makes a file that goes with a layer once', async () => {
    const cache = await open(await temporaryDirectory())
    await cache.add('a1', record('one'))
    let made = 0
    const make = async () => Buffer.from(`made ${++made}`)
    const [path] = await Promise.all([cache.file('a1', 'image', make), cache.file('a1', 'image', make)])
    expect(await cache.file('a1', 'image', make)).toBe(path)
    expect(made).toBe(1)
  })

  it('makes room by removing what was used longest ago and is not in use', async () => {
    const root = await temporaryDirectory()
    const cache = await open(root, 300_000)
    const lastUsed = async (key: string, seconds: number) =>
      utimes(join(root, key, 'record.json'), seconds, seconds)
    for (const [index, key] of ['a', 'b', 'c'].entries()) {
      await cache.add(key, record(key))
      const data = await cache.open(key, {deviceSize: 131_072, chunkCount: 1})
      await data.write(0, [Buffer.alloc(131_072, 1)])
      await data[Symbol.asyncDispose]()
      await lastUsed(key, 1000 + index)
    }
    await using _held = await cache.open('a', {deviceSize: 131_072, chunkCount: 1})
    await lastUsed('a', 1)
    await cache.add('d', record('d'))
    expect((await readdir(root)).sort()).toEqual(['a', 'c', 'd'])
  })
})
