import {open, readFile, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {writeFully, writeSparsely} from '../../src/lib/blob/write-fully.ts'
import {temporaryDirectory} from '../support/temporary.ts'

async function written(write: (file: Awaited<ReturnType<typeof open>>) => Promise<void>) {
  const path = join(await temporaryDirectory(), 'file')
  {
    await using file = await open(path, 'wx')
    await write(file)
  }
  return {bytes: await readFile(path), diskBytes: (await stat(path)).blocks * 512}
}

describe('pieces written in full', () => {
  it('stand one after the other at their place', async () => {
    const {bytes} = await written(file => writeFully(file, [Buffer.from('ab'), Buffer.from('cd')], 2))
    expect(bytes.toString('latin1')).toBe('\0\0abcd')
  })

  it('may be none', async () => {
    const {bytes} = await written(file => writeFully(file, [], 0))
    expect(bytes).toHaveLength(0)
  })
})

describe('bytes written sparsely', () => {
  const letters = (size: number) => Buffer.alloc(size, 'letters')
  const zeros = (size: number) => Buffer.alloc(size)
  it.each([
    ['nothing', []],
    ['letters', [letters(300_000)]],
    ['zeros', [zeros(1_000_000)]],
    ['zeros between letters', [letters(1), zeros(200_000), letters(70_000), zeros(65_536), letters(3)]],
    ['zeros at both ends', [zeros(65_537), letters(10), zeros(131_072)]],
    ['a few zeros in each block', [letters(65_530), zeros(12), letters(65_530), zeros(12)]],
  ])('are the same: %s', async (_, parts) => {
    const expected = Buffer.concat(parts)
    for (const step of [expected.length || 1, 65_536, 10_007]) {
      const {bytes} = await written(async file => {
        for (let at = 0; at < expected.length; at += step) {
          await writeSparsely(file, expected.subarray(at, at + step), at)
        }
        await file.truncate(expected.length)
      })
      expect(bytes.equals(expected)).toBe(true)
    }
  })

  it('take no room where they are zeros', async () => {
    const {bytes, diskBytes} = await written(async file => {
      for (let at = 0; at < 64 << 20; at += 1 << 20) await writeSparsely(file, zeros(1 << 20), at)
      await writeSparsely(file, letters(10), 64 << 20)
    })
    expect(bytes).toHaveLength((64 << 20) + 10)
    expect(diskBytes).toBeLessThan(1 << 20)
  })
})
