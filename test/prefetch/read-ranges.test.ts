import {describe, expect, it} from 'vitest'
import {chunkBounds, mergeReadRanges} from '../../src/lib/prefetch/read-ranges.ts'
import {createRandom} from '../support/random.ts'

const KB = 1024
const read = (offset: number, end: number, atMs = 0) => ({offset, end, atMs})

describe('what is read of a file', () => {
  it('is told by its parts, each read when its first byte was', () => {
    expect(mergeReadRanges([read(8, 12, 5), read(0, 4, 9), read(4, 8, 7), read(20, 24, 1)])).toEqual([
      read(0, 12, 5),
      read(20, 24, 1),
    ])
    expect(mergeReadRanges([read(3, 3)])).toEqual([])
  })
})

describe('the chunks of a file', () => {
  it('are as large as they may be where nothing is known', () => {
    expect(chunkBounds(0, 100)).toEqual([0])
    expect(chunkBounds(100, 100)).toEqual([0, 100])
    expect(chunkBounds(250, 100)).toEqual([0, 100, 200, 250])
  })

  it('end where what is read does, and what the kernel reads around it', () => {
    expect(chunkBounds(1000 * KB, 4096 * KB, [read(108 * KB, 284 * KB)])).toEqual([
      0,
      100 * KB,
      300 * KB,
      1000 * KB,
    ])
    expect(chunkBounds(1000 * KB, 150 * KB, [read(108 * KB, 284 * KB)])).toEqual(
      [0, 100, 250, 300, 450, 600, 750, 900, 1000].map(bound => bound * KB),
    )
    expect(chunkBounds(1000 * KB, 4096 * KB, [read(500 * KB, 501 * KB)])).toEqual([
      0,
      492 * KB,
      524 * KB,
      1000 * KB,
    ])
  })

  it('do not end where little would be saved', () => {
    expect(chunkBounds(1000 * KB, 4096 * KB, [read(30 * KB, 980 * KB)])).toEqual([0, 1000 * KB])
    expect(chunkBounds(1000 * KB, 4096 * KB, [read(0, 84 * KB), read(128 * KB, 184 * KB)])).toEqual([
      0,
      200 * KB,
      1000 * KB,
    ])
  })

  it('cover the file, whatever is read', () => {
    for (let seed = 1; seed <= 2000; seed++) {
      const random = createRandom(seed)
      const size = random(3_000_000)
      const reads = Array.from({length: random(40)}, () => {
        const offset = random(Math.max(1, size))
        return read(offset, Math.min(size, offset + random(200_000)), random(100))
      })
      const chunkSize = 1 + random(1_000_000)
      const bounds = chunkBounds(size, chunkSize, reads)
      expect(bounds[0]).toBe(0)
      expect(bounds.at(-1)).toBe(size)
      for (const [index, end] of bounds.entries()) {
        const part = index === 0 ? 1 : end - bounds[index - 1]!
        expect(part > 0 && part <= chunkSize, `seed ${seed}`).toBe(true)
      }
    }
  })
})
