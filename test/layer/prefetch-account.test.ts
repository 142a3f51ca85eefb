import {describe, expect, it} from 'vitest'
import {createReadLog, openReadLog} from '../../src/lib/io/read-log.ts'
import type {ChunkMap} from '../../src/lib/layer/chunk-map.ts'
import {createPrefetchAccount} from '../../src/lib/layer/prefetch-account.ts'

/** Three streams of a chunk each, of 4096, 10,000 and 100 bytes, in blocks 0, 1 to 3, and 4. */
const MAP = {
  deviceOffsets: Float64Array.of(0, 4096, 16384),
  sizes: Float64Array.of(4096, 10_000, 100),
  streamCount: 3,
  firstChunks: Uint32Array.of(0, 1, 2, 3),
  streamChunks: Uint32Array.of(0, 1, 2),
} as ChunkMap

describe('what was prefetched for nothing', () => {
  it('is all of it at first, without what others have fetched', () => {
    const account = createPrefetchAccount(MAP, createReadLog(5))
    expect(account.unread()).toBe(0)
    account.add({first: 1, last: 2})
    account.add({first: 2, last: 2})
    expect(account.unread()).toBe(10_100)
  })

  it('becomes less with every block that is read, in whatever thread', () => {
    const log = createReadLog(5)
    const account = createPrefetchAccount(MAP, log)
    account.add({first: 0, last: 2})
    const elsewhere = openReadLog(structuredClone(log.memory))
    elsewhere.note(1, 2, true)
    expect(account.unread()).toBe(4096 + (10_000 - 2 * 4096) + 100)
    elsewhere.note(1, 4, false)
    expect(account.unread()).toBe(4096)
    log.note(0, 0, true)
    expect(account.unread()).toBe(0)
    expect(log.hits()).toBe(2)
  })
})
