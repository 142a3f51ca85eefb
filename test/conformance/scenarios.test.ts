// What the reference's own suites ask of a layer (sort, landmarks, duplicates, hard links, long names, types, several
// files in a stream, parallelism), for every format that takes prioritised files.

import {describe, expect, it} from 'vitest'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {readFile} from '../../src/lib/estargz/open-layer.ts'
import {TOC_DIGEST} from '../../src/lib/oci/annotations.ts'
import {entriesOf} from '../support/layers.ts'
import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'
import {decompressed, LAZY_FORMATS, type LayerFormat, ORDERED_FORMATS, openBuilt} from './formats.ts'

const PREFETCH = '.prefetch.landmark'
const NO_PREFETCH = '.no.prefetch.landmark'

const file = (name: string, body: string | Uint8Array = name) => member({name}, body)
const link = (name: string, linkName: string) => member({name, typeflag: '1', linkName})
const symlink = (name: string, linkName: string) => member({name, typeflag: '2', linkName})
const LONG = `long/${'n'.repeat(180)}`

/** Names of the tar and of the TOC, in order; both must be the same. */
async function namesIn(format: LayerFormat, tar: Uint8Array, prioritized: readonly string[]) {
  const built = await format.build(tar, prioritized)
  const inTar = entriesOf(await decompressed(built)).map(({path}) => path || '.')
  const layer = await openBuilt(built)
  const inToc = [...layer.filesAndLandmarks.keys()].map(path => path || '.')
  expect(inTar.filter(path => path !== 'stargz.index.json')).toEqual(inToc)
  return inToc
}

describe.each(ORDERED_FORMATS)('$name is sorted', format => {
  const sorts = (name: string, members: readonly Uint8Array[], wanted: readonly string[], expected: string) =>
    it(name, async () => {
      expect((await namesIn(format, archive(...members), wanted)).join(' ')).toBe(expected)
    })

  sorts('not at all without a list', [file('b'), file('a')], [], `${NO_PREFETCH} b a`)
  sorts('into the order it has', [file('a'), file('b')], ['a', 'b'], `a b ${PREFETCH}`)
  sorts('by files', [file('a'), file('b'), file('c')], ['c', 'a'], `c a ${PREFETCH} b`)
  sorts(
    'by files in directories, which come before them',
    [file('x'), directory('d/'), directory('d/e/'), file('d/e/a'), file('d/b')],
    ['d/e/a', 'd/b'],
    `d d/e d/e/a d/b ${PREFETCH} x`,
  )
  sorts(
    'by directories',
    [file('a'), directory('d/'), file('d/b'), directory('e/')],
    ['e', 'd/'],
    `e d ${PREFETCH} a d/b`,
  )
  sorts(
    'by hard links, whose targets come before them',
    [directory('d/'), file('a'), file('d/t'), link('l', 'd/t'), link('m', 'l')],
    ['m'],
    `d d/t l m ${PREFETCH} a`,
  )
  sorts('by symlinks alone', [file('a'), file('b'), symlink('s', 'b')], ['s'], `s ${PREFETCH} a b`)
  sorts(
    'by long names of both kinds',
    [file('a'), directory('long/'), gnuLong('L', LONG), member({name: 'cut', format: 'gnu'}, 'l')],
    [LONG],
    `long ${LONG} ${PREFETCH} a`,
  )
  sorts(
    'by long names in PAX records',
    [file('a'), pax({path: LONG}), member({name: 'cut'}, 'l')],
    [LONG],
    `${LONG} ${PREFETCH} a`,
  )
  sorts(
    'by devices, pipes and empty files',
    [file('a'), member({name: 'c', typeflag: '3'}), member({name: 'p', typeflag: '6'}), file('e', '')],
    ['e', 'p', 'c'],
    `e p c ${PREFETCH} a`,
  )
  sorts(
    'by the last of several of one name',
    [file('a', '1'), file('b'), file('a', '2')],
    ['b'],
    `b ${PREFETCH} a`,
  )
  sorts('whatever is missing', [file('a'), file('b')], ['gone', 'b', 'd/gone'], `b ${PREFETCH} a`)
  sorts('not at all when all is missing', [file('a')], ['gone'], `${NO_PREFETCH} a`)
  sorts('however a name is spelled', [file('./a'), file('/b')], ['/b', 'a', './a'], `b a ${PREFETCH}`)
  sorts('with the root first', [file('b'), directory('./'), file('./a')], ['a'], `. a ${PREFETCH} b`)
  for (const landmark of [PREFETCH, NO_PREFETCH]) {
    const old = member({name: landmark}, '\x0f')
    sorts(`without an old ${landmark}`, [file('a'), old, file('b')], ['b'], `b ${PREFETCH} a`)
    sorts(`without an old ${landmark}, with nothing prioritised`, [file('a'), old], [], `${NO_PREFETCH} a`)
  }

  it('so that what must be prefetched ends at the landmark', async () => {
    const tar = archive(file('a', 'a'.repeat(5000)), file('b', 'b'.repeat(5000)), file('c', 'c'))
    const layer = await openBuilt(await format.build(tar, ['b']))
    expect(layer.landmark?.path).toBe(PREFETCH)
    const [landmark] = layer.landmark!.chunks
    expect(landmark).toMatchObject({innerOffset: 0, size: 1, offset: layer.prefetchSize})
    const ends = (path: string) => layer.files.get(path)!.chunks.map(({end}) => end)
    expect(Math.max(...ends('b'))).toBeLessThanOrEqual(layer.prefetchSize)
    expect(Math.min(...ends('a'))).toBeGreaterThan(layer.prefetchSize)
    const contents = (await readFile(layer, layer.landmark!).next()).value
    expect(contents).toEqual(Buffer.from([0x0f]))
  })
  it('so that nothing is prefetched without prioritised files', async () => {
    const layer = await openBuilt(await format.build(archive(file('a'))))
    expect(layer).toMatchObject({prefetchSize: 0, landmark: {path: NO_PREFETCH}})
  })
  it('to the same bytes, whoever compresses first', async () => {
    const tar = archive(
      ...Array.from({length: 60}, (_, index) => file(`f${index}`, `${index} `.repeat(index * 40))),
    )
    const digests = await Promise.all(
      Array.from({length: 6}, async () => (await format.build(tar, ['f9', 'f3'])).descriptor.digest),
    )
    expect(new Set(digests).size).toBe(1)
  })
})

