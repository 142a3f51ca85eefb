// A lazy layer is closed, and its readers give up, between any two awaits of whatever goes on.

import {describe, expect, it} from 'vitest'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import type {LazyLayer} from '../../src/lib/layer/lazy-layer.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {
  lazyLayerOf,
  openTestCache,
  openTestData,
  type PreparedLayer,
  prepareLayer,
  watchedBlob,
} from '../support/lazy-layers.ts'
import {openBelow} from '../support/open-files.ts'
import {atEveryPoint, type Stage, watched} from '../support/stop-points.ts'
import {archive, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const NEVER = new AbortController().signal
const FILES = new Map(['a', 'b', 'c'].map((name, index) => [name, Buffer.alloc(9000, index + 1)]))
const prepared: Promise<PreparedLayer> = prepareLayer(
  archive(...[...FILES].map(([name, body]) => member({name}, body))),
  FILES,
  {chunkSize: 5000},
)

/** A layer whose ports are watched by `stage`; `isOver` is set when nothing may be written any more. */
async function staged(stage: Stage, root: string) {
  const layer = await prepared
  const cache = await openTestCache(root)
  const data = await openTestData(cache, 'a1', layer)
  const over = {value: false}
  const late: string[] = []
  const guarded = new Proxy(watched(stage, data, ['withFd', 'read', 'write']), {
    get: (target, name) => {
      const value = Reflect.get(target, name)
      if (typeof value !== 'function' || name === Symbol.asyncDispose) return value
      return (...args: unknown[]) => {
        if (over.value) late.push(String(name))
        return value(...args)
      }
    },
  })
  const blob = watchedBlob(layer.bytes)
  const lazy = lazyLayerOf(layer, guarded, watched(stage, blob, ['read']), {
    codec: watched(stage, createBulkCodec(), ['unpackStreams', 'inflateMember']),
  })
  return {layer, data, blob, lazy, over, late}
}

/** What a read, prefetch or fill may come to when its layer is closed, or it gives up. */
async function ended(work: Promise<unknown>): Promise<void> {
  const failure = await work.then(
    () => undefined,
    error => error,
  )
  if (failure !== undefined && failure.name !== 'AbortError')
    expect(failure).toMatchObject({code: 'cancelled'})
}

type Doing = (lazy: LazyLayer) => Promise<unknown>
const DOINGS: Readonly<Record<string, Doing>> = {
  'a read': lazy => lazy.read(0, lazy.size, {signal: NEVER}),
  'reads of the same': lazy => Promise.all([0, 1, 2].map(() => lazy.read(0, 100, {signal: NEVER}))),
  'a prefetch': lazy => lazy.prefetch(20_000, {signal: NEVER}),
  'a fill and a read': lazy =>
    Promise.all([lazy.fill({signal: NEVER}), lazy.read(5000, 10, {signal: NEVER})]),
}

describe('a lazy layer that is stopped anywhere', () => {
  for (const [name, start] of Object.entries(DOINGS)) {
    it(`ends with everything when it is closed during ${name}`, async () => {
      const root = await temporaryDirectory()
      let run = 0
      const stops = await atEveryPoint(async stage => {
        const {data, lazy, over, late, blob} = await staged(stage, `${root}/${run++}`)
        let asked = 0
        stage.on(async () => {
          await lazy.close()
          over.value = true
          asked = blob.reads.length
        })
        await ended(start(lazy))
        await stage.fault
        if (stage.fault) {
          await ended(lazy.read(0, 1, {signal: NEVER}))
          await new Promise(setImmediate)
          expect(blob.reads).toHaveLength(asked)
        }
        await lazy.close()
        await data[Symbol.asyncDispose]()
        expect(late.filter(what => what !== 'read')).toEqual([])
      })
      expect(stops).toBeGreaterThan(50)
      expect(openBelow(root)).toEqual([])
    })
  }

  it('serves the others when one reader gives up', async () => {
    const root = await temporaryDirectory()
    let run = 0
    await atEveryPoint(async stage => {
      const {layer, data, lazy} = await staged(stage, `${root}/${run++}`)
      const impatient = new AbortController()
      stage.on(async () => impatient.abort())
      const [gone, served] = [
        lazy.read(0, 12_000, {signal: impatient.signal}),
        lazy.read(100, 12_000, {signal: NEVER}),
      ]
      await ended(gone)
      expect(Buffer.compare(await served, layer.device.subarray(100, 12_100))).toBe(0)
      await lazy.close()
      await data[Symbol.asyncDispose]()
    })
    expect(openBelow(root)).toEqual([])
  })

  it('wakes readers who wait for a registry that cannot be reached', async () => {
    const root = await temporaryDirectory()
    let run = 0
    await atEveryPoint(
      async stage => {
        const {data, lazy, blob} = await staged(stage, `${root}/${run++}`)
        blob.behave = () => {
          throw new CodedError('unavailable', 'Cannot reach the registry')
        }
        stage.on(() => lazy.close())
        await expect(lazy.read(0, 1, {signal: NEVER})).rejects.toMatchObject({code: 'cancelled'})
        await stage.fault
        await data[Symbol.asyncDispose]()
      },
      {crossings: 2},
    )
    expect(openBelow(root)).toEqual([])
  })
})
