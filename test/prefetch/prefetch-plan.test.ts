import {describe, expect, it} from 'vitest'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {
  encodePrefetchPlan,
  type PlannedRange,
  PREFETCH_PLAN,
  type PrefetchPlan,
  parsePrefetchPlan,
} from '../../src/lib/prefetch/prefetch-plan.ts'
import {createRandom} from '../support/random.ts'

const encode = (...bytes: readonly number[]) => `1.${Buffer.from(bytes).toString('base64url')}`

/** Ranges that do not touch, far apart, in a random order of time. */
function randomRanges(count: number, seed: number): PlannedRange[] {
  const random = createRandom(seed)
  let end = 0
  return Array.from({length: count}, () => {
    const offset = end + 5000 + random(2_000_000)
    end = offset + 1 + random(300_000)
    return {offset, end, atMs: random(20_000)}
  })
}

const byTime = (ranges: readonly PlannedRange[]) =>
  [...ranges].sort((a, b) => a.atMs - b.atMs || a.offset - b.offset)

function expectSound(plan: PrefetchPlan): void {
  let end = 0
  for (const range of [...plan].sort((a, b) => a.offset - b.offset)) {
    expect(range.offset).toBeGreaterThanOrEqual(end)
    expect(range.end).toBeGreaterThan(range.offset)
    end = range.end
  }
  expect(Number.isSafeInteger(end)).toBe(true)
  for (const [index, {atMs}] of plan.entries()) {
    expect(atMs).toBeGreaterThanOrEqual(plan[index - 1]?.atMs ?? 0)
  }
}

describe('a prefetch plan', () => {
  it('has the bytes that the specification says', () => {
    // At 0 ms the 10 bytes at 300, at 150 ms the 5 bytes at 0: -310 from where the first one ends.
    const plan = [
      {offset: 300, end: 310, atMs: 0},
      {offset: 10_000, end: 10_005, atMs: 150},
    ]
    expect(encodePrefetchPlan(plan)).toBe(encode(0, 0xd8, 4, 10, 0x96, 1, 0xb4, 0x97, 1, 5))
    expect(parsePrefetchPlan(encode(0, 0xd8, 4, 10, 0x96, 1, 0xb4, 0x97, 1, 5))).toEqual(plan)
    expect(parsePrefetchPlan(encode(0, 0xd8, 4, 10, 7, 0xeb, 4, 5))).toEqual([
      {offset: 300, end: 310, atMs: 0},
      {offset: 0, end: 5, atMs: 7},
    ])
    expect(encodePrefetchPlan([])).toBe('1.')
    expect(parsePrefetchPlan('1.')).toEqual([])
  })

  it('is what was encoded, in the order of time', () => {
    for (let seed = 1; seed <= 50; seed++) {
      const ranges = randomRanges(200, seed)
      expect(parsePrefetchPlan(encodePrefetchPlan(ranges)), `seed ${seed}`).toEqual(byTime(ranges))
    }
  })

  it('has as one what lies together and is read together', () => {
    const ranges = [
      {offset: 0, end: 1000, atMs: 40},
      {offset: 1500, end: 2000, atMs: 10},
      {offset: 2000, end: 3000, atMs: 900},
      {offset: 9000, end: 9100, atMs: 20},
    ]
    expect(parsePrefetchPlan(encodePrefetchPlan(ranges))).toEqual([
      {offset: 0, end: 2000, atMs: 10},
      {offset: 9000, end: 9100, atMs: 20},
      {offset: 2000, end: 3000, atMs: 900},
    ])
  })

  it('fits into a label however much is read: more is joined, and what is last is left out', () => {
    for (const count of [1000, 10_000, 100_000]) {
      const ranges = randomRanges(count, count)
      const text = encodePrefetchPlan(ranges)
      expect(PREFETCH_PLAN.length + text.length).toBeLessThanOrEqual(4096)
      const plan = parsePrefetchPlan(text)
      expectSound(plan)
      const [first] = byTime(ranges)
      expect(plan[0]!.offset).toBeLessThanOrEqual(first!.offset)
      expect(plan[0]!.end).toBeGreaterThanOrEqual(first!.end)
      expect(plan.length).toBeGreaterThan(300)
    }
  })

  it.each([
    ['nothing', ''],
    ['no version', 'AAAA'],
    ['what is no base64url', '1.AA+/'],
    ['padding', '1.AAEF=='],
    ['a number that does not end', encode(0, 0, 128)],
    ['a range that is cut off', encode(0, 0)],
    ['a number beyond 53 bits', encode(0, 0, ...Array.from({length: 8}, () => 255), 1)],
    ['a range before the start of the blob', encode(0, 1, 5)],
    ['a range without bytes', encode(0, 0, 0)],
    ['a range beyond 53 bits', encode(0, ...Array.from({length: 7}, () => 255), 15, 2)],
    ['ranges that overlap', encode(0, 0, 10, 0, 1, 10)],
    ['a start that takes longer than a day', encode(0x81, 0xb8, 0x99, 0x29, 0, 1)],
    ['more than any label', `1.${'A'.repeat(4098)}`],
  ])('is not %s', (_, text) => {
    expect(() => parsePrefetchPlan(text)).toThrow(
      expect.objectContaining({code: 'corrupt', message: expect.stringContaining('the prefetch plan')}),
    )
  })

  it('of a later version is told from what is none', () => {
    expect(() => parsePrefetchPlan('2.AAAA')).toThrow(expect.objectContaining({code: 'unsupported'}))
  })

  it('is sound or refused, whatever the bytes', () => {
    let sound = 0
    for (let seed = 1; seed <= 20_000; seed++) {
      const random = createRandom(seed)
      const bytes = Array.from({length: random(24)}, () => (random(3) > 0 ? random(40) : random(256)))
      try {
        expectSound(parsePrefetchPlan(encode(...bytes)))
        sound++
      } catch (error) {
        if (codeOf(error) !== 'corrupt') throw new Error(`seed ${seed}`, {cause: error})
      }
    }
    expect(sound).toBeGreaterThan(500)
  })

  it('is sound or refused when any part of it is damaged', () => {
    const text = encodePrefetchPlan(randomRanges(30, 7))
    for (let at = 0; at < text.length; at++) {
      for (const other of ['A', 'z', '_', '\0', '']) {
        try {
          expectSound(parsePrefetchPlan(text.slice(0, at) + other + text.slice(at + 1)))
        } catch (error) {
          expect(['corrupt', 'unsupported'], `byte ${at}`).toContain(codeOf(error))
        }
      }
    }
  })
})
