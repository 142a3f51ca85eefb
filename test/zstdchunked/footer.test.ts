import {describe, expect, it} from 'vitest'
import {
  encodePodmanFooter,
  encodeStargzFooter,
  PODMAN_FOOTER_SIZE,
  parsePodmanFooter,
  parseStargzFooter,
  STARGZ_FOOTER_SIZE,
} from '../../src/lib/zstdchunked/footer.ts'

const toc = {offset: 3_014_378, size: 11_645, rawSize: 57_858}
const tarSplit = {offset: 3_026_031, size: 8153, rawSize: 165_829}
const found = {tocOffset: toc.offset, tocSize: toc.size, tocHeaderSize: 8}

/** The last bytes of a layer that skopeo 1.18 (containers/storage 1.57) wrote. */
const PODMAN =
  'eafe2d00000000007d2d00000000000002e200000000000001000000000000006f2c2e0000000000d91f000000000000c587020000000000474e556c496e5578'
/** And of one that skopeo 1.9 wrote, in which stargz-snapshotter's dialect lives on. */
const STARGZ = 'ac862e0000000000792e0000000000000f100100000000000100000000000000476e556c496e5578'

describe('footers of zstd:chunked', () => {
  it('are those of Podman, byte for byte', () => {
    expect(Buffer.from(encodePodmanFooter(toc, tarSplit)).toString('hex')).toBe(PODMAN)
    expect(parsePodmanFooter(Buffer.from(PODMAN, 'hex'))).toEqual(found)
    expect(PODMAN).toHaveLength(2 * PODMAN_FOOTER_SIZE)
  })

  it('are those of stargz-snapshotter, byte for byte', () => {
    const position = {offset: 3_049_132, size: 11_897, rawSize: 69_647}
    expect(Buffer.from(encodeStargzFooter(position)).toString('hex')).toBe(STARGZ)
    expect(parseStargzFooter(Buffer.from(STARGZ, 'hex'))).toEqual({
      tocOffset: position.offset,
      tocSize: position.size,
      tocHeaderSize: 8,
    })
    expect(STARGZ).toHaveLength(2 * STARGZ_FOOTER_SIZE)
  })

  it('are not taken for each other, cut short, or lengthened', () => {
    const podman = Buffer.from(PODMAN, 'hex')
    const stargz = Buffer.from(STARGZ, 'hex')
    for (const bytes of [podman, podman.subarray(-40), stargz.subarray(1), Buffer.alloc(0)]) {
      expect(parseStargzFooter(bytes)).toBeUndefined()
    }
    for (const bytes of [stargz, podman.subarray(1), Buffer.concat([podman, Buffer.alloc(1)])]) {
      expect(parsePodmanFooter(bytes)).toBeUndefined()
    }
  })

  it.each([
    ['another type', 24, 2],
    ['an offset that no number can hold exactly', 7, 1],
    ['a size that no number can hold exactly', 15, 1],
  ])('are none with %s', (_, at, value) => {
    const podman = Buffer.from(PODMAN, 'hex')
    podman[at] = value
    expect(parsePodmanFooter(podman)).toBeUndefined()
  })

  it('are found wherever they are in a buffer', () => {
    const bytes = Buffer.concat([Buffer.alloc(13), Buffer.from(PODMAN, 'hex')])
    expect(parsePodmanFooter(bytes.subarray(13))).toEqual(found)
  })
})
