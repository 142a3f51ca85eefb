// Layers with sparse files, in all formats that GNU tar writes; bsdtar's, and so FreeBSD's images (podman#25270), have the last.

import {execFileSync} from 'node:child_process'
import {mkdir, mkdtemp, open, readFile, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {dirname, join} from 'node:path'
import {gzipSync} from 'node:zlib'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {convertLayer} from '../../src/lib/convert/convert-layer.ts'
import {plainConversion} from '../../src/lib/convert/plain-conversion.ts'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import {estargzCompressor, externalTocCompressor} from '../../src/lib/estargz/compressor.ts'
import {openLayer, readFile as readLayerFile} from '../../src/lib/estargz/open-layer.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {OCI_LAYER_GZIP} from '../../src/lib/oci/media-type.ts'
import {writeLayerTar} from '../../src/lib/rootfs/layer-tar.ts'
import {TarScanner} from '../../src/lib/tar/scanner.ts'
import {payloadOffsetOf, type TarEntry} from '../../src/lib/tar/tar-entry.ts'
import {verifyLayer} from '../../src/lib/verify/verify-layer.ts'
import {zstdChunkedCompressor} from '../../src/lib/zstdchunked/compressor.ts'
import {runnableImage} from '../support/busybox-image.ts'
import {plainFormat} from '../support/formats.ts'
import {buildBlob, convertTar, entriesOf} from '../support/layers.ts'
import {memoryBlob, memoryContent} from '../support/memory-content.ts'
import {writeBlob} from '../support/sample-image.ts'
import {archive, member, pax} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const codec = createBulkCodec()
const BLOCK = 4096
const MIB = 1 << 20

/** Where each file has letters, all else of it being holes; bytes. */
const FILES: Readonly<
  Record<string, {readonly size: number; readonly data: readonly (readonly [number, number])[]}>
> = {
  'hole-first': {size: 3 * MIB, data: [[2 * MIB, MIB]]},
  'hole-last': {size: 5 * MIB + 17, data: [[0, BLOCK]]},
  'hole-inside': {
    size: 2 * MIB + 5,
    data: [
      [0, 100],
      [2 * MIB, 5],
    ],
  },
  'no-hole': {size: 10_000, data: [[0, 10_000]]},
  'only-a-hole': {size: 6 * MIB, data: []},
  empty: {size: 0, data: []},
  // More stretches than a header of GNU tar has room for, and than one block of a map has.
  'many-holes': {
    size: 300 * 4 * BLOCK,
    data: Array.from({length: 300}, (_, index) => [index * 4 * BLOCK, BLOCK]),
  },
  [`d/${'long-name-'.repeat(20)}`]: {size: MIB, data: [[MIB / 2, 10]]},
}

async function writeFiles(directory: string): Promise<void> {
  for (const [name, {size, data}] of Object.entries(FILES)) {
    await mkdir(dirname(join(directory, name)), {recursive: true})
    await using file = await open(join(directory, name), 'w')
    await file.truncate(size)
    for (const [offset, length] of data) await file.write(Buffer.alloc(length, name), 0, length, offset)
  }
}

const FORMATS = [
  ['old GNU', ['--format=gnu']],
  ['PAX 0.0', ['--format=posix', '--sparse-version=0.0']],
  ['PAX 0.1', ['--format=posix', '--sparse-version=0.1']],
  ['PAX 1.0', ['--format=posix', '--sparse-version=1.0']],
] as const

let directory: string
let expected: Record<string, string>

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'ctr-remote-sparse-'))
  await writeFiles(directory)
  expected = await contentsOnDisk(directory)
})
afterAll(() => rm(directory, {recursive: true, force: true}))

async function contentsOnDisk(root: string): Promise<Record<string, string>> {
  const contents: Record<string, string> = {}
  for (const name of Object.keys(FILES).sort()) contents[name] = digestOf(await readFile(join(root, name)))
  return contents
}

const tarOf = (flags: readonly string[]): Buffer =>
  execFileSync('tar', ['-c', '--sparse', ...flags, '-C', directory, ...Object.keys(FILES)], {
    maxBuffer: 1 << 30,
  })

async function unpacked(tar: Uint8Array): Promise<Record<string, string>> {
  const target = await temporaryDirectory()
  execFileSync('tar', ['-x', '-C', target], {input: tar})
  return contentsOnDisk(target)
}

