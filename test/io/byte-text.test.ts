import {describe, expect, it} from 'vitest'
import {canonicalByteText, decodeByteText, encodeByteText} from '../../src/lib/io/byte-text.ts'

const check = (bytes: readonly number[], text: string) => {
  expect(decodeByteText(Uint8Array.from(bytes))).toBe(text)
  expect([...encodeByteText(text)]).toEqual(bytes)
}

describe("bytes and text are each other's inverse", () => {
  it('for ASCII', () => check([0x61, 0x7f, 0x0a], 'a\x7f\n'))
  it('for nothing', () => check([], ''))
  it('for UTF-8 of all lengths', () => check([...Buffer.from('äé€😀\ufeff')], 'äé€😀\ufeff'))
  it('for a byte that starts nothing', () => check([0x61, 0xff, 0x62], 'a\udcffb'))
  it('for a sequence that is cut short', () => check([0xe2, 0x82], '\udce2\udc82'))
  it('for an overlong sequence', () => check([0xc0, 0x80], '\udcc0\udc80'))
  it('for an encoded surrogate', () => check([0xed, 0xb2, 0x80], '\udced\udcb2\udc80'))
  it('for a code point beyond the last', () => check([0xf4, 0x90, 0x80, 0x80], '\udcf4\udc90\udc80\udc80'))
  it('for valid characters among odd bytes', () => check([0xff, 0xc3, 0xa4, 0xfe], '\udcffä\udcfe'))
  it('for every string of two bytes', () => {
    for (let value = 0; value < 65_536; value++) {
      const bytes = Uint8Array.of(value >> 8, value & 255)
      const back = encodeByteText(decodeByteText(bytes))
      if (back.length !== 2 || back[0] !== bytes[0] || back[1] !== bytes[1]) expect(back).toEqual(bytes)
    }
  })
})

it('texts of the same bytes are made the same', () => {
  expect(canonicalByteText('a\udcff')).toBe('a\udcff')
  expect(canonicalByteText('\udcc3\udca9')).toBe('é')
  expect(canonicalByteText('\ud800')).toBe('\ufffd')
  expect(canonicalByteText('\ude00é')).toBe('\ufffdé')
})
