import {describe, expect, it} from 'vitest'
import {mapOrdered} from '../../src/lib/io/ordered-map.ts'

/** Work whose end the test decides. */
function manualWork() {
  const started: number[] = []
  const ends = new Map<number, {finish: () => void; fail: (error: Error) => void}>()
  const work = (item: number) => {
    started.push(item)
    return new Promise<number>((resolve, reject) => {
      ends.set(item, {finish: () => resolve(item * 10), fail: reject})
    })
  }
  return {started, ends, work}
}

const WEIGHTS = {weightOf: (item: number) => item, maxWeight: 6}

describe('mapOrdered', () => {
  it('yields results in the order of the items, whatever ends first', async () => {
    const {ends, work, started} = manualWork()
    const results = mapOrdered([1, 2, 3], work, WEIGHTS)
    const first = results.next()
    expect(started).toEqual([1, 2, 3])
    for (const item of [3, 2, 1]) ends.get(item)!.finish()
    expect([(await first).value, (await results.next()).value, (await results.next()).value]).toEqual([
      10, 20, 30,
    ])
    expect((await results.next()).done).toBe(true)
  })
  it('starts no more than the weight allows, and a heavier item alone', async () => {
    let weight = 0
    const most: number[] = []
    const work = async (item: number) => {
      weight += item
      most.push(weight)
      return item
    }
    const seen: number[] = []
    for await (const item of mapOrdered([3, 3, 2, 9, 1], work, WEIGHTS)) {
      weight -= item
      seen.push(item)
    }
    expect(seen).toEqual([3, 3, 2, 9, 1])
    expect(most).toEqual([3, 6, 5, 9, 1])
  })
  it('throws a failure in its turn, after what was under way has ended', async () => {
    const {ends, work} = manualWork()
    const results = mapOrdered([1, 2, 3], work, WEIGHTS)
    const first = results.next()
    ends.get(2)!.fail(new Error('two failed'))
    ends.get(1)!.finish()
    expect((await first).value).toBe(10)
    let isOver = false
    const second = results.next().finally(() => {
      isOver = true
    })
    await Promise.resolve()
    expect(isOver).toBe(false)
    ends.get(3)!.finish()
    await expect(second).rejects.toThrow('two failed')
  })
  it('starts nothing more once the consumer stops', async () => {
    const started: number[] = []
    const work = async (item: number) => {
      started.push(item)
      return item
    }
    for await (const item of mapOrdered([5, 5, 5], work, WEIGHTS)) {
      expect(item).toBe(5)
      break
    }
    expect(started).toHaveLength(1)
  })
})
