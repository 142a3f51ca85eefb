// Layers are refused before they take the last descriptors.

import {readdirSync} from 'node:fs'
import {expect, it} from 'vitest'
import {readDescriptorUsage, sparingDescriptors} from '../../src/daemons/lazy-layers/descriptors.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openTestCache} from '../support/lazy-layers.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const SIZE = {deviceSize: 4096, chunkCount: 1}

/** A cache of ten layers, in a process that has `left` descriptors for them beside those that it keeps for others. */
async function cacheWith(left: number) {
  const cache = await openTestCache(await temporaryDirectory())
  for (let index = 0; index < 10; index++) {
    const record = {
      blobDigest: digestOf(String(index)),
      blobSize: 1,
      tail: Buffer.of(1),
      externalToc: undefined,
    }
    await cache.add(`a${index}`, record)
  }
  const before = readdirSync('/proc/self/fd').length
  return sparingDescriptors(cache, async () => {
    const {open} = await readDescriptorUsage()
    return {open: 2000 - 256 - left + open - before, limit: 2000}
  })
}

it('opens layers as long as there are descriptors, and says what to raise', async () => {
  await using undo = new AsyncDisposableStack()
  const cache = await cacheWith(10)
  undo.use(await cache.open('a0', SIZE))
  undo.use(await cache.open('a1', SIZE))
  undo.use(await cache.open('a2', SIZE))
  undo.use(await cache.open('a3', SIZE))
  await expect(cache.open('a4', SIZE)).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringMatching(/^Cannot open another layer: \d+ files are open, .* raise the limit/),
  })
})

it('counts layers that are being opened at once', async () => {
  await using undo = new AsyncDisposableStack()
  const cache = await cacheWith(7)
  const results = await Promise.allSettled(
    Array.from({length: 10}, (_, index) => cache.open(`a${index}`, SIZE)),
  )
  const opened = results.flatMap(result => (result.status === 'fulfilled' ? [undo.use(result.value)] : []))
  expect(opened.length).toBeLessThanOrEqual(2)
})