describe.each(LAZY_FORMATS)('$name', format => {
  const contentsAt = async (tar: Uint8Array, path: string): Promise<Buffer> => {
    const layer = await openBuilt(await format.build(tar))
    const parts: Uint8Array[] = []
    for await (const part of readFile(layer, layer.files.get(path)!)) parts.push(part)
    return Buffer.concat(parts)
  }

  it('gives each of several small files of one stream its own contents', async () => {
    const names = Array.from({length: 20}, (_, index) => `small${index}`)
    const tar = archive(...names.map(name => file(name)))
    for (const name of names) expect(String(await contentsAt(tar, name))).toBe(name)
  })
  it.each([1, 255, 256, 257, 299, 300, 301, 512, 600, 999, 1000, 1001, 2000])(
    'gives a file of %d bytes in whatever chunks it is',
    async size => {
      const body = Buffer.from(Array.from({length: size}, (_, index) => index % 251))
      expect(await contentsAt(archive(file('before'), file('f', body), file('after')), 'f')).toEqual(body)
    },
  )
  it('chunks cover each file once, in order, and every byte of the blob but the ends', async () => {
    const tar = archive(file('a', 'a'.repeat(3000)), file('e', ''), file('b', 'b'.repeat(1000)))
    const layer = await openBuilt(await format.build(tar))
    for (const {entry, chunks} of layer.files.values()) {
      let covered = 0
      for (const chunk of chunks) {
        expect(chunk.chunkOffset).toBe(covered)
        expect(chunk.end).toBeGreaterThan(chunk.offset)
        covered += chunk.size
      }
      expect(covered).toBe(entry.size ?? 0)
    }
  })
  it.each(['ustar', 'gnu', 'v7'] as const)('is made of an archive in the format %s', async tarFormat => {
    const tar = archive(
      member({name: 'd/', typeflag: '5', format: tarFormat}),
      member({name: 'd/a', format: tarFormat, mtime: 1e9}, 'contents'),
    )
    expect(String(await contentsAt(tar, 'd/a'))).toBe('contents')
  })
  it.each(['', './', '/'])('is made of an archive whose names start with "%s"', async prefix => {
    const tar = archive(
      directory(`${prefix}d/`),
      file(`${prefix}d/a`, 'contents'),
      link(`${prefix}l`, `${prefix}d/a`),
    )
    expect(String(await contentsAt(tar, 'd/a'))).toBe('contents')
  })
  it('is not made of an archive whose names leave it', async () => {
    const code = await format.build(archive(file('../a'))).then(() => 'made', codeOf)
    expect(code).toBe('corrupt')
  })
  it('is read where its manifest still says where the TOC of its zstd:chunked source was', async () => {
    const built = await format.build(archive(file('a')))
    const {annotations = {}} = built.descriptor
    // What is vouched for by these alone cannot be told from what is stale.
    if (!annotations[TOC_DIGEST] || annotations['io.containers.zstd-chunked.manifest-position']) return
    const stale = {
      'io.containers.zstd-chunked.manifest-checksum': annotations[TOC_DIGEST],
      'io.containers.zstd-chunked.manifest-position': '10:20:30:1',
      ...annotations,
    }
    const layer = await openBuilt({...built, descriptor: {...built.descriptor, annotations: stale}})
    expect([...layer.files.keys()]).toEqual(['a'])
  })
  it('is not read with another TOC digest', async () => {
    const built = await format.build(archive(file('a')))
    const other = await format.build(archive(file('b')))
    const mixed = {...built, descriptor: other.descriptor}
    expect(await openBuilt(mixed).then(() => 'opened', codeOf)).toBe('corrupt')
  })
})
