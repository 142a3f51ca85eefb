import {zstdCompressSync, zstdDecompressSync} from 'node:zlib'
import {beforeAll, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {TAR_SPLIT_POSITION} from '../../src/lib/oci/annotations.ts'
import {type Descriptor, withAnnotations} from '../../src/lib/oci/descriptor.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {checkTarSplit} from '../../src/lib/zstdchunked/check-tar-split.ts'
import {zstdChunkedCompressor} from '../../src/lib/zstdchunked/compressor.ts'
import type {FramePosition} from '../../src/lib/zstdchunked/footer.ts'
import {parsePositions} from '../../src/lib/zstdchunked/positions.ts'
import {buildBlob, entriesOf} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {tarOf} from '../support/sample-image.ts'

let bytes: Uint8Array
let descriptor: Descriptor
let position: FramePosition
/** The lines of the layer's tar-split. */
let lines: readonly string[]
let tar: {readonly entries: ReturnType<typeof entriesOf>; readonly size: number}

beforeAll(async () => {
  const source = tarOf({'a.txt': 'contents of a', empty: ''})
  const built = await buildBlob(source, {compressor: zstdChunkedCompressor(3, 'podman')})
  ;({bytes, descriptor} = built)
  position = parsePositions(descriptor.annotations!)!.tarSplit!
  const {offset, size} = position
  lines = zstdDecompressSync(bytes.subarray(offset, offset + size))
    .toString()
    .split('\n')
    .slice(0, -1)
  // The landmark comes first: a header, a byte, and its padding.
  const landmark = entriesOf(tarOf({'.no.prefetch.landmark': 'x'}))
  tar = {entries: [...landmark, ...entriesOf(source)], size: built.uncompressedSize}
})

/** What is said about other lines. */
async function check(changed: readonly string[]): Promise<string> {
  const raw = changed.map(line => `${line}\n`).join('')
  const frame = zstdCompressSync(raw)
  const place = {offset: 0, size: frame.length, rawSize: Buffer.byteLength(raw)}
  const findings = await checkTarSplit(memoryBlob(frame), {position: place, digest: digestOf(frame), tar})
  expect(findings.every(({kind}) => kind === 'tar-split')).toBe(true)
  return findings.map(({message}) => message).join()
}

/** What `verify` says about the layer with its bytes or annotations changed. */
async function verify(changed: Uint8Array, tarSplit?: string): Promise<string[]> {
  const annotated = tarSplit ? withAnnotations(descriptor, {[TAR_SPLIT_POSITION]: tarSplit}) : descriptor
  const {findings} = await verifyLayer(memoryBlob(changed), annotated, {codec: createBulkCodec()})
  return findings.filter(({kind}) => kind === 'tar-split').map(({message}) => message)
}

it('a tar-split that is right', async () => {
  expect(await verify(bytes)).toEqual([])
  expect(await check(lines)).toBe('')
})

it('one that was changed does not have the digest that the TOC gives, or does not decompress', async () => {
  for (const at of [0, position.size >> 1, position.size - 1]) {
    const changed = Uint8Array.from(bytes)
    changed[position.offset + at]! ^= 1
    expect(await verify(changed), `byte ${at}`).toHaveLength(1)
  }
})

it('one that is elsewhere, or of another size', async () => {
  const {offset, size, rawSize} = position
  expect(await verify(bytes, `${bytes.length}:5:5`)).toEqual([expect.stringMatching(/outside/)])
  expect(await verify(bytes, `${offset}:${size}:${rawSize + 1}`)).toEqual([
    expect.stringMatching(/cut short/),
  ])
  expect(await verify(bytes, `${offset}:${size}:${rawSize - 1}`)).toEqual([
    expect.stringMatching(/more than/),
  ])
  expect(await verify(bytes, `${offset}:${size - 1}:${rawSize}`)).toHaveLength(1)
})

it('one that describes another tar', async () => {
  const changed = (from: string | RegExp, to: string) => lines.map(line => line.replace(from, to))
  expect(await check(changed('"a.txt"', '"b.txt"'))).toMatch(/"a.txt" where the tar has it/)
  expect(await check(changed('"size":13', '"size":14'))).toMatch(/"a.txt" where the tar has it/)
  expect(await check(changed(/"payload":"[^"]{40}/, '"payload":"'))).toMatch(/makes a tar of/)
  expect(await check(lines.slice(0, -1))).toMatch(/makes a tar of/)
  expect(await check(lines.slice(0, 3))).toMatch(/where the tar has it/)
  const more = `{"type":1,"name":"more","payload":null,"position":${lines.length}}`
  expect(await check([...lines, more])).toMatch(/files that the tar has not/)
})

it('one that makes no sense', async () => {
  expect(await check(lines.toReversed())).toMatch(/not in its place/)
  expect(await check(['nonsense'])).toMatch(/no JSON object/)
  expect(await check(['[]'])).toMatch(/no JSON object/)
  expect(await check(['{"type":3,"position":0}'])).toMatch(/neither/)
  expect(await check(['{"type":1,"size":"x","name":"a","position":0}'])).toMatch(/is no file/)
})