describe.each(FORMATS)('a layer with sparse files in the %s format', (_, flags) => {
  let tar: Buffer
  beforeAll(() => {
    tar = tarOf(flags)
  })

  it('has less than the files do', async () => {
    const total = Object.values(FILES).reduce((sum, {size}) => sum + size, 0)
    expect(tar.length).toBeLessThan(total / 2)
    expect(await unpacked(tar)).toEqual(expected)
  })

  it('becomes eStargz with the whole files', async () => {
    const layer = await convertTar(tar, {prioritizedPaths: ['many-holes', 'hole-first']})
    expect(layer.paths.slice(0, 3)).toEqual(['many-holes', 'hole-first', '.prefetch.landmark'])
    expect(layer.prioritized.missing).toEqual([])
    expect(await unpacked(layer.tar)).toEqual(expected)
    const blob = memoryBlob(layer.bytes)
    expect((await verifyLayer(blob, layer.descriptor, {codec, diffId: layer.diffId})).findings).toEqual([])
    const opened = await openLayer(blob, {where: 'the layer'})
    for (const [name, digest] of Object.entries(expected)) {
      const parts: Uint8Array[] = []
      for await (const part of readLayerFile(opened, opened.files.get(name)!)) parts.push(part)
      expect(digestOf(Buffer.concat(parts)), name).toBe(digest)
    }
  })

  it('becomes zstd:chunked and eStargz with its TOC outside', async () => {
    for (const compressor of [
      zstdChunkedCompressor(3, 'podman'),
      externalTocCompressor(6, {lossless: false}),
    ]) {
      const {counts, uncompressedSize} = await buildBlob(tar, {compressor})
      expect(counts.entries).toBe(Object.keys(FILES).length + 1)
      expect(uncompressedSize).toBeGreaterThan(Object.values(FILES).reduce((sum, {size}) => sum + size, 0))
    }
  })

  it('cannot keep its DiffID and be read lazily', async () => {
    const work = buildBlob(tar, {compressor: externalTocCompressor(6, {lossless: true}), lossless: true})
    const failure = await work.catch(error => error)
    expect(codeOf(failure)).toBe('failed-precondition')
    expect(messageOf(failure)).toMatch(/^Cannot keep the DiffID: "hole-first" is a sparse file/)
  })

  it('stays as it is where it is only compressed', async () => {
    const content = memoryContent()
    const descriptor = await writeBlob(content, gzipSync(tar))
    const signal = new AbortController().signal
    const {descriptor: converted} = await plainConversion(plainFormat('none'), {
      codec,
      temporaryDirectory: tmpdir(),
    }).convert({
      ...{descriptor, diffId: digestOf(tar), content, target: content, family: 'oci', signal},
      ...{manifestDigest: descriptor.digest, layerIndex: 0, onBytes: () => {}},
    })
    expect(converted.digest).toBe(digestOf(tar))
  })

  it('is a tar of plain files where it is run', async () => {
    const {content, manifest} = await runnableImage([tar])
    const path = join(await temporaryDirectory(), 'layer.tar')
    const layer = await writeLayerTar({content, layer: manifest.layers[0]!, diffId: digestOf(tar)}, path)
    const bytes = await readFile(path)
    expect(layer.size).toBe(bytes.length)
    const contents = layer.entries.map(entry => {
      const start = payloadOffsetOf(entry)
      return [entry.path, digestOf(bytes.subarray(start, start + entry.size))]
    })
    expect(Object.fromEntries(contents)).toEqual(expected)
  })

  it('is checked by its DiffID like any other, and cut short is corrupt', async () => {
    const content = memoryContent()
    const source = {
      content,
      descriptor: await writeBlob(content, gzipSync(tar), OCI_LAYER_GZIP),
      diffId: digestOf('other'),
    }
    const options = {
      codec,
      compressor: estargzCompressor(6),
      target: content,
      family: 'oci',
      temporaryDirectory: tmpdir(),
    } as const
    expect(await convertLayer(source, options).then(() => 'done', codeOf)).toBe('corrupt')
    for (const size of [tar.length - 20_000, 1024, 1536, 2000]) {
      const cut = tar.subarray(0, size)
      expect(await buildBlob(cut).then(() => 'done', codeOf), String(size)).toBe('corrupt')
    }
  })
})

