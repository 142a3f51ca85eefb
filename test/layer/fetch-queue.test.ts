import {describe, expect, it} from 'vitest'
import {createFetchQueue} from '../../src/lib/layer/fetch-queue.ts'

const queueOf = (options: {quietMs?: number; memory?: number} = {}) =>
  createFetchQueue({prefetches: 1, backgrounds: 1, quietMs: 0, memory: 100, ...options})

const tick = () => new Promise(setImmediate)

describe('the queue of fetches', () => {
  it('runs what a reader waits for at once, beside everything else', async () => {
    const queue = queueOf()
    const held = Promise.withResolvers<void>()
    const prefetch = queue.prefetch(() => held.promise, {})
    expect(await queue.demand(async () => 'read')).toBe('read')
    held.resolve()
    await prefetch
  })

  it('fills only when nothing more urgent runs', async () => {
    const queue = queueOf()
    const held = Promise.withResolvers<void>()
    const demand = queue.demand(() => held.promise)
    let filled = false
    const fill = queue.background(async () => {
      filled = true
    }, {})
    await tick()
    expect(filled).toBe(false)
    held.resolve()
    await Promise.all([demand, fill])
    expect(filled).toBe(true)
  })

  it('gives up at once what is aborted while it waits, and holds no place meanwhile', async () => {
    const queue = queueOf({quietMs: 60_000})
    const held = Promise.withResolvers<void>()
    const demand = queue.demand(() => held.promise)
    const abort = new AbortController()
    const ran: string[] = []
    const waiting = [
      queue.background(async () => ran.push('fill'), {signal: abort.signal}),
      queue.prefetch(() => held.promise, {}),
      queue.prefetch(async () => ran.push('prefetch'), {signal: abort.signal}),
    ]
    await tick()
    abort.abort()
    await expect(waiting[0]).rejects.toMatchObject({name: 'AbortError'})
    await expect(waiting[2]).rejects.toMatchObject({name: 'AbortError'})
    held.resolve()
    await Promise.all([demand, waiting[1]])
    await tick()
    expect(ran).toEqual([])
  })

  it('bounds the memory of all work together, and runs what takes more than there is alone', async () => {
    const queue = queueOf({memory: 100})
    const running = new Set<number>()
    const most: number[] = []
    const work = (bytes: number) =>
      queue.withMemory(bytes, async () => {
        running.add(bytes)
        most.push([...running].reduce((sum, size) => sum + size, 0))
        await tick()
        running.delete(bytes)
      })
    await Promise.all([60, 30, 20, 1000, 10].map(work))
    expect(most.filter(sum => sum > 100)).toEqual([1000])
    expect(most).toHaveLength(5)
  })

  it('goes on after work that fails', async () => {
    const queue = queueOf()
    const fail = async () => {
      throw new Error('no')
    }
    await expect(queue.withMemory(100, fail)).rejects.toThrow('no')
    await expect(queue.demand(fail)).rejects.toThrow('no')
    expect(await queue.withMemory(100, async () => 1)).toBe(1)
    expect(await queue.background(async () => 2, {})).toBe(2)
  })
})
