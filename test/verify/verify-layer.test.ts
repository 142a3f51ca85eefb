import {gzipSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {compressPieces} from '../../src/lib/compression/joined-pieces.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {estargzCompressor, tocTarOf} from '../../src/lib/estargz/compressor.ts'
import type {FindingKind} from '../../src/lib/estargz/finding.ts'
import {encodeFooter, encodeLegacyFooter, FOOTER_SIZE, parseFooter} from '../../src/lib/estargz/footer.ts'
import {isEstargzLayer} from '../../src/lib/estargz/is-estargz-layer.ts'
import {openLayer, readChunk} from '../../src/lib/estargz/open-layer.ts'
import {encodeToc, type TocEntry} from '../../src/lib/estargz/toc.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {TOC_DIGEST} from '../../src/lib/oci/annotations.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {convertTar} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {archive, directory, member, pax} from '../support/tar.ts'

const codec = createBulkCodec()
const TAR = archive(
  directory('d/'),
  pax({'SCHILY.xattr.user.x': 'value', mtime: '1700000000.7'}),
  member({name: 'd/a', mode: 0o755, uid: 5}, 'a'.repeat(300)),
  member({name: 'd/b'}, 'b'.repeat(40)),
  member({name: 'c', typeflag: '1', linkName: 'd/a'}),
)

interface Sample {
  readonly bytes: Uint8Array
  readonly descriptor: Descriptor
}

async function findings({bytes, descriptor}: Sample, diffId?: Parameters<typeof verifyLayer>[2]['diffId']) {
  return (await verifyLayer(memoryBlob(bytes), descriptor, {codec, diffId})).findings
}

/** A layer with other bytes, under a descriptor that knows of them. */
function resealed(sample: Sample, bytes: Uint8Array): Sample {
  return {bytes, descriptor: {...sample.descriptor, digest: digestOf(bytes), size: bytes.length}}
}

/** A layer whose TOC was rewritten, with all outer digests right: what only a check of its sense can notice. */
async function withToc(change: (entries: TocEntry[]) => TocEntry[], tar = TAR): Promise<Sample> {
  const layer = await convertTar(tar)
  const {toc, dataEnd} = await openLayer(memoryBlob(layer.bytes), {where: 'the layer'})
  const json = encodeToc(change([...toc.entries]))
  const member = await compressPieces('gzip', 6, tocTarOf({size: json.length, storage: json}), codec)
  const bytes = Buffer.concat([layer.bytes.subarray(0, dataEnd), member, encodeFooter(dataEnd)])
  const annotations = {[TOC_DIGEST]: digestOf(json)}
  return resealed({bytes, descriptor: {...layer.descriptor, annotations}}, bytes)
}

async function check(sample: Sample, ...kinds: readonly FindingKind[]): Promise<void> {
  const found = await findings(sample)
  expect(
    found.map(({kind}) => kind),
    JSON.stringify(found),
  ).toEqual(kinds)
}

describe('a sound layer', () => {
  it.each([
    ['as it is by default', {}],
    ['with chunks', {chunkSize: 100}],
    ['with streams of several chunks', {minChunkSize: 200, chunkSize: 64}],
    ['with prioritised files', {prioritizedPaths: ['c']}],
  ])('%s has no findings', async (_, options) => {
    const layer = await convertTar(TAR, options)
    const result = await verifyLayer(memoryBlob(layer.bytes), layer.descriptor, {codec, diffId: layer.diffId})
    expect(result.findings).toEqual([])
    expect(result).toMatchObject({format: 'eStargz', counts: {files: 4, chunks: layer.counts.chunks}})
    expect(await isEstargzLayer(memoryBlob(layer.bytes), layer.descriptor)).toBe(true)
  })
})

describe('damage', () => {
  it('to any byte is found', async () => {
    const layer = await convertTar(TAR, {chunkSize: 100})
    for (let at = 0; at < layer.bytes.length; at++) {
      const bytes = Uint8Array.from(layer.bytes)
      bytes[at]! ^= 1
      expect((await findings({...layer, bytes})).length, `byte ${at}`).toBeGreaterThan(0)
    }
  })
  it('to the contents is found in the file that it is in, even where the blob digest was made to fit', async () => {
    const layer = await convertTar(archive(member({name: 'a'}, 'aaaa'), member({name: 'b'}, 'bbbb')), {
      compressor: estargzCompressor(0),
    })
    const at = Buffer.from(layer.bytes).indexOf('bbbb')
    const bytes = Uint8Array.from(layer.bytes)
    bytes[at] = 0x63
    expect((await findings(resealed(layer, bytes))).map(({kind}) => kind)).toContain('chunk')
    const {files, ...opened} = await openLayer(memoryBlob(bytes), {where: 'the layer'})
    await expect(readChunk(opened, files.get('b')!.chunks[0]!)).rejects.toSatisfy(
      error => codeOf(error) === 'corrupt',
    )
    await expect(readChunk(opened, files.get('a')!.chunks[0]!)).resolves.toEqual(Buffer.from('aaaa'))
  })
  it('of a layer cut short at any byte is found, and never crashes a reader', async () => {
    const layer = await convertTar(TAR)
    for (let size = 0; size < layer.bytes.length; size += size > layer.bytes.length - 60 ? 1 : 23) {
      const bytes = layer.bytes.subarray(0, size)
      expect((await findings({...layer, bytes})).map(({kind}) => kind)).toContain('blob')
      expect(await isEstargzLayer(memoryBlob(bytes), layer.descriptor)).toBe(false)
    }
  })
})

describe('what a layer says of itself', () => {
  it('must be the right DiffID', async () => {
    const layer = await convertTar(TAR)
    expect((await findings(layer, digestOf('other'))).map(({kind}) => kind)).toEqual(['diff-id'])
  })
  it("must be the TOC's digest", async () => {
    const layer = await convertTar(TAR)
    const annotations = {...layer.descriptor.annotations, [TOC_DIGEST]: digestOf('other')}
    await check({...layer, descriptor: {...layer.descriptor, annotations}}, 'toc-digest')
    expect(await isEstargzLayer(memoryBlob(layer.bytes), {...layer.descriptor, annotations})).toBe(false)
    const {annotations: _, ...plain} = layer.descriptor
    await check({...layer, descriptor: plain}, 'toc-digest')
  })
  it('must be the uncompressed size', async () => {
    const layer = await convertTar(TAR)
    const annotations = {...layer.descriptor.annotations, 'io.containers.estargz.uncompressed-size': '1'}
    await check({...layer, descriptor: {...layer.descriptor, annotations}}, 'uncompressed-size')
  })
  it('must be that it is eStargz', async () => {
    const {descriptor} = await convertTar(TAR)
    const plain = resealed({bytes: TAR, descriptor}, gzipSync(TAR))
    await check(plain, 'footer')
    expect(await isEstargzLayer(memoryBlob(plain.bytes), plain.descriptor)).toBe(false)
  })
})

describe('a TOC that does not tell the truth about the tar', () => {
  const changed = (name: string, change: Partial<TocEntry>) => (entries: TocEntry[]) =>
    entries.map(entry => (entry.name === name ? {...entry, ...change} : entry))
  it.each([
    ['a mode', changed('d/a', {mode: 0o4755})],
    ['an owner', changed('d/a', {uid: 0})],
    ['a time', changed('d/a', {modtime: '2020-01-01T00:00:00Z'})],
    ['a type', changed('d/', {type: 'fifo'})],
    ['a link target', changed('c', {linkName: 'd/b'})],
    ['an attribute', changed('d/a', {xattrs: {'user.x': 'AAAA'}})],
    ['a missing attribute', changed('d/a', {xattrs: {}})],
    [
      'a file that is not there',
      (entries: TocEntry[]) => [...entries, {name: 'more', type: 'dir'} as TocEntry],
    ],
    ['a missing file', (entries: TocEntry[]) => entries.filter(({name}) => name !== 'd/b')],
  ])('is found by %s', async (_, change) => check(await withToc(change), 'tree'))
  it.each(['0.75', '0.25', '-0.5', '-1.5'])('is not one with the time %s', async mtime =>
    check(await convertTar(archive(pax({mtime}), member({name: 'a'})))),
  )
  it('is found by the digest of a file', async () =>
    check(await withToc(changed('d/a', {digest: digestOf('other')})), 'file-digest'))
  it('is found by the digest of a chunk', async () =>
    check(await withToc(changed('d/b', {chunkDigest: digestOf('other')})), 'chunk'))
  it("is found by contents that are another file's", async () => {
    const swapped = await withToc(entries => {
      const [a, b] = ['d/a', 'd/b'].map(name => entries.find(entry => entry.name === name)!)
      return entries.map(entry =>
        entry === b
          ? {
              ...b!,
              offset: a!.offset!,
              digest: digestOf('a'.repeat(40)),
              chunkDigest: digestOf('a'.repeat(40)),
            }
          : entry,
      )
    })
    expect((await findings(swapped)).map(({kind}) => kind)).toContain('tree')
  })
  it('is found by an offset that points nowhere', async () =>
    check(await withToc(changed('d/a', {offset: 1e9})), 'toc'))
  it('does not make us hold what it claims', async () =>
    check(await withToc(changed('d/a', {size: 2 ** 45})), 'toc'))
})

describe('landmarks', () => {
  it('must be there', async () => {
    const found = await findings(await withToc(entries => entries.slice(1)))
    expect(found.map(({kind}) => kind)).toEqual(['tree', 'landmark'])
  })
  it('that say that nothing is prioritised come first', async () => {
    const found = await findings(await withToc(([landmark, ...entries]) => [...entries, landmark!]))
    expect(found.map(({kind}) => kind)).toEqual(['landmark'])
  })
})

describe('whiteouts', () => {
  it.each(['.wh.', 'd/.wh..', '.wh...'])('%j names no file', async name => {
    const layer = await convertTar(archive(member({name})))
    await check(layer, 'whiteout')
  })
  it('with contents are sound: runtimes look at the name alone', async () =>
    check(await convertTar(archive(member({name: 'd/.wh.a'}, 'x')))))
  it('must not hide what the layer itself has before them', async () =>
    check(await convertTar(archive(member({name: 'a'}, 'x'), member({name: '.wh.a'}))), 'whiteout'))
  it('of all usual kinds are sound', async () =>
    check(
      await convertTar(
        archive(
          member({name: '.wh.a'}),
          member({name: 'd/.wh..wh..opq'}),
          member({name: '.wh..wh.plnk', typeflag: '5'}),
          member({name: '.wh.b', typeflag: '1', linkName: '.wh.a'}),
        ),
      ),
    ))
})

describe('a legacy stargz layer', () => {
  it('is read, and its files verified where it has digests', async () => {
    const layer = await convertTar(TAR)
    const {tocOffset} = parseFooter(layer.bytes.subarray(-FOOTER_SIZE))!
    const legacy = Buffer.concat([layer.bytes.subarray(0, -FOOTER_SIZE), encodeLegacyFooter(tocOffset!)])
    const opened = await openLayer(memoryBlob(legacy), {where: 'the layer'})
    expect(opened.decompressor.name).toBe('legacy stargz')
    expect(await readChunk(opened, opened.files.get('d/b')!.chunks[0]!)).toEqual(Buffer.from('b'.repeat(40)))
    await check(resealed(layer, legacy))
  })
})

it("errors of the blob's source are thrown, not found", async () => {
  const layer = await convertTar(TAR)
  const broken = {size: layer.bytes.length, read: () => Promise.reject(new TypeError('the network is down'))}
  await expect(verifyLayer(broken, layer.descriptor, {codec})).rejects.toThrow('the network is down')
  await expect(isEstargzLayer(broken, layer.descriptor)).rejects.toThrow('the network is down')
})

describe('a layer that no runtime can unpack is found', () => {
  const link = (name: string, linkName: string) => member({name, typeflag: '1', linkName})
  const symlink = (name: string, linkName: string) => member({name, typeflag: '2', linkName})

  it.each([
    ['by a hard link before its target', [link('l', 't'), member({name: 't'}, 't')]],
    ['by a hard link without a target', [link('l', 't')]],
    ['by a file below a file', [member({name: 'f'}, 'f'), member({name: 'f/x'}, 'x')]],
    ['by a file below a loop of links', [symlink('a', 'b'), symlink('b', 'a'), member({name: 'a/x'}, 'x')]],
  ])('%s', async (_, members) => check(await convertTar(archive(...members)), 'unpack'))

  it('and by a hard link that a conversion has put before the links on its way', async () => {
    const members = [directory('r/'), link('y', 'a/x'), symlink('a', 'r'), member({name: 'r/x'}, 'x')]
    await check(await convertTar(archive(...members)), 'unpack')
  })
})

describe('a TOC that leads to another tree than the tar is found', () => {
  const tar = archive(
    directory('usr/'),
    member({name: 'lib', typeflag: '2', linkName: 'usr'}),
    member({name: 'lib/x'}, 'x'),
    member({name: 'y', typeflag: '1', linkName: 'lib/x'}),
  )

  it('when a link comes later in it', async () => {
    const last = (entries: TocEntry[]) => [
      ...entries.filter(({name}) => name !== 'lib'),
      ...entries.filter(({name}) => name === 'lib'),
    ]
    const found = await findings(await withToc(last, tar))
    expect(new Set(found.map(({kind}) => kind))).toEqual(new Set(['tree']))
  })

  it('but not for another order of what does not meet', async () => {
    const swapped = ([landmark, usr, lib, ...entries]: TocEntry[]) => [landmark!, lib!, usr!, ...entries]
    await check(await withToc(swapped, tar))
  })
})
