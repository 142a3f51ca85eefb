import {constants, gzipSync, zstdCompressSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {GZIP_DECOMPRESSORS} from '../../src/lib/estargz/decompressor.ts'
import {encodeFooter} from '../../src/lib/estargz/footer.ts'
import {createNativeParser} from '../../src/lib/layer/native-parser.ts'
import {requireAddon} from '../../src/lib/native/addon.ts'
import {tocDigestOf} from '../../src/lib/oci/annotations.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import {encodePodmanFooter, encodeStargzFooter} from '../../src/lib/zstdchunked/footer.ts'
import {encodeSkippableHeader} from '../../src/lib/zstdchunked/skippable-frame.ts'
import {LAZY_FORMATS} from '../conformance/formats.ts'
import {randomLayer} from '../conformance/random-tree.ts'
import {parseWithBoth, taskOfToc} from '../support/both-parsers.ts'
import {HOSTILE_TOCS, reg, toc} from '../support/hostile-tocs.ts'
import {damagedToc, RANDOM_DATA_END, randomToc} from '../support/random-toc.ts'
import {archive, member} from '../support/tar.ts'

/** `TOCS=100000 npx vitest run test/layer/native-parser.test.ts` for longer. */
const TOCS = Number(process.env.TOCS ?? 1500)

describe.each(LAZY_FORMATS)('$name', format => {
  it('is parsed natively as in JavaScript, verified or not, with image or without', async () => {
    for (let seed = 0; seed < 40; seed++) {
      const {tar, prioritizedPaths} = randomLayer(seed)
      const {bytes, descriptor, externalToc} = await format.build(tar, prioritizedPaths)
      const tocDigest = tocDigestOf(descriptor.annotations) as Digest | undefined
      const task = {
        where: `seed ${seed}`,
        blobSize: bytes.length,
        tail: bytes,
        externalToc,
        tocDigest,
        wantsImage: true,
      }
      expect(await parseWithBoth(task)).toHaveProperty('image')
      await parseWithBoth({...task, tocDigest: undefined, wantsImage: false})
    }
  })
})
describe('a TOC', () => {
  it.each(HOSTILE_TOCS)('with %s', async (_, json) => {
    await parseWithBoth(taskOfToc(json))
    await parseWithBoth(taskOfToc(json, 100_000, {tocDigest: undefined}))
    await parseWithBoth(taskOfToc(json, 60, {tocDigest: undefined, wantsImage: false}))
  })
})

describe('random TOCs', () => {
  it.each([
    ['whole', randomToc],
    ['damaged', damagedToc],
  ])('are parsed alike, %s', async (_, make) => {
    let accepted = 0
    for (let seed = 0; seed < TOCS; seed++) {
      const outcome = await parseWithBoth(taskOfToc(make(seed), RANDOM_DATA_END, {where: `seed ${seed}`}))
      if ('map' in outcome) accepted++
    }
    // What is refused must not be all that is compared, nor what is taken.
    expect(accepted).toBeGreaterThan(TOCS / 50)
    expect(accepted).toBeLessThan(TOCS)
  })
})

describe('a wrapped TOC', () => {
  const json = Buffer.from(toc({name: 'a', type: 'fifo'}, reg('b')))
  const tar = archive(member({name: 'stargz.index.json'}, json))
  const gzip = gzipSync(tar)
  const zstd = zstdCompressSync(json)
  const checksummed = zstdCompressSync(json, {params: {[constants.ZSTD_c_checksumFlag]: 1}})
  const withFlags = (flags: number, extra: Uint8Array) =>
    Buffer.concat([gzip.subarray(0, 3), Buffer.of(flags), gzip.subarray(4, 10), extra, gzip.subarray(10)])
  const skippable = Buffer.concat([encodeSkippableHeader(5), Buffer.alloc(5)])
  const halves = [json.subarray(0, 20), json.subarray(20)] as const
  const changed = (at: number, byte: number) => {
    const bytes = Buffer.from(tar)
    bytes[at] = byte
    return gzipSync(bytes)
  }

  it.each([
    ['as writers make it', gzip],
    ['in two members', Buffer.concat([gzipSync(tar.subarray(0, 600)), gzipSync(tar.subarray(600))])],
    ['with something behind it', Buffer.concat([gzip, Buffer.alloc(9)])],
    ['cut short', gzip.subarray(0, -20)],
    ['cut shorter', gzip.subarray(0, 30)],
    ['of a few bytes', gzip.subarray(0, 5)],
    ['with a wrong size', Buffer.concat([gzip.subarray(0, -4), Buffer.of(1, 2, 3, 4)])],
    ['with a huge size', Buffer.concat([gzip.subarray(0, -4), Buffer.of(255, 255, 255, 255)])],
    ['with a wrong checksum', Buffer.concat([gzip.subarray(0, -8), Buffer.alloc(4), gzip.subarray(-4)])],
    ['with a name', withFlags(8, Buffer.from('name\0'))],
    ['with a wrong checksum of its header', withFlags(2, Buffer.of(1, 2))],
    ['with flags that do not exist', withFlags(0x40, Buffer.alloc(0))],
    ['that is no gzip', Buffer.alloc(100, 7)],
    ['that is zstd', zstd],
    ['in a tar with another name', gzipSync(archive(member({name: 'other.json'}, json)))],
    ['in a tar with a prefix', changed(345, 0x61)],
    ['in a tar with a wrong checksum', changed(150, 0x31)],
    ['in a tar with a time that is none', changed(140, 0x7a)],
    ['in a tar with two numbers in a field', changed(140, 0x20)],
    ['in a tar that is cut short', gzipSync(tar.subarray(0, 520))],
    ['in half a header', gzipSync(tar.subarray(0, 300))],
    ['in nothing', gzipSync('')],
    ['in a GNU tar', gzipSync(archive(member({name: 'stargz.index.json', format: 'gnu'}, json)))],
  ])('in gzip is unwrapped as in JavaScript, %s', async (_, wrapped) => {
    const tail = Buffer.concat([Buffer.alloc(80), wrapped, encodeFooter(80)])
    const task = {where: 'the layer', blobSize: tail.length, tail, externalToc: undefined, wantsImage: true}
    await parseWithBoth({...task, tocDigest: digestOf(json)})
    await parseWithBoth({...task, tocDigest: undefined})
  })

  it.each([
    ['as writers make it', zstd],
    ['in two frames', Buffer.concat(halves.map(half => zstdCompressSync(half)))],
    ['before a skippable frame', Buffer.concat([zstd, skippable])],
    ['behind a skippable frame', Buffer.concat([skippable, zstd])],
    ['cut short', zstd.subarray(0, -3)],
    ['of a few bytes', zstd.subarray(0, 5)],
    ['that is no zstd', Buffer.alloc(100, 7)],
    ['with something behind it', Buffer.concat([zstd, Buffer.alloc(9)])],
    ['with a window of 2 GiB', Buffer.concat([zstd.subarray(0, 4), Buffer.of(0, 0xa8), zstd.subarray(6)])],
    ['with a wrong checksum', Buffer.concat([checksummed.subarray(0, -4), Buffer.alloc(4)])],
    ['of unknown size', zstdCompressSync(json, {params: {[constants.ZSTD_c_contentSizeFlag]: 0}})],
  ])('in zstd is unwrapped as in JavaScript, %s', async (_, wrapped) => {
    const position = {offset: 80, size: wrapped.length, rawSize: json.length}
    for (const footer of [encodeStargzFooter(position), encodePodmanFooter(position, position)]) {
      const tail = Buffer.concat([Buffer.alloc(80), wrapped, footer])
      const task = {where: 'the layer', blobSize: tail.length, tail, externalToc: undefined, wantsImage: true}
      await parseWithBoth({...task, tocDigest: digestOf(json)})
      await parseWithBoth({...task, tocDigest: undefined})
    }
  })

  it('that is ordinary takes one native call', async () => {
    const {openLayer} = requireAddon()
    for (const [wrapping, bytes] of [
      [1, gzip],
      [2, zstd],
    ] as const) {
      const where = Buffer.from('the layer')
      const layer = await openLayer(where, wrapping, bytes, undefined, 100, false, new Uint8Array(1))
      expect(layer).toMatchObject({status: 0, count: 1})
    }
  })
})

describe('the native parser', () => {
  /** Takes so long that no other thread is kept from running for all of it. */
  const entries = Array.from({length: 500_000}, (_, index) => ({name: `d/${index}`, type: 'fifo'}))
  const large = taskOfToc(JSON.stringify({version: 1, entries}))
  const small = taskOfToc(toc())
  const reasonOf = (promise: Promise<unknown>) =>
    promise.then(
      () => undefined,
      (error: unknown) => error,
    )
  const create = (deadlineMs?: number) =>
    createNativeParser({decompressors: GZIP_DECOMPRESSORS, ...(deadlineMs ? {deadlineMs} : {})})

  it('stops when whoever asked gives up, and others go on', async () => {
    await using parser = create()
    const giveUp = new AbortController()
    const parsing = reasonOf(parser.parse(large, {signal: giveUp.signal}))
    // As long as there are microtasks the call goes on, and cannot have ended.
    for (let turns = 0; turns < 100; turns++) await undefined
    giveUp.abort(new Error('Enough'))
    expect(await parsing).toMatchObject({message: 'Enough'})
    expect((await parser.parse(small, {})).image).toBeDefined()
  })

  it('stops after a deadline', async () => {
    await using parser = create(1)
    await expect(parser.parse(large, {})).rejects.toMatchObject({
      code: 'unavailable',
      message: 'Cannot parse the layer: it takes more than 0.001 seconds',
    })
  })

  it('stops in compiled code, wherever that is', async () => {
    const {openLayer} = requireAddon()
    const layer = await openLayer(
      Buffer.from('the layer'),
      0,
      large.externalToc!,
      undefined,
      1000,
      true,
      Uint8Array.of(1),
    )
    expect(layer).toEqual({status: 3})
  })

  it('keeps nobody waiting for a turn that gives up, and nobody at all when it is closed', async () => {
    const parser = create()
    const giveUp = new AbortController()
    // More than it ever parses at once.
    const busy = Array.from({length: 4}, () => reasonOf(parser.parse(large, {})))
    const waiting = reasonOf(parser.parse(small, {signal: giveUp.signal}))
    giveUp.abort(new Error('Enough'))
    expect(await waiting).toMatchObject({message: 'Enough'})
    await parser[Symbol.asyncDispose]()
    for (const reason of await Promise.all(busy)) expect(reason).toMatchObject({code: 'cancelled'})
    await expect(parser.parse(small, {})).rejects.toMatchObject({code: 'cancelled'})
  })

  it('refuses calls that are none', () => {
    const {openLayer} = requireAddon()
    const bytes = new Uint8Array(3)
    const call = openLayer as (...args: unknown[]) => unknown
    expect(() => call(bytes, 3, bytes, undefined, 1, true, bytes)).toThrow('wrong arguments')
    expect(() => call(bytes, 0, bytes, bytes, 1, true, Uint8Array.of(0))).toThrow('wrong arguments')
    expect(() => call(bytes, 0, bytes, undefined, -1, true, Uint8Array.of(0))).toThrow('wrong arguments')
    expect(() => call(bytes)).toThrow('wrong arguments')
  })
})
