import {hash} from 'node:crypto'
import {open, readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {gzipSync, zstdCompressSync} from 'node:zlib'
import {describe, expect, it, onTestFinished} from 'vitest'
import type {MemberKind} from '../../src/lib/compression/codec.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {temporaryDirectory} from '../support/temporary.ts'

interface Chunk {
  readonly start: number
  readonly size: number
  readonly to: number
  readonly hash: Uint8Array
}

const CONTENTS = Buffer.from(Array.from({length: 5000}, (_, index) => (index * index) >> 3))
const chunkAt = (start: number, size: number, to: number): Chunk => ({
  start,
  size,
  to,
  hash: hash('sha256', CONTENTS.subarray(start, start + size), 'buffer'),
})
const CHUNKS = [chunkAt(0, 3000, 8192), chunkAt(3000, 1500, 0)]

const {unpackStreams} = createBulkCodec()

/** Unpacks one stream into a fresh file; resolves to what was said of it, and what the file holds then. */
async function unpack(kind: MemberKind, bytes: Uint8Array, chunks: readonly Chunk[], path?: string) {
  const file = await open(path ?? join(await temporaryDirectory(), 'data'), 'w')
  onTestFinished(() => file.close())
  const wanted = Math.max(...chunks.map(({start, size}) => start + size))
  const places = {
    streams: Float64Array.of(0, bytes.length, wanted, chunks.length),
    chunks: Float64Array.from(chunks.flatMap(({start, size, to}) => [start, size, to])),
    hashes: Buffer.concat(chunks.map(chunk => chunk.hash)),
  }
  return {unpacked: await unpackStreams!(kind, bytes, places, file.fd), places, file}
}

describe.runIf(unpackStreams)('unpacking streams', () => {
  it.each([
    ['gzip', gzipSync(CONTENTS)],
    ['zstd', zstdCompressSync(CONTENTS, {pledgedSrcSize: CONTENTS.length})],
  ] as const)('of %s writes each chunk to its place', async (kind, bytes) => {
    const path = join(await temporaryDirectory(), 'data')
    const {unpacked} = await unpack(kind, bytes, CHUNKS, path)
    expect([...unpacked]).toEqual([1])
    const file = await readFile(path)
    expect(file.subarray(8192, 11_192)).toEqual(CONTENTS.subarray(0, 3000))
    expect(file.subarray(0, 1500)).toEqual(CONTENTS.subarray(3000, 4500))
  })

  it('writes nothing of a stream that has a chunk with another digest', async () => {
    const path = join(await temporaryDirectory(), 'data')
    const wrong = {...CHUNKS[1]!, hash: Buffer.alloc(32)}
    const {unpacked} = await unpack('gzip', gzipSync(CONTENTS), [CHUNKS[0]!, wrong], path)
    expect([...unpacked]).toEqual([0])
    expect(await readFile(path)).toHaveLength(0)
  })

  it('leaves to the caller what is damaged, cut short, of several members, or not to be written', async () => {
    const good = gzipSync(CONTENTS)
    const damaged = Buffer.from(good)
    damaged[good.length >> 1]! ^= 1
    const halves = Buffer.concat([gzipSync(CONTENTS.subarray(0, 100)), gzipSync(CONTENTS.subarray(100))])
    const bomb = Buffer.from(good)
    bomb.writeUInt32LE(0xfffffff0, good.length - 4)
    for (const bytes of [damaged, good.subarray(0, -9), halves, bomb, Buffer.alloc(0), Buffer.alloc(40)]) {
      expect([...(await unpack('gzip', bytes, CHUNKS)).unpacked]).toEqual([0])
      expect([...(await unpack('zstd', bytes, CHUNKS)).unpacked]).toEqual([0])
    }
    expect([...(await unpack('gzip', good, CHUNKS, '/dev/full')).unpacked]).toEqual([0])
    expect([...(await unpack('gzip', good, [{...CHUNKS[0]!, start: 4990}])).unpacked]).toEqual([0])
  })

  it('refuses tables that do not fit each other', async () => {
    const bytes = gzipSync(CONTENTS)
    const {places, file} = await unpack('gzip', bytes, CHUNKS)
    const call = (change: object) => unpackStreams!('gzip', bytes, {...places, ...change}, file.fd)
    await expect(call({streams: Float64Array.of(0, 10)})).rejects.toThrow('wrong arguments')
    await expect(call({chunks: Float64Array.of(0)})).rejects.toThrow('wrong arguments')
    await expect(call({hashes: new Uint8Array(31)})).rejects.toThrow('wrong arguments')
    for (const count of [3, -1, Number.NaN, 1e300]) {
      await expect(call({streams: Float64Array.of(0, bytes.length, 10, count)})).rejects.toThrow('outside')
    }
    for (const [from, to] of [
      [-1, 10],
      [10, 5],
      [0, bytes.length + 1],
      [Number.NaN, 1],
    ] as const) {
      const streams = Float64Array.of(from, to, 10, 2)
      expect([...(await call({streams}))]).toEqual([0])
    }
  })
})
