import {describe, expect, it} from 'vitest'
import {FillPace} from '../../src/lib/layer/fill-pace.ts'

const MiB = 1 << 20

/** A link of 20 ms and 25 MB/s that has been watched for a while. */
function watchedLink() {
  const clock = {now: 0}
  const pace = new FillPace(() => clock.now)
  for (let step = 0; step < 20; step++) {
    clock.now += 40
    pace.filled(MiB)
  }
  clock.now += 25
  pace.readerServed({bytes: 128 << 10, durationMs: 25, beside: 0})
  return {clock, pace}
}

describe('the pace of filling', () => {
  it('grows as long as nobody waits', () => {
    const clock = {now: 0}
    const pace = new FillPace(() => clock.now)
    const first = pace.volume
    for (let step = 0; step < 4; step++) pace.filled(MiB)
    expect(pace.volume).toBe(first + 4 * MiB)
    for (let step = 0; step < 40; step++) pace.filled(MiB)
    expect(pace.volume).toBe(16 * MiB)
  })

  it('keeps no more on its way than passes in time, while readers come', () => {
    const {pace} = watchedLink()
    expect(pace.volume).toBeLessThan(2 * MiB)
    expect(pace.volume).toBeGreaterThan(MiB / 4)
  })

  it('knows how long a request takes that is alone', () => {
    const {pace} = watchedLink()
    expect(pace.expectedMs(0)).toBeGreaterThan(15)
    expect(pace.expectedMs(0)).toBeLessThan(25)
    expect(pace.expectedMs(2 * MiB) - pace.expectedMs(MiB)).toBeCloseTo(40, -1)
  })

  it('shrinks with every reader that it kept waiting, down to a little, and grows with those it did not', () => {
    const {clock, pace} = watchedLink()
    const volumes: number[] = []
    for (let step = 0; step < 10; step++) {
      clock.now += 60
      pace.readerServed({bytes: 128 << 10, durationMs: 200, beside: MiB})
      volumes.push(pace.volume)
    }
    const later = volumes.slice(3)
    expect(later).toEqual(later.toSorted((a, b) => b - a))
    expect(volumes.at(-1)).toBe(128 << 10)
    clock.now += 25
    pace.readerServed({bytes: 128 << 10, durationMs: 25, beside: 128 << 10})
    expect(pace.volume).toBeGreaterThan(256 << 10)
  })

  it('shrinks once for readers that were kept waiting together', () => {
    const {clock, pace} = watchedLink()
    clock.now += 60
    const before = pace.volume
    for (let reader = 0; reader < 8; reader++) pace.readerServed({bytes: MiB, durationMs: 900, beside: MiB})
    expect(pace.volume).toBeGreaterThanOrEqual(before / 4)
  })

  it('does not take for its doing that a reader waited while nothing was filled', () => {
    const {clock, pace} = watchedLink()
    clock.now += 60
    const before = pace.volume
    pace.readerServed({bytes: MiB, durationMs: 900, beside: 0})
    expect(pace.volume).toBeGreaterThan(before * 0.9)
  })

  it('rests after what it unpacked while somebody reads or mounts, and not when nobody does', () => {
    const clock = {now: 10_000}
    const pace = new FillPace(() => clock.now)
    expect(pace.restAfter(10)).toBe(0)
    pace.used()
    expect(pace.restAfter(10)).toBe(40)
    clock.now += 3_000
    expect(pace.restAfter(10)).toBe(0)
    pace.readerServed({bytes: 1, durationMs: 1, beside: 0})
    expect(pace.restAfter(10)).toBe(40)
  })
})
