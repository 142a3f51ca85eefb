import {describe, expect, it} from 'vitest'
import {FailureMemory} from '../../src/lib/layer/failure-memory.ts'

const refused = new Error('refused')
const HOLD = {minMs: 1000, maxMs: 4000}

function memoryAt(start: number) {
  const clock = {now: start}
  return {clock, memory: new FailureMemory(() => clock.now)}
}

describe('the memory of failures', () => {
  it('lets one ask again after a while that doubles up to a limit, and the others hold back', () => {
    const {clock, memory} = memoryAt(0)
    expect(memory.recall('here')).toBeUndefined()
    const asked: number[] = []
    for (; clock.now < 20_000; clock.now += 500) {
      if (memory.recall('here') !== undefined) continue
      expect(memory.isFailing('here')).toBe(clock.now > 0)
      asked.push(clock.now)
      memory.failed('here', refused, {...HOLD, started: clock.now})
    }
    expect(asked).toEqual([0, 1000, 3000, 7000, 11_000, 15_000, 19_000])
    expect(memory.recall('elsewhere')).toBeUndefined()
  })

  it('lets nobody else ask while one does', () => {
    const {clock, memory} = memoryAt(0)
    memory.failed('here', refused, {...HOLD, started: 0})
    clock.now = 1000
    expect(memory.recall('here')).toBeUndefined()
    expect(memory.recall('here')).toBe(refused)
  })

  it('forgets with a success, and takes no failure for one that was begun before', () => {
    const {clock, memory} = memoryAt(10)
    memory.failed('here', refused, {...HOLD, started: 5})
    memory.succeeded('here')
    expect(memory.recall('here')).toBeUndefined()
    memory.failed('here', refused, {...HOLD, started: 9})
    expect(memory.isFailing('here')).toBe(false)
    clock.now = 20
    memory.failed('here', refused, {...HOLD, started: 15})
    expect(memory.recall('here')).toBe(refused)
  })

  it('counts attempts that failed together as one', () => {
    const {clock, memory} = memoryAt(30_000)
    for (let layer = 0; layer < 13; layer++) memory.failed('here', refused, {...HOLD, started: 0})
    clock.now += 1000
    expect(memory.recall('here')).toBeUndefined()
  })

  it('has one outage for each host', () => {
    const {memory} = memoryAt(0)
    memory.outageOf('a').begin(refused)
    expect(() => memory.outageOf('a').mayWait()).toThrow(refused)
    expect(memory.outageOf('b').mayWait()).toBe(true)
  })
})
