import {describe, expect, it} from 'vitest'
import {type AheadSource, FetchQueue, type FetchQueueOptions} from '../../src/lib/layer/fetch-queue.ts'

const queueOf = (options: Partial<FetchQueueOptions> = {}) =>
  new FetchQueue({prefetches: 1, backgrounds: 1, memory: 100, ...options})

const tick = () => new Promise(setImmediate)

/** Something to fetch, once. */
function once(
  run: () => Promise<unknown>,
  {memory = 1, lastRead = 0, unpackMs = 0, isDense = false} = {},
): AheadSource & {sizes: number[]} {
  const sizes: number[] = []
  let isDone = false
  return {
    sizes,
    lastRead,
    isDense,
    plan: size => {
      if (isDone) return undefined
      return {
        bytes: 1,
        memory,
        run: async () => {
          isDone = true
          sizes.push(size)
          await run()
          return unpackMs
        },
      }
    },
  }
}

describe('the queue of fetches', () => {
  it('lets what a reader waits for start at once, beside everything else and whatever memory that takes', async () => {
    const queue = queueOf()
    const held = Promise.withResolvers<void>()
    const ahead = [
      queue.ahead(
        'prefetch',
        once(() => held.promise, {memory: 100}),
        {},
      ),
      queue.ahead(
        'background',
        once(() => held.promise, {memory: 100}),
        {},
      ),
    ]
    let started = false
    const demand = queue.demand(
      100,
      async () => {
        started = true
      },
      {},
    )
    await demand
    expect(started).toBe(true)
    held.resolve()
    expect(await Promise.all(ahead)).toEqual([true, true])
  })

  it('runs a few of each kind at a time, and fills nothing while a prefetch waits', async () => {
    const queue = queueOf({prefetches: 2, backgrounds: 2})
    const started: string[] = []
    const gates = new Map<string, () => void>()
    const run = (cause: 'prefetch' | 'background', name: string) =>
      queue.ahead(
        cause,
        once(async () => {
          started.push(name)
          await new Promise<void>(resolve => gates.set(name, resolve))
        }),
        {},
      )
    const all = [run('prefetch', 'p1'), run('prefetch', 'p2'), run('prefetch', 'p3')]
    all.push(run('background', 'b1'), run('background', 'b2'), run('background', 'b3'))
    expect(started).toEqual(['p1', 'p2'])
    gates.get('p1')!()
    await tick()
    expect(started).toEqual(['p1', 'p2', 'p3', 'b1', 'b2'])
    for (const name of ['b1', 'b2', 'p2', 'p3']) gates.get(name)!()
    await tick()
    expect(started.at(-1)).toBe('b3')
    gates.get('b3')!()
    expect(await Promise.all(all)).toEqual(all.map(() => true))
  })

  it('fills first what is being read', async () => {
    const queue = queueOf()
    const order: string[] = []
    const held = Promise.withResolvers<void>()
    const fills = [
      queue.ahead(
        'background',
        once(() => held.promise),
        {},
      ),
      queue.ahead(
        'background',
        once(async () => order.push('idle')),
        {},
      ),
      queue.ahead(
        'background',
        once(async () => order.push('read'), {lastRead: 5}),
        {},
      ),
    ]
    held.resolve()
    await Promise.all(fills)
    expect(order).toEqual(['read', 'idle'])
  })

  it('gives up at once what is aborted while it waits, and holds no place meanwhile', async () => {
    for (const cause of ['prefetch', 'background'] as const) {
      const queue = queueOf()
      const held = Promise.withResolvers<void>()
      const running = queue.ahead(
        cause,
        once(() => held.promise),
        {},
      )
      const abort = new AbortController()
      const ran: string[] = []
      const given = queue.ahead(
        cause,
        once(async () => ran.push('aborted')),
        {signal: abort.signal},
      )
      const next = queue.ahead(
        cause,
        once(async () => ran.push('next')),
        {},
      )
      abort.abort()
      await expect(given).rejects.toMatchObject({name: 'AbortError'})
      held.resolve()
      expect(await Promise.all([running, next])).toEqual([true, true])
      expect(ran).toEqual(['next'])
    }
  })

  it('asks what waits for memory again, and lets others by when that is aborted', async () => {
    const queue = queueOf({backgrounds: 3})
    const held = Promise.withResolvers<void>()
    const running = queue.ahead(
      'background',
      once(() => held.promise, {memory: 60}),
      {},
    )
    const abort = new AbortController()
    const large = queue.ahead(
      'background',
      once(async () => {}, {memory: 60}),
      {signal: abort.signal},
    )
    let isSmallDone = false
    const small = queue
      .ahead(
        'background',
        once(async () => {}, {memory: 40}),
        {},
      )
      .then(() => {
        isSmallDone = true
      })
    await tick()
    expect(isSmallDone).toBe(false)
    abort.abort()
    await expect(large).rejects.toMatchObject({name: 'AbortError'})
    await small
    held.resolve()
    await running
  })

  it('fills no layer that nobody waits for while a container starts, but for starts without end', async () => {
    let nowMs = 0
    const started: string[] = []
    const queue = queueOf({now: () => nowMs, backgrounds: 4})
    const fill = (name: string, lastRead: number) =>
      queue.ahead(
        'background',
        once(async () => started.push(name), {lastRead}),
        {},
      )
    queue.pace.mounted()
    const waiting = fill('nobody waits', Number.NEGATIVE_INFINITY)
    await tick()
    expect(started).toEqual([])
    // Whose turn it is, is looked at again whenever something ends.
    await fill('somebody has waited', 1)
    expect(started).toEqual(['somebody has waited'])
    nowMs = 9_000
    queue.pace.mounted()
    await fill('somebody waits', 2)
    expect(started).toEqual(['somebody has waited', 'somebody waits'])
    nowMs = 10_000
    queue.pace.mounted()
    await fill('one more', 3)
    await waiting
    expect(started).toContain('nobody waits')
  })

  it('leaves the processors to programs that are at work', async () => {
    const queue = queueOf()
    queue.pace.used()
    await queue.ahead(
      'background',
      once(async () => {}, {unpackMs: 1}),
      {},
    )
    let isDone = false
    const next = queue
      .ahead(
        'background',
        once(async () => {}),
        {},
      )
      .then(() => {
        isDone = true
      })
    await Promise.resolve()
    expect(isDone).toBe(false)
    await next
    await queue.ahead(
      'prefetch',
      once(async () => {}, {unpackMs: 1e9}),
      {},
    )
    await queue.ahead(
      'prefetch',
      once(async () => {}),
      {},
    )
  })

  it('prefetches over all layers by when it is read, after what nobody knows the time of', async () => {
    const queue = queueOf()
    const order: string[] = []
    const gate = Promise.withResolvers<void>()
    const ahead = (name: string, dueMs?: number) => {
      const source = once(async () => void order.push(name))
      return queue.ahead('prefetch', dueMs === undefined ? source : Object.assign(source, {dueMs}), {})
    }
    const first = queue.ahead(
      'prefetch',
      once(() => gate.promise),
      {},
    )
    const all = [ahead('late', 900), ahead('early', 10), ahead('unknown'), ahead('soon', 20)]
    gate.resolve()
    await Promise.all([first, ...all])
    expect(order).toEqual(['unknown', 'early', 'soon', 'late'])
  })

  it('fetches in large pieces, and without a rest, what is read nearly whole', async () => {
    const queue = queueOf({backgrounds: 2})
    queue.pace.used()
    const sources = [1, 2].map(() => once(async () => {}, {unpackMs: 1e9, isDense: true}))
    for (const source of sources) await queue.ahead('background', source, {})
    expect(sources.map(({sizes}) => sizes)).toEqual([[2 << 20], [2 << 20]])
  })

  it('says when there is nothing to do, and passes on what fails', async () => {
    const queue = queueOf()
    expect(await queue.ahead('prefetch', {lastRead: 0, isDense: false, plan: () => undefined}, {})).toBe(
      false,
    )
    const fail = async () => {
      throw new Error('no')
    }
    await expect(queue.ahead('background', once(fail), {})).rejects.toThrow('no')
    await expect(queue.demand(100, fail, {})).rejects.toThrow('no')
    const broken = () => {
      throw new Error('no plan')
    }
    await expect(queue.ahead('background', {lastRead: 0, isDense: false, plan: broken}, {})).rejects.toThrow(
      'no plan',
    )
    expect(
      await queue.ahead(
        'background',
        once(async () => {}),
        {},
      ),
    ).toBe(true)
    expect(await queue.demand(100, async () => 1, {})).toBe(1)
  })

  it('asks for as much at once as fills the link, in the pieces that may run together', async () => {
    const now = 0
    const queue = queueOf({backgrounds: 2, now: () => now})
    const source = once(async () => {})
    await queue.ahead('background', source, {})
    expect(source.sizes).toEqual([queue.pace.volume / 2])
  })

  it('starts nothing ahead for which the disk has no room, counting what is on its way', async () => {
    const queue = queueOf({prefetches: 3, spareRoom: () => 10})
    const held = Promise.withResolvers<void>()
    const first = queue.ahead(
      'prefetch',
      once(() => held.promise, {memory: 6}),
      {},
    )
    const none = once(async () => {}, {memory: 5})
    await expect(queue.ahead('prefetch', none, {})).rejects.toThrow(
      /^Cannot fetch ahead: the disk is nearly full$/,
    )
    expect(none.sizes).toEqual([])
    held.resolve()
    expect(await first).toBe(true)
    expect(await queue.ahead('prefetch', none, {})).toBe(true)
  })
})
