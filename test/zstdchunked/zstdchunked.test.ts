// zstd:chunked layers as they are written: what is in the blob, the TOC, the tar-split and the annotations.

import {zstdDecompressSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {decompressStream} from '../../src/lib/blob/decompress.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ConvertedBlob, ConvertLayerOptions} from '../../src/lib/convert/convert-layer.ts'
import {openLayer, readFile} from '../../src/lib/estargz/open-layer.ts'
import {planLayer} from '../../src/lib/estargz/plan-layer.ts'
import {findAddon} from '../../src/lib/native/addon.ts'
import {createNativeCodec} from '../../src/lib/native/bulk-codec.ts'
import {createCrc64} from '../../src/lib/native/crc64.ts'
import {createNodeCodec} from '../../src/lib/native/node-codec.ts'
import {
  OWN_TOC_DIGEST,
  TOC_DIGEST,
  UNCOMPRESSED_SIZE,
  ZSTD_CHUNKED_CHECKSUM,
} from '../../src/lib/oci/annotations.ts'
import {OCI_LAYER_ZSTD} from '../../src/lib/oci/media-type.ts'
import {type ZstdChunkedDialect, zstdChunkedCompressor} from '../../src/lib/zstdchunked/compressor.ts'
import {parseOldPositions, parsePositions} from '../../src/lib/zstdchunked/positions.ts'
import {buildTarSplit} from '../../src/lib/zstdchunked/tar-split.ts'
import {buildBlob, entriesOf} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {archive, directory, member, pax} from '../support/tar.ts'

const BIG = Buffer.from(Array.from({length: 20_000}, (_, index) => index % 251))
const TAR = archive(
  directory('d/'),
  member({name: 'd/a', uid: 1000, gid: 1000, userName: 'me', mtime: 1_700_000_000}, 'contents of a'),
  member({name: 'd/empty'}),
  pax({
    mtime: '1700000000.123456789',
    atime: '1600000000.5',
    'SCHILY.xattr.user.k': 'v',
    'SCHILY.xattr.user.none': '',
  }),
  member({name: 'd/times'}, 'with times'),
  member({name: 'd/big'}, BIG),
  member({name: 'link', typeflag: '2', linkName: 'd/a', devMajor: 3, devMinor: 7}),
  member({name: 'hard', typeflag: '1', linkName: 'd/a'}),
  member({name: 'null', typeflag: '3', devMajor: 1, devMinor: 3}),
)

interface Built extends ConvertedBlob {
  readonly bytes: Uint8Array
  readonly tar: Uint8Array
}

async function build(
  dialect: ZstdChunkedDialect = 'podman',
  options: Partial<ConvertLayerOptions> = {},
): Promise<Built> {
  const built = await buildBlob(TAR, {compressor: zstdChunkedCompressor(3, dialect), ...options})
  const parts: Uint8Array[] = []
  for await (const part of decompressStream(once(built.bytes), 'the layer')) parts.push(part)
  return {...built, tar: Buffer.concat(parts)}
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}

const positionsOf = ({descriptor}: Built) => parsePositions(descriptor.annotations!)!

function tocOf(built: Built): {tarSplitDigest: string; entries: Record<string, unknown>[]} {
  const {offset, size} = positionsOf(built).toc
  return JSON.parse(zstdDecompressSync(built.bytes.subarray(offset, offset + size)).toString())
}

type TarSplitEntry = {type: number; name?: string; size?: number; payload: string | null}

async function tarSplitOf(built: Built): Promise<TarSplitEntry[]> {
  const {offset, size, rawSize} = positionsOf(built).tarSplit!
  const frames = built.bytes.subarray(offset, offset + size)
  expect(digestOf(frames)).toBe(tocOf(built).tarSplitDigest)
  const parts: Uint8Array[] = []
  for await (const part of decompressStream(once(frames), 'the tar-split')) parts.push(part)
  const raw = Buffer.concat(parts)
  expect(raw).toHaveLength(rawSize)
  const lines = raw.toString().split('\n')
  expect(lines.pop()).toBe('')
  return lines.map((line, position) => {
    const {position: written, ...entry} = JSON.parse(line)
    expect(written).toBe(position)
    return entry
  })
}

/** The tar that tar-split and files make, with each file checked as tar-split's own reader does. */
async function reassemble(built: Built, entries: readonly TarSplitEntry[]): Promise<Uint8Array> {
  const contents = new Map(entriesOf(built.tar).map(entry => [entry.name, entry]))
  const parts: Uint8Array[] = []
  for (const {type, name, size = 0, payload} of entries) {
    if (type === 2) {
      parts.push(Buffer.from(payload!, 'base64'))
      continue
    }
    if (size === 0) continue
    const entry = contents.get(name!)!
    const start = entry.headerOffset + entry.headerSize
    const bytes = built.tar.subarray(start, start + size)
    const crc = createCrc64()
    crc.update(bytes)
    expect(Buffer.from(crc.digest()).toString('base64')).toBe(payload)
    parts.push(bytes)
  }
  return Buffer.concat(parts)
}

describe('a zstd:chunked layer', () => {
  it('is the same blob for both dialects; annotations tell who may verify it', async () => {
    const podman = await build('podman')
    const stargz = await build('stargz')
    expect(podman.descriptor.digest).toBe(stargz.descriptor.digest)
    expect(podman.descriptor.mediaType).toBe(OCI_LAYER_ZSTD)
    expect(podman.descriptor.annotations).not.toHaveProperty([TOC_DIGEST])
    expect(stargz.descriptor.annotations).not.toHaveProperty([ZSTD_CHUNKED_CHECKSUM])
    expect(stargz.descriptor.annotations![TOC_DIGEST]).toBe(stargz.tocDigest)
    expect(podman.descriptor.annotations![OWN_TOC_DIGEST]).toBe(stargz.tocDigest)
    expect(parseOldPositions(podman.descriptor.annotations!)).toEqual(
      parseOldPositions(stargz.descriptor.annotations!),
    )
  })

  it('is found by its footer alone, and by its annotations', async () => {
    const {bytes, descriptor, tocDigest} = await build()
    for (const annotations of [undefined, descriptor.annotations]) {
      const layer = await openLayer(memoryBlob(bytes), {where: 'the layer', annotations})
      expect(layer.tocDigest).toBe(tocDigest)
      expect(layer.decompressor.name).toBe('zstd:chunked')
      const parts: Uint8Array[] = []
      for await (const part of readFile(layer, layer.files.get('d/big')!)) parts.push(part)
      expect(Buffer.concat(parts)).toEqual(BIG)
    }
  })

  it('is refused when annotations vouch for another TOC, or lead out of it', async () => {
    const {bytes, descriptor} = await build()
    const {toc} = parsePositions(descriptor.annotations!)!
    const open = (key: string, value: string) =>
      openLayer(memoryBlob(bytes), {
        where: 'the layer',
        annotations: {...descriptor.annotations, [`io.github.containers.zstd-chunked.${key}`]: value},
      })
    await expect(open('manifest-checksum', digestOf('other'))).rejects.toThrow(/it is not sha256:/)
    for (const position of [
      '0:5:5:1',
      `${bytes.length}:5:5:1`,
      `${toc.offset}:0:5:1`,
      `${toc.offset}:999999:5:1`,
    ])
      await expect(open('manifest-position', position), position).rejects.toThrow(/Cannot use the footer/)
  })

  it('has prioritised files first, then the landmark', async () => {
    const {tar, prioritized} = await build('podman', {prioritizedPaths: ['d/big', 'nowhere', 'hard']})
    expect(entriesOf(tar).map(({path}) => path)).toEqual([
      ...['d', 'd/big', 'd/a', 'hard', '.prefetch.landmark'],
      ...['d/empty', 'd/times', 'link', 'null'],
    ])
    expect(prioritized).toMatchObject({files: 2, missing: ['nowhere']})
    expect(prioritized.bytes).toBeGreaterThan(0)
  })

  it('is the same however often it is made', async () => {
    const first = await build()
    expect((await build()).descriptor).toEqual(first.descriptor)
  })
})

describe('the TOC', () => {
  it('says where the frames of each file end', async () => {
    const built = await build('podman', {chunkSize: 8000})
    const {entries} = tocOf(built)
    const {bytes} = built
    const chunks = entries.filter(entry => entry.offset)
    expect(entries.filter(({name}) => name === 'd/big').map(entry => !!entry.endOffset)).toEqual([
      false,
      false,
      true,
    ])
    for (const [index, entry] of chunks.entries()) {
      const end = (chunks[index + 1]?.offset ?? entry.endOffset) as number
      if (entry.endOffset) expect(entry.endOffset).toBe(end)
      const frame = bytes.subarray(entry.offset as number, end)
      expect([...frame.subarray(0, 4)], `${entry.name}`).toEqual([0x28, 0xb5, 0x2f, 0xfd])
    }
  })

  it("has every time and device number, because Podman compares them with the tar's", async () => {
    const {entries} = tocOf(await build())
    const named = (name: string) => entries.find(entry => entry.name === name)
    expect(named('d/')).toMatchObject({modtime: '1970-01-01T00:00:00Z'})
    expect(named('d/times')).toMatchObject({
      modtime: '2023-11-14T22:13:20.123456789Z',
      accesstime: '2020-09-13T12:26:40.5Z',
      xattrs: {'user.k': 'dg==', 'user.none': ''},
    })
    expect(named('d/times')).not.toHaveProperty('changetime')
    expect(named('link')).toMatchObject({devMajor: 3, devMinor: 7})
    expect(named('d/a')).toMatchObject({uid: 1000, userName: 'me', digest: digestOf('contents of a')})
  })
})

describe('the tar-split', () => {
  it.each([
    ['native', createNativeCodec(findAddon()!)],
    ['node', createNodeCodec()],
  ])('and the files make the tar again, byte for byte (%s codec)', async (_, codec) => {
    const built = await build('podman', {codec, prioritizedPaths: ['d/times'], chunkSize: 8000})
    const entries = await tarSplitOf(built)
    expect(digestOf(await reassemble(built, entries))).toBe(built.diffId)
  })

  it('makes the tar again where global records were folded into headers, and padding is not zero', async () => {
    const dirty = member({name: 'dirty'}, 'x')
    dirty[dirty.length - 1] = 7
    const tar = archive(pax({uid: '77'}, 'g'), member({name: 'folded'}, 'folded'), dirty)
    const built = await buildBlob(tar, {compressor: zstdChunkedCompressor(3, 'podman')})
    const parts: Uint8Array[] = []
    for await (const part of decompressStream(once(built.bytes), 'the layer')) parts.push(part)
    const whole = {...built, tar: Buffer.concat(parts)}
    expect(digestOf(await reassemble(whole, await tarSplitOf(whole)))).toBe(built.diffId)
  })

  it('has names that are not UTF-8 as bytes, and then no annotations lead Podman there', async () => {
    const name = Buffer.from([0x66, 0xff])
    const tar = archive(member({name}, 'contents'))
    const compressor = zstdChunkedCompressor(3, 'podman')
    const {bytes, descriptor} = await buildBlob(tar, {compressor})
    expect(Object.keys(descriptor.annotations!).sort()).toEqual([OWN_TOC_DIGEST, UNCOMPRESSED_SIZE])
    const layer = await openLayer(memoryBlob(bytes), {where: 'the layer'})
    expect([...layer.files.keys()]).toEqual(['f\udcff'])
    const plan = planLayer(entriesOf(tar), {prioritizedPaths: [], chunkSize: 100})
    const spool = {size: tar.length, storage: tar}
    const tarSplit = await buildTarSplit({plan, spool, codec: createNodeCodec()}, 3)
    expect(zstdDecompressSync(tarSplit.bytes).toString()).toContain(
      `{"type":1,"name_raw":"${name.toString('base64')}","size":8,"payload":"`,
    )
  })

  it('has one segment before each file, with all of its headers, as Podman expects', async () => {
    const built = await build()
    const entries = await tarSplitOf(built)
    const files = entriesOf(built.tar)
    expect(entries.map(({type}) => type)).toEqual([...files.flatMap(() => [2, 1]), 2])
    expect(entries.filter(({type}) => type === 1).map(({name, size = 0}) => [name, size])).toEqual(
      files.map(({name, size}) => [name, size]),
    )
    expect(entries.find(({name}) => name === 'd/empty')).toEqual({type: 1, name: 'd/empty', payload: null})
  })
})
