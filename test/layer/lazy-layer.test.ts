import {open} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it, onTestFinished} from 'vitest'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import {wrapChunkBitmap} from '../../src/lib/io/chunk-bitmap.ts'
import {FailureMemory} from '../../src/lib/layer/failure-memory.ts'
import {FetchQueue} from '../../src/lib/layer/fetch-queue.ts'
import type {LazyLayer} from '../../src/lib/layer/lazy-layer.ts'
import {
  fullDisk,
  lazyLayerOf,
  openTestCache,
  openTestData,
  type PreparedLayer,
  prepareLayer,
  watchedBlob,
} from '../support/lazy-layers.ts'
import {archive, directory, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const NEVER = new AbortController().signal

/** Bytes that no compressor makes small, the same for the same seed. */
function noise(size: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(size)
  let state = seed * 2654435761 + 1
  for (let index = 0; index < size; index++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    bytes[index] = state >>> 24
  }
  return bytes
}

const FILES = new Map<string, Uint8Array>([
  ['etc/one', noise(5000, 1)],
  ['etc/two', noise(3, 2)],
  ['usr/empty', new Uint8Array(0)],
  ['usr/large', noise(300_000, 3)],
  ['usr/last', noise(4096, 4)],
])

function tarOf(files: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const members = [...files].map(([name, body]) => member({name}, body))
  return archive(directory('etc/'), directory('usr/'), ...members)
}

/** Chunks of a size that fits no block, so that blocks are shared. */
const prepared: Promise<PreparedLayer> = prepareLayer(tarOf(FILES), FILES, {chunkSize: 10_000})

async function fresh(options: Parameters<typeof lazyLayerOf>[3] = {}) {
  const layer = await prepared
  const root = await temporaryDirectory()
  const cache = await openTestCache(root)
  const data = await openTestData(cache, 'a1', layer)
  const blob = watchedBlob(layer.bytes)
  return {layer, root, data, blob, lazy: lazyLayerOf(layer, data, blob, options)}
}

async function readAll(lazy: LazyLayer): Promise<Uint8Array> {
  return lazy.read(0, lazy.size, {signal: NEVER})
}

function presentBlocks(lazy: LazyLayer): number[] {
  const bitmap = wrapChunkBitmap(lazy.present, lazy.size / 4096)
  return Array.from({length: bitmap.size}, (_, index) => index).filter(index => bitmap.has(index))
}

/** Flips a bit in the middle of whatever is read of the blob's bytes around `offset`. */
const damageAt = (offset: number) => (bytes: Uint8Array, start: number) => {
  if (start <= offset && offset < start + bytes.length) bytes[offset - start]! ^= 1
  return bytes
}

describe('a lazy layer', () => {
  it('gives what the files hold, wherever a read starts and ends', async () => {
    const {layer, data, lazy} = await fresh()
    await using _ = data
    for (const [offset, length] of [
      [0, 1],
      [4095, 2],
      [8191, 5000],
      [12_000, 100_000],
      [lazy.size - 1, 1],
      [0, lazy.size],
    ] as const) {
      const bytes = await lazy.read(offset, length, {signal: NEVER})
      expect(Buffer.compare(bytes, layer.device.subarray(offset, offset + length))).toBe(0)
    }
    expect(lazy.isComplete()).toBe(true)
  })

  it('asks for nothing twice, however many read the same at once', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    const all = await Promise.all(Array.from({length: 20}, () => readAll(lazy)))
    for (const bytes of all) expect(Buffer.compare(bytes, layer.device)).toBe(0)
    const asked = blob.reads.reduce((sum, {length}) => sum + length, 0)
    expect(asked).toBe(lazy.counters().totalBytes)
    await readAll(lazy)
    expect(blob.reads.reduce((sum, {length}) => sum + length, 0)).toBe(asked)
  })

  it('marks a block when everything in it is there, not before', async () => {
    const {layer, data, lazy} = await fresh()
    await using _ = data
    expect(presentBlocks(lazy)).toEqual([])
    const last = layer.layout.files.find(({file}) => file.path === 'usr/last')!
    await lazy.read(last.deviceOffset, 1, {signal: NEVER})
    expect(presentBlocks(lazy)).toContain(last.deviceOffset / 4096)
    await readAll(lazy)
    expect(presentBlocks(lazy)).toHaveLength(lazy.size / 4096)
  })

  it('asks once more for bytes that were damaged on the way', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    let damaged = 0
    blob.behave = bytes => {
      if (damaged++ === 0) bytes[bytes.length >> 1]! ^= 1
      return bytes
    }
    expect(Buffer.compare(await readAll(lazy), layer.device)).toBe(0)
    expect(lazy.counters().errors).toBe(0)
  })

  it('shows no wrong byte: a damaged stream fails its own readers, and only while it is damaged', async () => {
    let now = 0
    const {layer, data, blob, lazy} = await fresh({failures: new FailureMemory(() => now)})
    await using _ = data
    const {map} = layer
    const broken = map.streams[3]!
    blob.behave = damageAt(map.streamOffsets[broken]! + 60)
    for (let chunk = 0; chunk < map.count; chunk++) {
      const [offset, length] = [map.deviceOffsets[chunk]!, map.sizes[chunk]!]
      const read = lazy.read(offset, length, {signal: NEVER})
      if (map.streams[chunk] === broken) await expect(read).rejects.toMatchObject({code: 'corrupt'})
      else expect(Buffer.compare(await read, layer.device.subarray(offset, offset + length))).toBe(0)
    }
    expect(lazy.counters()).toMatchObject({lastError: expect.stringContaining('the layer')})
    blob.behave = bytes => bytes
    now = 60_000
    expect(Buffer.compare(await readAll(lazy), layer.device)).toBe(0)
  })

  it('asks seldom for a stream that stays damaged, however often it is read', async () => {
    let now = 0
    const {layer, data, blob, lazy} = await fresh({failures: new FailureMemory(() => now)})
    await using _ = data
    blob.behave = damageAt(layer.map.streamOffsets[0]! + 20)
    const asked: number[] = []
    for (; now < 8_000; now += 500) {
      await expect(lazy.read(0, 1, {signal: NEVER})).rejects.toMatchObject({code: 'corrupt'})
      asked.push(blob.reads.length)
    }
    // Twice each time, because it may have been damaged on the way: at once, and after 1, 3 and 7 seconds.
    expect(asked.map(count => count - asked[0]!)).toEqual([0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 4, 4, 4, 4, 6, 6])
  })

  it('waits for a registry that comes back before the reader gives up', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    let failures = 2
    blob.behave = bytes => {
      if (failures-- > 0) throw new CodedError('unavailable', 'Cannot reach the registry')
      return bytes
    }
    expect(Buffer.compare(await readAll(lazy), layer.device)).toBe(0)
    expect(lazy.counters().errors).toBeGreaterThan(0)
  })

  it('fails with the reason when the reader gives up first, and serves what is there all the same', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    await lazy.read(0, 1, {signal: NEVER})
    const kept = await lazy.read(0, 4096, {signal: NEVER})
    blob.behave = () => {
      throw new CodedError('unavailable', 'Cannot reach the registry')
    }
    const gone = lazy.read(lazy.size - 1, 1, {signal: AbortSignal.timeout(300)})
    await expect(gone).rejects.toThrow('Cannot reach the registry')
    expect(Buffer.compare(kept, layer.device.subarray(0, 4096))).toBe(0)
    expect(Buffer.compare(await lazy.read(0, 4096, {signal: NEVER}), kept)).toBe(0)
  })

  it('lets the others wait on when one reader of the same bytes gives up', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    const gate = Promise.withResolvers<void>()
    blob.behave = async bytes => {
      await gate.promise
      return bytes
    }
    const impatient = new AbortController()
    const first = lazy.read(0, 100, {signal: impatient.signal})
    const second = lazy.read(0, 100, {signal: NEVER})
    impatient.abort()
    await expect(first).rejects.toMatchObject({name: 'AbortError'})
    gate.resolve()
    expect(Buffer.compare(await second, layer.device.subarray(0, 100))).toBe(0)
    // Nothing is asked for twice.
    const offsets = blob.reads.map(({offset}) => offset)
    expect(offsets).toEqual([...new Set(offsets)])
  })

  it('serves what it cannot keep, and says so once', async () => {
    const said: unknown[] = []
    const {layer, data} = await fresh()
    await using _ = data
    const device = await open('/dev/full', 'w')
    onTestFinished(() => device.close())
    const full = fullDisk(data, device)
    const blob = watchedBlob(layer.bytes)
    const lazy = lazyLayerOf(layer, full, blob, {onUncached: error => said.push(error)})
    expect(Buffer.compare(await readAll(lazy), layer.device)).toBe(0)
    expect(Buffer.compare(await lazy.read(5, 9000, {signal: NEVER}), layer.device.subarray(5, 9005))).toBe(0)
    expect(said).toHaveLength(1)
    expect(presentBlocks(lazy)).toEqual([])
    expect(lazy.isComplete()).toBe(false)
  })

  it('prefetches what stands before the given place of the blob, and no more', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    const end = layer.map.streamOffsets[2]!
    await lazy.prefetch(end, {signal: NEVER})
    expect(Math.min(...blob.reads.map(({offset}) => offset))).toBe(layer.map.streamOffsets[0])
    expect(data.chunks.has(0)).toBe(true)
    const needed = blob.reads.length
    await lazy.read(layer.map.deviceOffsets[0]!, 1, {signal: NEVER})
    expect(blob.reads).toHaveLength(needed)
  })

  it('prefetches what a plan names, in its order, and nothing else', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    const {streamOffsets: starts, streamEnds: ends} = layer.map
    // One at a time, so that the order shows.
    const slow = lazyLayerOf(layer, data, blob, {
      queue: new FetchQueue({prefetches: 1, backgrounds: 1, memory: 1 << 28}),
    })
    const plan = [
      {offset: starts[20]!, end: ends[22]!, atMs: 0},
      {offset: starts[3]!, end: ends[3]!, atMs: 5},
      {offset: starts[23]!, end: ends[23]!, atMs: 900},
    ]
    await slow.prefetchPlanned(plan, {signal: NEVER})
    expect(blob.reads).toEqual(plan.map(({offset, end}) => ({offset, length: end - offset})))
    expect(data.chunks.count()).toBe(5)
    await lazy.prefetchPlanned(plan, {signal: NEVER})
    expect(blob.reads).toHaveLength(3)
  })

  it('takes a plan that is not its own for what it is worth', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    const {streamOffsets: starts, streamEnds: ends} = layer.map
    // Within a stream, beyond the layer, and all of it.
    await lazy.prefetchPlanned([{offset: starts[2]! + 1, end: ends[2]!, atMs: 0}], {signal: NEVER})
    await lazy.prefetchPlanned([{offset: 2 ** 50, end: 2 ** 51, atMs: 0}], {signal: NEVER})
    expect(blob.reads).toEqual([])
    await lazy.prefetchPlanned([{offset: 0, end: 2 ** 52, atMs: 0}], {signal: NEVER})
    expect(lazy.isComplete()).toBe(true)
  })

  it('fills what is missing, tells when all is there, and passes over what is damaged', async () => {
    let completed = 0
    const {layer, data, blob, lazy} = await fresh({onComplete: () => completed++})
    await using _ = data
    const broken = layer.map.streams[2]!
    blob.behave = damageAt(layer.map.streamOffsets[broken]! + 40)
    await expect(lazy.fill({signal: NEVER})).rejects.toMatchObject({code: 'corrupt'})
    expect(data.chunks.count()).toBe(layer.map.count - 1)
    expect(completed).toBe(0)
    blob.behave = bytes => bytes
    await lazy.fill({signal: NEVER})
    expect(completed).toBe(1)
    expect(lazy.counters()).toMatchObject({keptBytes: lazy.counters().totalBytes})
  })

  it('fetches large ranges together for a reader who reads on, and few for one who jumps about', async () => {
    const size = 8 << 20
    const files = new Map([['large', noise(size, 5)]])
    const layer = await prepareLayer(tarOf(files), files, {chunkSize: 64 << 10})
    const requestsFor = async (offsets: readonly number[]) => {
      const cache = await openTestCache(join(await temporaryDirectory(), 'cache'))
      await using data = await openTestData(cache, 'a1', layer)
      const blob = watchedBlob(layer.bytes)
      const lazy = lazyLayerOf(layer, data, blob)
      let running = 0
      let most = 0
      blob.behave = async bytes => {
        most = Math.max(most, ++running)
        await new Promise(setImmediate)
        running--
        return bytes
      }
      for (const offset of offsets) {
        const bytes = await lazy.read(offset, 4096, {signal: NEVER})
        expect(Buffer.compare(bytes, layer.device.subarray(offset, offset + 4096))).toBe(0)
      }
      await lazy.close()
      const bytes = blob.reads.reduce((sum, {length}) => sum + length, 0)
      return {count: blob.reads.length, most, bytes}
    }
    const onwards = await requestsFor(Array.from({length: size / 4096}, (_, block) => block * 4096))
    expect(onwards.most).toBeGreaterThan(2)
    expect(onwards.count).toBeLessThan(20)
    const jumps = await requestsFor([7, 1, 5, 3].map(at => at << 20))
    // Around the first, before anything is known of the link, more is fetched.
    expect(jumps.count).toBeLessThan(12)
    expect(jumps.bytes).toBeLessThan(4 * (200 << 10))
  })

  it('asks a server that is far first for what a reader waits for, and then for what is around it', async () => {
    const files = new Map([['large', noise(2 << 20, 5)]])
    const layer = await prepareLayer(tarOf(files), files, {chunkSize: 16 << 10})
    const cache = await openTestCache(join(await temporaryDirectory(), 'cache'))
    await using data = await openTestData(cache, 'a1', layer)
    const blob = watchedBlob(layer.bytes)
    const lazy = lazyLayerOf(layer, data, blob)
    await lazy.read(1 << 20, 4096, {signal: NEVER})
    const [awaited, ...others] = blob.reads
    expect(awaited!.length).toBeLessThanOrEqual(64 << 10)
    expect(others.some(({offset}) => offset === awaited!.offset + awaited!.length)).toBe(true)
    expect(others.some(({offset, length}) => offset + length === awaited!.offset)).toBe(true)
    await lazy.close()
  })

  it('needs no registry for what an earlier process has fetched', async () => {
    const {layer, root, data, lazy} = await fresh()
    await readAll(lazy)
    await data[Symbol.asyncDispose]()
    await using again = await openTestData(await openTestCache(root), 'a1', layer)
    const blob = watchedBlob(layer.bytes)
    const reopened = lazyLayerOf(layer, again, blob)
    expect(presentBlocks(reopened)).toHaveLength(reopened.size / 4096)
    expect(Buffer.compare(await readAll(reopened), layer.device)).toBe(0)
    expect(blob.reads).toEqual([])
  })

  it('believes after a crash of the machine only what had been synced', async () => {
    const {layer, root, data, lazy} = await fresh()
    await lazy.read(0, 1, {signal: NEVER})
    await data.sync()
    const synced = data.chunks.count()
    await readAll(lazy)
    await data[Symbol.asyncDispose]()
    const cache = await openTestCache(root, {bootId: 'another boot'})
    await using again = await openTestData(cache, 'a1', layer)
    expect(again.chunks.count()).toBe(synced)
    expect(
      Buffer.compare(await readAll(lazyLayerOf(layer, again, watchedBlob(layer.bytes))), layer.device),
    ).toBe(0)
  })

  it('is right in every layout, for random reads against a registry that fails at random', async () => {
    let refused = 0
    let served = 0
    for (const options of [{}, {chunkSize: 1000}, {minChunkSize: 20_000}, {chunkSize: 7, minChunkSize: 50}]) {
      const files = new Map([...FILES].map(([name, bytes]) => [name, bytes.subarray(0, 20_000)]))
      const layer = await prepareLayer(tarOf(files), files, options)
      const cache = await openTestCache(join(await temporaryDirectory(), 'cache'))
      const blob = watchedBlob(layer.bytes)
      const random = noise(4000, Object.keys(options).length + 9)
      let at = 0
      let damaged = 0
      const before = refused
      blob.behave = bytes => {
        const what = random[at++ % random.length]! % 8
        if (what === 0) refused++
        if (what === 0) throw new CodedError('permission-denied', 'Not today')
        if (what === 1) damaged++
        if (what === 1) bytes[bytes.length >> 1]! ^= 0xff
        return bytes
      }
      const failed: Record<string, number> = {}
      for (let round = 0; round < 60; round++) {
        // A new one each time, because a layer as small as this is here after one request.
        await using data = await openTestData(cache, `a${round}`, layer)
        const lazy = lazyLayerOf(layer, data, blob)
        const offset = (random[at++ % random.length]! * 997) % lazy.size
        const length = Math.min(lazy.size - offset, 1 + random[at++ % random.length]! * 50)
        try {
          const bytes = await lazy.read(offset, length, {signal: NEVER})
          expect(Buffer.compare(bytes, layer.device.subarray(offset, offset + length))).toBe(0)
          served++
        } catch (error) {
          if (!(error instanceof CodedError)) throw error
          failed[error.code] = (failed[error.code] ?? 0) + 1
        }
      }
      // As many as were refused, and no other: one that is damaged is asked for once more, and then right or refused.
      expect(Object.keys(failed).filter(code => !['permission-denied', 'corrupt'].includes(code))).toEqual([])
      expect(failed['permission-denied'] ?? 0).toBeLessThanOrEqual(refused - before)
      expect(failed.corrupt ?? 0).toBeLessThanOrEqual(damaged / 2)
    }
    expect(refused).toBeGreaterThan(10)
    expect(served).toBeGreaterThan(100)
  })

  it('fetches nothing ahead that it cannot keep', async () => {
    const {layer, data} = await fresh()
    await using _ = data
    const device = await open('/dev/full', 'w')
    onTestFinished(() => device.close())
    const full = fullDisk(data, device)
    const blob = watchedBlob(layer.bytes)
    const lazy = lazyLayerOf(layer, full, blob)
    await expect(lazy.fill({signal: NEVER})).rejects.toMatchObject({code: 'unavailable'})
    await expect(lazy.prefetch(layer.bytes.length, {signal: NEVER})).rejects.toMatchObject({
      code: 'unavailable',
    })
  })

  it('writes nothing any more once it is closed, whoever had asked for it', async () => {
    const {layer, data, blob, lazy} = await fresh()
    await using _ = data
    const arrived = Promise.withResolvers<void>()
    const asked = Promise.withResolvers<void>()
    blob.behave = async bytes => {
      asked.resolve()
      await arrived.promise
      return bytes
    }
    const impatient = new AbortController()
    const read = lazy.read(0, 10, {signal: impatient.signal})
    await asked.promise
    impatient.abort()
    await expect(read).rejects.toMatchObject({name: 'AbortError'})
    let isClosed = false
    const closing = lazy.close().then(() => {
      isClosed = true
    })
    await new Promise(setImmediate)
    expect(isClosed).toBe(false)
    arrived.resolve()
    await closing
    const kept = data.chunks.count()
    await expect(lazy.read(layer.device.length - 1, 1, {signal: NEVER})).rejects.toMatchObject({
      code: 'cancelled',
    })
    expect(data.chunks.count()).toBe(kept)
  })
})
