import {gunzipSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {
  encodeExternalTocFooter,
  encodeFooter,
  encodeLegacyFooter,
  parseExternalTocFooter,
  parseFooter,
  parseLegacyFooter,
} from '../../src/lib/estargz/footer.ts'

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const ascii = (text: string) => Buffer.from(text).toString('hex')
const HEAD = '1f8b08040000000000ff'
const TAIL = '010000ffff0000000000000000'

const FOOTERS = [
  ['eStargz', encodeFooter(0x30134dc), parseFooter, 51],
  ['legacy', encodeLegacyFooter(0x30134dc), parseLegacyFooter, 47],
  ['external TOC', encodeExternalTocFooter(), parseExternalTocFooter, 46],
] as const

describe('footers', () => {
  it('have the bytes that the specification gives', () => {
    expect(hex(encodeFooter(0x30134dc))).toBe(
      `${HEAD}1a00${ascii('SG')}1600${ascii('00000000030134dcSTARGZ')}${TAIL}`,
    )
    expect(hex(encodeLegacyFooter(0x30134dc))).toBe(`${HEAD}1600${ascii('00000000030134dcSTARGZ')}${TAIL}`)
    expect(hex(encodeExternalTocFooter())).toBe(
      `${HEAD}1500${ascii('SG')}1100${ascii('STARGZEXTERNALTOC')}${TAIL}`,
    )
  })

  it.each(FOOTERS)('of %s are a gzip member of nothing', (_name, footer, _parse, size) => {
    expect(footer).toHaveLength(size)
    expect(gunzipSync(footer)).toHaveLength(0)
  })

  it.each(FOOTERS)('of %s are not taken for another kind', (name, footer) => {
    for (const [other, , parse] of FOOTERS) {
      expect(parse(footer) !== undefined, `${name} parsed as ${other}`).toBe(name === other)
    }
  })

  it.each([0, 1, 51, 2 ** 32, Number.MAX_SAFE_INTEGER])('lead to a TOC at %d', offset => {
    expect(parseFooter(encodeFooter(offset))).toEqual({tocOffset: offset})
    expect(parseLegacyFooter(encodeLegacyFooter(offset))).toEqual({tocOffset: offset})
  })

  it.each(FOOTERS)(
    'of %s with any byte of magic or offset damaged lead nowhere, or elsewhere',
    (_, footer, parse) => {
      for (let at = 0; at < footer.length - 13; at++) {
        if (at >= 4 && at < 10) continue
        const damaged = footer.slice()
        damaged[at]! ^= 0x80
        expect(parse(damaged), `byte ${at}`).toBeUndefined()
      }
    },
  )

  it('with an offset beyond what can be counted lead nowhere', () => {
    const footer = encodeFooter(0)
    footer.fill(0x66, 16, 32)
    expect(parseFooter(footer)).toBeUndefined()
  })
})
