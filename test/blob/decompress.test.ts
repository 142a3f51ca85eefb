import {constants, gzipSync, zstdCompressSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {decompressStream} from '../../src/lib/blob/decompress.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'

/** A skippable frame of RFC 8878, section 3.1.2. */
const SKIPPABLE = Buffer.from([0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3])
const EMPTY_SKIPPABLE = Buffer.from([0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0])
const noise = Buffer.from(
  Array.from({length: 300_000}, (_, index) => (index * index * 31 + (index >> 7)) & 0xff),
)

async function decompress(bytes: Uint8Array, step: number): Promise<Buffer> {
  const cut = async function* () {
    for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step)
  }
  const parts: Uint8Array[] = []
  for await (const part of decompressStream(cut(), 'the layer')) parts.push(part)
  return Buffer.concat(parts)
}

describe('a compressed stream', () => {
  const check = (name: string, bytes: Uint8Array, expected: Uint8Array | string) => {
    for (const step of [1, 7, 1 << 20]) {
      // Byte by byte is for what is small.
      if (step === 1 && bytes.length > 10_000) continue
      it(`${name} gives its contents, ${step} bytes at a time`, async () => {
        expect((await decompress(bytes, step)).equals(Buffer.from(expected))).toBe(true)
      })
    }
  }
  const frame = (text: string | Uint8Array, params: Record<number, number> = {}) =>
    zstdCompressSync(text, {params})
  const checked = {[constants.ZSTD_c_checksumFlag]: 1}

  check('that is none', Buffer.from('plain'), 'plain')
  check('of one gzip member', gzipSync('hello'), 'hello')
  check('of many gzip members', Buffer.concat([gzipSync('a'), gzipSync(''), gzipSync('b')]), 'ab')
  check('of one zstd frame', frame(noise), noise)
  check('of many zstd frames', Buffer.concat([frame('a'), frame(''), frame('b', checked)]), 'ab')
  check(
    'of large zstd frames',
    Buffer.concat([frame(noise, checked), frame(noise)]),
    Buffer.concat([noise, noise]),
  )
  check(
    'of zstd frames among skippable ones',
    Buffer.concat([SKIPPABLE, frame('a'), EMPTY_SKIPPABLE, SKIPPABLE, frame('b'), SKIPPABLE]),
    'ab',
  )
  check('of repeated bytes in zstd', frame(Buffer.alloc(500_000, 'q')), Buffer.alloc(500_000, 'q'))

  const refuse = (name: string, bytes: Uint8Array) =>
    it(`is refused when ${name}`, async () => {
      for (const step of [3, 1 << 20]) {
        await expect(decompress(bytes, step)).rejects.toMatchObject({
          code: 'corrupt',
          message: expect.stringContaining('the layer'),
        })
      }
    })
  const flipped = (bytes: Buffer, at: number) => {
    bytes[at]! ^= 0x55
    return bytes
  }

  refuse('it is no gzip behind its first bytes', Buffer.from('\x1f\x8b\x08 and no gzip', 'latin1'))
  refuse('its gzip is cut short', gzipSync(noise).subarray(0, -9))
  refuse('its gzip checksum is wrong', flipped(gzipSync('hello'), gzipSync('hello').length - 6))
  refuse('it is no zstd behind its first bytes', Buffer.from('\x28\xb5\x2f\xfd and no zstd', 'latin1'))
  refuse('its zstd is cut short', frame(noise).subarray(0, -1))
  refuse('its second zstd frame is cut short', Buffer.concat([frame('a'), frame(noise).subarray(0, 50)]))
  refuse('something else follows a zstd frame', Buffer.concat([frame('a'), Buffer.from('junk')]))
  refuse('its skippable frame is cut short', SKIPPABLE.subarray(0, -1))
  refuse('its zstd checksum is wrong', flipped(frame(noise, checked), frame(noise, checked).length - 1))

  it.each([
    ['xz', 'fd377a585a000004e6d6b446'],
    ['bzip2', '425a68393141592653594eece836'],
    ['lz4', '04224d186440a70a0000'],
  ])('in %s is refused by that name', async (name, hex) => {
    for (const step of [1, 1 << 20]) {
      await expect(decompress(Buffer.from(hex, 'hex'), step)).rejects.toMatchObject({
        code: 'unsupported',
        message: `Cannot decompress the layer: ${name} is not supported, only gzip and zstd are`,
      })
    }
  })

  it.each([
    ['gzip', gzipSync(noise), undefined],
    ['no compression', Buffer.from('plain text'), undefined],
    ['what cannot be read', Buffer.from('fd377a585a00', 'hex'), 'unsupported'],
  ])('of %s lets go of its source when the consumer stops', async (_, start, code) => {
    let isOpen = true
    const endless = async function* () {
      try {
        for (;;) yield start
      } finally {
        isOpen = false
      }
    }
    const readOne = async () => {
      for await (const _ of decompressStream(endless(), 'the layer')) break
    }
    expect(await readOne().then(() => undefined, codeOf)).toBe(code)
    expect(isOpen).toBe(false)
  })

  it('passes errors of its source on', async () => {
    const failing = async function* (): AsyncGenerator<Uint8Array> {
      yield gzipSync(noise).subarray(0, 100)
      throw new Error('connection lost')
    }
    const read = async () => {
      for await (const _ of decompressStream(failing(), 'the layer'));
    }
    await expect(read()).rejects.toThrow('connection lost')
  })
})
