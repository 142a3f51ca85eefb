import {expect, it} from 'vitest'
import {raceAbort} from '../../src/lib/io/race-abort.ts'

const never = new Promise<never>(() => {})

it('gives what the work gives, with and without a signal', async () => {
  expect(await raceAbort(Promise.resolve(1), undefined)).toBe(1)
  expect(await raceAbort(Promise.resolve(2), new AbortController().signal)).toBe(2)
  await expect(raceAbort(Promise.reject(new Error('no')), new AbortController().signal)).rejects.toThrow('no')
})

it('ends with the reason of the abort', async () => {
  const abort = new AbortController()
  const waiting = raceAbort(never, abort.signal)
  const reason = new Error('enough')
  abort.abort(reason)
  await expect(waiting).rejects.toBe(reason)
})

it('leaves no rejection that nobody hears of, aborted before or while waiting', async () => {
  const unheard: unknown[] = []
  const note = (error: unknown) => unheard.push(error)
  process.on('unhandledRejection', note)
  const abort = new AbortController()
  const [first, second] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
  const waiting = raceAbort(first.promise, abort.signal)
  abort.abort(new Error('enough'))
  await expect(waiting).rejects.toThrow('enough')
  await expect(raceAbort(second.promise, abort.signal)).rejects.toThrow('enough')
  first.reject(new Error('late'))
  second.reject(new Error('late'))
  // Node tells of unheard rejections after the microtasks.
  await new Promise(done => setImmediate(done))
  process.off('unhandledRejection', note)
  expect(unheard).toEqual([])
})
