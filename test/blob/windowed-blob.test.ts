import {describe, expect, it} from 'vitest'
import {windowedBlob} from '../../src/lib/blob/windowed-blob.ts'
import type {BlobSource} from '../../src/lib/oci/content-store.ts'

const WINDOW = 4 << 20
const bytes = Buffer.from(Uint32Array.from({length: (WINDOW * 2.5) / 4}, (_, index) => index).buffer)

function blobOf(): {blob: BlobSource; reads: [number, number][]; failNext: () => void} {
  const reads: [number, number][] = []
  let fails = 0
  return {
    reads,
    failNext: () => fails++,
    blob: {
      size: bytes.length,
      read: async (offset, length) => {
        reads.push([offset, length])
        if (fails-- > 0) throw new Error('unreachable')
        fails = 0
        return bytes.subarray(offset, offset + length)
      },
    },
  }
}

describe('a windowed blob', () => {
  const check = (offset: number, length: number) =>
    it(`reads ${length} bytes at ${offset} right`, async () => {
      const read = await windowedBlob(blobOf().blob).read(offset, length)
      expect(Buffer.compare(Buffer.from(read), bytes.subarray(offset, offset + length))).toBe(0)
    })

  check(0, 0)
  check(0, 1)
  check(WINDOW - 1, 2)
  check(WINDOW - 1, WINDOW)
  check(WINDOW, WINDOW)
  check(3, WINDOW + 1)
  check(bytes.length - 5, 5)
  check(0, bytes.length)

  it('asks once for what is near, also at the same time', async () => {
    const {blob, reads} = blobOf()
    const windowed = windowedBlob(blob)
    await Promise.all(Array.from({length: 100}, (_, index) => windowed.read(index * 1000, 900)))
    await windowed.read(5, 5)
    expect(reads).toEqual([[0, WINDOW]])
  })

  it('asks again after a failure', async () => {
    const {blob, failNext} = blobOf()
    const windowed = windowedBlob(blob)
    failNext()
    await expect(windowed.read(0, 10)).rejects.toThrow('unreachable')
    expect(await windowed.read(0, 10)).toHaveLength(10)
  })

  it('leaves ranges outside of the blob to the blob', async () => {
    const {blob, reads} = blobOf()
    await windowedBlob(blob).read(bytes.length - 1, 2)
    expect(reads).toEqual([[bytes.length - 1, 2]])
  })
})