describe('a map of a sparse file', () => {
  const file = (records: Record<string, string>, data: string | Uint8Array = '') =>
    archive(pax({path: 'f', ...records}), member({name: 'f'}, data))
  const map = (text: string) => Buffer.concat([Buffer.from(text), Buffer.alloc(512 - text.length)])
  const V1 = {
    'GNU.sparse.major': '1',
    'GNU.sparse.minor': '0',
    'GNU.sparse.realsize': '20',
    'GNU.sparse.name': 'g',
  }

  it('gives the file its own name and size', async () => {
    const {tar, paths} = await convertTar(
      file(V1, Buffer.concat([map('2\n5\n2\n10\n1\n'), Buffer.from('abc')])),
    )
    expect(paths).toContain('g')
    const entry = entriesOf(tar).find(({path}) => path === 'g')!
    expect(entry.size).toBe(20)
    const start = payloadOffsetOf(entry)
    expect(Buffer.from(tar.subarray(start, start + 20)).toString('latin1')).toBe(
      '\0\0\0\0\0ab\0\0\0c\0\0\0\0\0\0\0\0\0',
    )
  })

  it.each([
    ['beyond the end of the file', file({'GNU.sparse.map': '0,30', 'GNU.sparse.size': '20'}, 'x'.repeat(30))],
    ['that overlaps', file({'GNU.sparse.map': '0,5,4,5', 'GNU.sparse.size': '20'}, 'x'.repeat(10))],
    ['that is out of order', file({'GNU.sparse.map': '9,1,0,1', 'GNU.sparse.size': '20'}, 'xx')],
    ['for more data than there are', file({'GNU.sparse.map': '0,5', 'GNU.sparse.size': '20'}, 'xxx')],
    ['for fewer data than there are', file({'GNU.sparse.map': '0,2', 'GNU.sparse.size': '20'}, 'xxx')],
    ['without a size', file({'GNU.sparse.map': '0,2,3', 'GNU.sparse.size': '20'}, 'xx')],
    ['with a sign', file({'GNU.sparse.map': '-1,2', 'GNU.sparse.size': '20'}, 'xx')],
    ['with no number', file(V1, map('x\n'))],
    ['that is cut short', file(V1, map('2\n5\n2\n'))],
    ['that is larger than the contents', file({...V1, size: '100'}, map('0\n'))],
    [
      'with a size before its offset',
      archive(member({typeflag: 'x'}, '27 GNU.sparse.numbytes=10\n'), member({})),
    ],
  ])('%s is corrupt', async (_, tar) => {
    expect(await buildBlob(tar).then(() => 'done', codeOf)).toBe('corrupt')
  })

  it('of an unknown format is unsupported', async () => {
    const failure = await buildBlob(file({...V1, 'GNU.sparse.major': '2'}, 'x')).catch(error => error)
    expect(codeOf(failure)).toBe('unsupported')
    expect(messageOf(failure)).toContain('its format of sparse files is 2.0')
  })

  it('of endless lines is unsupported', async () => {
    const failure = await buildBlob(file(V1, Buffer.alloc(3 * MIB, '1\n'))).catch(error => error)
    expect(['corrupt', 'unsupported']).toContain(codeOf(failure))
  })

  it('of a file that is larger than allowed is refused before all of its zeros are made', async () => {
    const huge = file({
      'GNU.sparse.map': '',
      'GNU.sparse.major': '0',
      'GNU.sparse.minor': '1',
      'GNU.sparse.size': '1000000000000',
    })
    const failure = await buildBlob(huge, {maxUncompressedSize: 10 * MIB}).catch(error => error)
    expect(codeOf(failure)).toBe('unsupported')
    expect(messageOf(failure)).toMatch(/more than 10485760 bytes, the limit/)
  })

  it('gives a file beyond 8 GiB its size in a record', () => {
    const entries: TarEntry[] = []
    const scanner = new TarScanner(entry => entries.push(entry), {takesSparse: true})
    scanner.push(file({'GNU.sparse.map': '8589934592,1', 'GNU.sparse.size': '8589934593'}, 'x'))
    scanner.end()
    const plain: TarEntry[] = []
    new TarScanner(entry => plain.push(entry)).push(entries[0]!.sparse!.header)
    expect(plain).toMatchObject([{path: 'f', size: 8_589_934_593, type: 'reg'}])
  })
})
