import {gzipSync} from 'node:zlib'
import {expect, it} from 'vitest'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {inflatePrefix} from '../../src/lib/io/inflate.ts'
import {gunzipPrefix} from '../../src/lib/io/web-inflate.ts'
import {createRandom} from '../support/random.ts'

const TEXT = Buffer.from('what a layer holds, and holds again; '.repeat(9000))
const random = createRandom(7)
const NOISE = Buffer.from(Uint8Array.from({length: 70_000}, () => random(256)))

it.each([
  ['nothing', [Buffer.alloc(0)]],
  ['text', [TEXT]],
  ['what does not compress', [NOISE]],
  ['several members', [TEXT, NOISE, Buffer.from('x')]],
  ['members of which some are empty', [Buffer.alloc(0), TEXT, Buffer.alloc(0), NOISE]],
])('%s comes out as from zlib, in whole and up to any limit', async (_, parts) => {
  for (const level of [0, 1, 9]) {
    const bytes = Buffer.concat(parts.map(part => gzipSync(part, {level})))
    const whole = Buffer.concat(parts)
    for (const limit of [1, 100, 65_536, whole.length, whole.length + 1, 2 ** 30]) {
      const inflated = Buffer.from(gunzipPrefix(bytes, limit))
      expect(inflated.equals(whole.subarray(0, limit)), `level ${level}, limit ${limit}`).toBe(true)
      expect(inflated.equals(await inflatePrefix('gzip', bytes, limit))).toBe(true)
    }
  }
})

it('data that are cut short give what they have', () => {
  const bytes = gzipSync(NOISE)
  const inflated = Buffer.from(gunzipPrefix(bytes.subarray(0, 40_000), NOISE.length))
  expect(inflated.length).toBeLessThan(NOISE.length)
  expect(inflated.equals(NOISE.subarray(0, inflated.length))).toBe(true)
  expect(gunzipPrefix(new Uint8Array(0), 10)).toHaveLength(0)
})

it('a bomb stops at the limit', () => {
  const bomb = gzipSync(Buffer.alloc(256 << 20), {level: 9})
  const before = process.memoryUsage().arrayBuffers
  expect(gunzipPrefix(bomb, 1000)).toHaveLength(1000)
  // A step of its input, and what that makes.
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 << 20)
})

it('what is no gzip is corrupt', () => {
  for (const bytes of [Buffer.from('hello, this is no gzip'), Buffer.alloc(100)]) {
    let error: unknown
    try {
      gunzipPrefix(bytes, 10)
    } catch (caught) {
      error = caught
    }
    expect(codeOf(error)).toBe('corrupt')
  }
})
