import {describe, expect, it} from 'vitest'
import {createDemandWindow} from '../../src/lib/layer/demand-window.ts'

const KiB = 1 << 10
const MiB = 1 << 20

const FAR = {isDense: false, isNear: false}
const NEAR = {isDense: false, isNear: true}

describe('the window of what is fetched around a read', () => {
  it('is small for a reader who jumps about: behind the little that he waits for, and before it', () => {
    const window = createDemandWindow()
    for (const offset of [0, 50 * MiB, 10 * MiB, 90 * MiB]) {
      expect(window.next(offset, offset + 10, FAR)).toEqual({
        awaited: 64 * KiB,
        ahead: 256 * KiB,
        behind: 128 * KiB,
      })
    }
  })

  it('is one request where requests cost more than bytes', () => {
    const window = createDemandWindow()
    for (const offset of [0, 50 * MiB, 10 * MiB]) {
      const around = {awaited: 128 * KiB, ahead: 128 * KiB, behind: 0}
      expect(window.next(offset, offset + 10, NEAR)).toEqual(around)
    }
  })

  it.each([
    ['far', FAR, [256, 512, 1024, 2048, 4096, 4096, 4096]],
    ['near', NEAR, [128, 256, 512, 1024, 2048, 4096, 4096]],
  ] as const)(
    'doubles up to a limit for one who reads on, also with gaps as in a cluster of files: %s',
    (_, reader, wanted) => {
      for (const gap of [0, 40 * KiB, -40 * KiB]) {
        const window = createDemandWindow()
        const sizes: number[] = []
        for (let offset = MiB; sizes.length < 7; offset += sizes.at(-1)! + gap) {
          sizes.push(window.next(offset, offset + 10, reader).ahead)
        }
        expect(sizes.map(size => size / KiB)).toEqual(wanted)
      }
    },
  )

  it('is as large as can be where nearly everything is read', () => {
    for (const reader of [FAR, NEAR]) {
      expect(createDemandWindow().next(0, 10, {...reader, isDense: true}).ahead).toBe(4 * MiB)
    }
  })
})
