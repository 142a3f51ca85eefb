import {expect, test} from 'vitest'
import {parseRetryAfter, pause, retryDelayMs} from '../../src/lib/registry/retry.ts'

const POLICY = {attempts: 5, minDelayMs: 100, maxDelayMs: 1000, maxRetryAfterMs: 5000}
const NOW = Date.parse('2026-01-01T00:00:00Z')

test.each([
  [2, 50, 100],
  [3, 100, 200],
  [4, 200, 400],
  [20, 500, 1000],
])('the pause before attempt %i is between %i and %i ms', (attempt, least, most) => {
  const delay = retryDelayMs(POLICY, attempt)
  expect(delay).toBeGreaterThanOrEqual(least)
  expect(delay).toBeLessThanOrEqual(most)
})

test('a registry that says how long is waited for that long', () => {
  expect(retryDelayMs(POLICY, 2, 3000)).toBe(3000)
})

test('a registry that says too long is not', () => {
  expect(retryDelayMs(POLICY, 2, 1e9)).toBe(POLICY.maxRetryAfterMs)
})

test('a registry that says "at once" still gets a pause', () => {
  expect(retryDelayMs(POLICY, 2, 0)).toBeGreaterThanOrEqual(50)
})

test.each([
  ['120', 120_000],
  [' 0 ', 0],
  ['Thu, 01 Jan 2026 00:00:30 GMT', 30_000],
  ['Wed, 31 Dec 2025 23:00:00 GMT', 0],
  ['-5', undefined],
  ['1e9', undefined],
  ['soon', undefined],
  ['99999999999999999999', undefined],
  [undefined, undefined],
])('Retry-After %s is %s ms', (header, expected) => {
  expect(parseRetryAfter(header, NOW)).toBe(expected)
})

test('a pause ends with the reason of an abort', async () => {
  const abort = new AbortController()
  const reason = new Error('enough')
  const waiting = pause(60_000, {signal: abort.signal})
  abort.abort(reason)
  await expect(waiting).rejects.toBe(reason)
})
