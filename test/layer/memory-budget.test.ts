import {describe, expect, it} from 'vitest'
import {MemoryBudget} from '../../src/lib/layer/memory-budget.ts'

const tick = () => new Promise(setImmediate)

describe('a budget of memory', () => {
  it('bounds what all take together, and gives all of it to who wants more than there is', async () => {
    const budget = new MemoryBudget(100)
    const running = new Set<number>()
    const most: number[] = []
    const work = async (bytes: number) => {
      using _ = await budget.take(bytes, {})
      running.add(bytes)
      most.push([...running].reduce((sum, size) => sum + size, 0))
      await tick()
      running.delete(bytes)
    }
    await Promise.all([60, 30, 20, 1000, 10].map(work))
    expect(most.filter(sum => sum > 100)).toEqual([1000])
    expect(most).toHaveLength(5)
  })

  it('serves those who wait in their order, and passes over who gives up', async () => {
    const budget = new MemoryBudget(100)
    const held = await budget.take(100, {})
    const abort = new AbortController()
    const order: string[] = []
    const waiting = [
      budget.take(100, {signal: abort.signal}).catch(error => order.push(error.name)),
      budget.take(40, {}).then(() => order.push('first')),
      budget.take(40, {}).then(() => order.push('second')),
      budget.take(40, {}).then(() => order.push('third')),
    ]
    abort.abort()
    await waiting[0]
    held[Symbol.dispose]()
    await Promise.all(waiting.slice(0, 3))
    expect(order).toEqual(['AbortError', 'first', 'second'])
    expect(budget.tryTake(40)).toBeUndefined()
  })

  it('loses nothing of what is given in the moment in which it is given up', async () => {
    const budget = new MemoryBudget(100)
    const held = await budget.take(100, {})
    const abort = new AbortController()
    const given = budget.take(100, {signal: abort.signal})
    held[Symbol.dispose]()
    abort.abort()
    await given.then(
      taken => taken[Symbol.dispose](),
      () => {},
    )
    expect(budget.tryTake(100)).toBeDefined()
  })

  it('gives nothing to who comes too late', async () => {
    const budget = new MemoryBudget(100)
    await expect(budget.take(1, {signal: AbortSignal.abort()})).rejects.toMatchObject({name: 'AbortError'})
    expect(budget.tryTake(100)).toBeDefined()
  })
})
