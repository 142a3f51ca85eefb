import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {
  encodeOldPositions,
  encodePositions,
  parseOldPositions,
  parsePositions,
} from '../../src/lib/zstdchunked/positions.ts'

const positions = {
  toc: {offset: 51_245_386, size: 570_279, rawSize: 2_604_724},
  tocChecksum: digestOf('toc'),
  tarSplit: {offset: 51_815_673, size: 297_823, rawSize: 7_423_652},
}
const KEYS = 'io.github.containers.zstd-chunked.'

describe('annotations of zstd:chunked layers', () => {
  it('are spelled as Podman 5 does', () => {
    expect(encodePositions(positions)).toEqual({
      [`${KEYS}manifest-checksum`]: digestOf('toc'),
      [`${KEYS}manifest-position`]: '51245386:570279:2604724:1',
      [`${KEYS}tarsplit-position`]: '51815673:297823:7423652',
    })
  })

  it('are spelled as Podman 4 and stargz-snapshotter do', () => {
    expect(encodeOldPositions(positions)).toEqual({
      'io.containers.zstd-chunked.manifest-checksum': digestOf('toc'),
      'io.containers.zstd-chunked.manifest-position': '51245386:570279:2604724:1',
    })
  })

  it('are understood, each by its own keys', () => {
    const {tarSplit: _, ...old} = positions
    expect(parsePositions(encodePositions(positions))).toEqual(positions)
    expect(parsePositions(encodePositions(old))).toEqual(old)
    expect(parseOldPositions(encodeOldPositions(positions))).toEqual(old)
    expect(parsePositions(encodeOldPositions(positions))).toBeUndefined()
    expect(parseOldPositions(encodePositions(positions))).toBeUndefined()
    expect(parsePositions({})).toBeUndefined()
  })

  it('need a checksum, or nothing would vouch for the TOC', () => {
    const {[`${KEYS}manifest-checksum`]: _, ...rest} = encodePositions(positions)
    expect(parsePositions(rest)).toBeUndefined()
  })

  it.each([
    ['manifest-position', '1:2:3'],
    ['manifest-position', '1:2:3:2'],
    ['manifest-position', '1:2:3:1:1'],
    ['manifest-position', '-1:2:3:1'],
    ['manifest-position', ' 1:2:3:1'],
    ['manifest-position', '9999999999999999:2:3:1'],
    ['manifest-checksum', 'sha256:abc'],
    ['manifest-checksum', 'md5:d41d8cd98f00b204e9800998ecf8427e'],
    ['tarsplit-position', '1:2'],
    ['tarsplit-position', '1:2:x'],
  ])('cannot be used with %s %j', (key, value) => {
    const parse = () => parsePositions({...encodePositions(positions), [KEYS + key]: value})
    expect(parse).toThrow(KEYS + key)
    expect(codeOf(catching(parse))).toBe('corrupt')
  })
})

function catching(action: () => unknown): unknown {
  try {
    action()
  } catch (error) {
    return error
  }
  return undefined
}
