import {execFileSync} from 'node:child_process'
import {readdirSync} from 'node:fs'
import {writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {gunzipSync, gzipSync, zstdCompressSync} from 'node:zlib'
import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {type ConvertLayerOptions, convertLayer} from '../../src/lib/convert/convert-layer.ts'
import {codeOf, describeError} from '../../src/lib/errors/coded-error.ts'
import {estargzCompressor, externalTocCompressor} from '../../src/lib/estargz/compressor.ts'
import {parseExternalTocFooter} from '../../src/lib/estargz/footer.ts'
import {openLayer, readFile} from '../../src/lib/estargz/open-layer.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {createNodeCodec} from '../../src/lib/native/node-codec.ts'
import {OCI_LAYER, OCI_LAYER_ZSTD} from '../../src/lib/oci/media-type.ts'
import {type ConvertedTar, convertTar, entriesOf} from '../support/layers.ts'
import {memoryBlob, memoryContent} from '../support/memory-content.ts'
import {writeBlob} from '../support/sample-image.ts'
import {archive, directory, gnuLong, member, pax} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const noise = (size: number, seed = 1) => {
  const bytes = Buffer.alloc(size)
  for (let at = 0, state = seed; at < size; at++) {
    state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
    bytes[at] = state >>> 16
  }
  return bytes
}

const EXAMPLE = archive(
  directory('./'),
  directory('d/'),
  pax({'SCHILY.xattr.user.x': Buffer.from([0, 255, 10])}),
  member({name: 'd/a', mode: 0o4755, uid: 1, gid: 2, mtime: 1_700_000_000, userName: 'u'}, 'contents of a'),
  member({name: 'b'}, noise(10_000)),
  member({name: 'empty'}),
  member({name: 'link', typeflag: '1', linkName: 'd/a'}),
  member({name: 'sym', typeflag: '2', linkName: '../anywhere'}),
  member({name: 'dev', typeflag: '3', devMajor: 1, devMinor: 3}),
  gnuLong('L', `d/${'long'.repeat(50)}`),
  member({name: 'cut', format: 'gnu'}, 'long'),
)

async function contentsOf(layer: ConvertedTar): Promise<Record<string, string>> {
  const {tocDigest, bytes} = layer
  const opened = await openLayer(memoryBlob(bytes), {where: 'the layer', tocDigest})
  const contents: Record<string, string> = {}
  for (const file of opened.files.values()) {
    if (file.entry.type !== 'reg') continue
    const parts: Uint8Array[] = []
    for await (const part of readFile(opened, file)) parts.push(part)
    contents[file.path] = Buffer.concat(parts).toString('latin1')
  }
  return contents
}

async function refuse(conversion: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  const failure = await conversion.then(
    () => undefined,
    error => error,
  )
  expect(describeError(failure)).toMatch(message)
  expect(codeOf(failure)).toBe(code)
}

describe('a converted layer', () => {
  it("has the source's headers and payloads byte for byte, and a landmark and the TOC", async () => {
    const {tar, paths} = await convertTar(EXAMPLE)
    expect(paths).toEqual([
      '.no.prefetch.landmark',
      ...entriesOf(EXAMPLE).map(({path}) => path),
      'stargz.index.json',
    ])
    expect(Buffer.from(tar).includes(EXAMPLE.subarray(0, -1024))).toBe(true)
    expect(Buffer.from(tar.subarray(-1024))).toEqual(Buffer.alloc(1024))
  })

  it('says what it is: digest, size, DiffID, TOC digest, uncompressed size', async () => {
    const {descriptor, diffId, bytes, tar, tocDigest, uncompressedSize, tocSize} = await convertTar(EXAMPLE)
    expect(descriptor).toEqual({
      mediaType: 'application/vnd.oci.image.layer.v1.tar+gzip',
      digest: digestOf(bytes),
      size: bytes.length,
      annotations: {
        'containerd.io/snapshot/stargz/toc.digest': tocDigest,
        'io.containers.estargz.uncompressed-size': String(tar.length),
      },
    })
    expect(diffId).toBe(digestOf(tar))
    expect(uncompressedSize).toBe(tar.length)
    const toc = entriesOf(tar).at(-1)!
    const json = tar.subarray(toc.headerOffset + 512, toc.headerOffset + 512 + toc.size)
    expect(tocDigest).toBe(digestOf(json))
    expect(tocSize).toBe(json.length)
  })

  it('is read file by file, each verified', async () => {
    const contents = await contentsOf(await convertTar(EXAMPLE))
    expect(contents['d/a']).toBe('contents of a')
    expect(contents.b).toBe(noise(10_000).toString('latin1'))
    expect(contents.empty).toBe('')
    expect(contents[`d/${'long'.repeat(50)}`]).toBe('long')
  })

  it('puts prioritised files first, then a landmark that ends what to prefetch', async () => {
    const layer = await convertTar(EXAMPLE, {prioritizedPaths: ['link', 'gone', 'b']})
    expect(layer.paths.slice(0, 6)).toEqual(['', 'd', 'd/a', 'link', 'b', '.prefetch.landmark'])
    const opened = await openLayer(memoryBlob(layer.bytes), {where: 'the layer'})
    expect(layer.prioritized).toMatchObject({files: 2, bytes: opened.prefetchSize, missing: ['gone']})
    expect(opened.prefetchSize).toBeGreaterThan(10_000)
    expect(gunzipSync(layer.bytes.subarray(opened.prefetchSize))[0]).toBe(0x0f)
  })

  it.each([
    ['stargz.index.json', '{"name": "my own"}'],
    ['stargz.index.json', ''],
    ['.prefetch.landmark', 'text'],
    ['.no.prefetch.landmark', 'x'],
  ])("names a file %s of the layer's own that it leaves out", async (name, text) => {
    const {paths, prioritized} = await convertTar(
      archive(member({name: `./${name}`}, text), member({name: 'a'})),
    )
    expect(prioritized.replaced).toEqual([name])
    expect(paths).toEqual(['.no.prefetch.landmark', 'a', 'stargz.index.json'])
  })

  it('names no landmark and no TOC of an earlier conversion', async () => {
    const once = await convertTar(EXAMPLE, {prioritizedPaths: ['b']})
    const again = await convertTar(once.tar)
    expect([once.prioritized.replaced, again.prioritized.replaced]).toEqual([[], []])
  })

  it('has no use for a global PAX header: what it says is in each header', async () => {
    const tar = archive(
      pax({uid: '7', comment: 'all'}, 'g'),
      member({name: 'a'}, 'a'),
      member({name: 'b'}, 'b'),
    )
    const layer = await convertTar(tar, {prioritizedPaths: ['b']})
    const entries = entriesOf(layer.tar)
    expect(entries.map(({path, uid}) => [path, uid])).toEqual([
      ['b', 7],
      ['.prefetch.landmark', 0],
      ['a', 7],
      ['stargz.index.json', 0],
    ])
    expect(entries.every(entry => entry.foldedHeader === undefined)).toBe(true)
  })

  it('can be converted again to the same bytes', async () => {
    const once = await convertTar(EXAMPLE, {prioritizedPaths: ['b']})
    const {tar, blob} = {tar: once.tar, blob: once.bytes}
    const twice = await convertTar(tar, {prioritizedPaths: ['b']}, {blob})
    expect(twice.descriptor).toEqual({...once.descriptor})
  })

  it('of an empty archive has nothing but the landmark', async () => {
    for (const tar of [Buffer.alloc(0), Buffer.alloc(1024), Buffer.alloc(10_240)]) {
      expect((await convertTar(tar)).paths).toEqual(['.no.prefetch.landmark', 'stargz.index.json'])
    }
  })
})

describe('chunks', () => {
  const big = archive(member({name: 'big'}, noise(1000)), member({name: 'exact'}, noise(600)))
  it('split large files, and are written to the TOC as the reference writes them', async () => {
    const layer = await convertTar(big, {chunkSize: 300})
    const {toc} = await openLayer(memoryBlob(layer.bytes), {where: 'the layer'})
    const sizes = toc.entries.map(({name, type, chunkOffset, chunkSize}) => [
      name,
      type,
      chunkOffset,
      chunkSize,
    ])
    expect(sizes).toEqual([
      ['.no.prefetch.landmark', 'reg', undefined, undefined],
      ['big', 'reg', undefined, 300],
      ['big', 'chunk', 300, 300],
      ['big', 'chunk', 600, 300],
      ['big', 'chunk', 900, undefined],
      ['exact', 'reg', undefined, 300],
      ['exact', 'chunk', 300, 300],
    ])
    expect(toc.entries[1]!.digest).toBe(digestOf(noise(1000)))
    expect((await contentsOf(layer)).big).toBe(noise(1000).toString('latin1'))
    expect(layer.counts).toEqual({entries: 3, chunks: 7, members: 8, movedMembers: 0})
  })
  it.each([-1, 1.5, 2 ** 30])('of %d bytes are refused', async chunkSize =>
    refuse(convertTar(big, {chunkSize}), 'invalid-argument', /chunk size/),
  )
})

describe('a minimum size of streams', () => {
  const files = Array.from({length: 300}, (_, index) => member({name: `f${index}`}, noise(700, index)))
  const tar = archive(
    ...files,
    member({name: 'text'}, 'so '.repeat(40_000)),
    member({name: 'last'}, noise(9000)),
  )
  it('is reached by every stream but those before a landmark and at the end', async () => {
    const layer = await convertTar(tar, {minChunkSize: 5000, prioritizedPaths: ['f7', 'f8']})
    const opened = await openLayer(memoryBlob(layer.bytes), {where: 'the layer'})
    const offsets = [...new Set(opened.toc.entries.map(entry => entry.offset ?? 0))].sort((a, b) => a - b)
    const sizes = offsets.map((offset, index) => (offsets[index + 1] ?? opened.dataEnd) - offset)
    const landmarkAt = offsets.indexOf(opened.prefetchSize)
    expect(landmarkAt).toBeGreaterThan(0)
    for (const [index, size] of sizes.entries()) {
      if (index !== landmarkAt - 1 && index !== sizes.length - 1) expect(size).toBeGreaterThanOrEqual(5000)
    }
    expect(layer.counts.members).toBeLessThan(60)
    expect(Object.keys(await contentsOf(layer))).toHaveLength(302)
  })
  it('makes the layer smaller', async () => {
    const [apart, together] = await Promise.all([convertTar(tar), convertTar(tar, {minChunkSize: 50_000})])
    expect(together.descriptor.size).toBeLessThan(apart.descriptor.size)
  })
})

describe('the same bytes come out', () => {
  const tar = archive(
    ...Array.from({length: 3000}, (_, index) =>
      member({name: `f${index}`}, noise((index * 37) % 3000, index)),
    ),
    member({name: 'big'}, noise(9 << 20)),
  )
  it.each([0, 20_000])('however many threads there are, with a minimum of %d', async minChunkSize => {
    const program = `
      import {convertTar} from ${JSON.stringify(join(import.meta.dirname, '../support/layers.ts'))}
      import {readFileSync} from 'node:fs'
      const layer = await convertTar(readFileSync(process.argv[1]), {minChunkSize: ${minChunkSize}})
      console.log(layer.descriptor.digest)`
    const directory = await temporaryDirectory()
    const file = join(directory, 'tar')
    await writeFile(file, tar)
    const expected = (await convertTar(tar, {minChunkSize})).descriptor.digest
    for (const threads of ['1', '7']) {
      const env = {...process.env, UV_THREADPOOL_SIZE: threads}
      const output = execFileSync(process.execPath, ['--input-type=module', '-e', program, file], {env})
      expect(output.toString().trim()).toBe(expected)
    }
  })
  it.each([
    ['none', tar, OCI_LAYER],
    ['zstd', zstdCompressSync(tar), OCI_LAYER_ZSTD],
    [
      'gzip of two members',
      Buffer.concat([gzipSync(tar.subarray(0, 999)), gzipSync(tar.subarray(999))]),
      undefined,
    ],
  ])('from a source of compression %s', async (_, blob, mediaType) => {
    const expected = (await convertTar(tar)).descriptor.digest
    const layer = await convertTar(tar, {}, {blob, ...(mediaType ? {mediaType} : {})})
    expect(layer.descriptor.digest).toBe(expected)
  })
  it('in contents, from the codec in JavaScript', async () => {
    const [native, node] = await Promise.all([
      convertTar(EXAMPLE),
      convertTar(EXAMPLE, {codec: createNodeCodec(), chunkSize: 100}),
    ])
    expect(await contentsOf(node)).toEqual(await contentsOf(native))
  })
})

describe('a TOC outside', () => {
  it('leaves a layer that ends with its own footer', async () => {
    const layer = await convertTar(EXAMPLE, {compressor: externalTocCompressor(6, {lossless: false})})
    expect(parseExternalTocFooter(layer.bytes.subarray(-46))).toEqual({tocOffset: undefined})
    expect(layer.paths).not.toContain('stargz.index.json')
    const tocTar = gunzipSync(layer.detachedToc!)
    const [toc] = entriesOf(tocTar)
    const json = tocTar.subarray(512, 512 + toc!.size)
    expect(digestOf(json)).toBe(layer.tocDigest)
    const opened = await openLayer(memoryBlob(layer.bytes), {where: 'the layer', externalToc: json})
    expect(opened.files.has('d/a')).toBe(true)
    await refuse(openLayer(memoryBlob(layer.bytes), {where: 'the layer'}), 'not-found', /another image/)
  })
  it('can keep the DiffID: not one byte of the tar changes', async () => {
    const tar = Buffer.concat([pax({uid: '3'}, 'g'), EXAMPLE, Buffer.alloc(8192), Buffer.from('odd end')])
    const layer = await convertTar(tar, {
      compressor: externalTocCompressor(6, {lossless: true}),
      lossless: true,
    })
    expect(layer.diffId).toBe(digestOf(tar))
    expect(Buffer.from(layer.tar)).toEqual(tar)
  })
  it('cannot keep the DiffID of what is converted already', async () => {
    const {tar} = await convertTar(EXAMPLE)
    const options = {compressor: externalTocCompressor(6, {lossless: true}), lossless: true}
    await refuse(convertTar(tar, options), 'failed-precondition', /has a .no.prefetch.landmark already/)
  })
})

describe('a source that cannot be used', () => {
  const convert = async (
    blob: Uint8Array,
    options: Partial<ConvertLayerOptions> = {},
    diffId = digestOf(EXAMPLE),
  ) => {
    const content = memoryContent()
    const descriptor = await writeBlob(content, blob, 'application/vnd.oci.image.layer.v1.tar+gzip')
    const before = content.blobs.size
    const directory = await temporaryDirectory()
    try {
      return await convertLayer(
        {content, descriptor, diffId},
        {
          codec: createBulkCodec(),
          compressor: estargzCompressor(6),
          target: content,
          family: 'oci',
          temporaryDirectory: directory,
          ...options,
        },
      )
    } finally {
      expect(content.blobs.size).toBe(before)
      expect(readdirSync(directory)).toEqual([])
    }
  }
  it('for another DiffID is corrupt', () =>
    refuse(convert(gzipSync(EXAMPLE), {}, digestOf('other')), 'corrupt', /image config says/))
  it('cut short at any byte is corrupt', async () => {
    const blob = gzipSync(EXAMPLE)
    for (let size = 0; size < blob.length; size += size < 100 || size > blob.length - 100 ? 1 : 97) {
      await refuse(convert(blob.subarray(0, size)), 'corrupt', /./)
    }
  })
  it('with any byte of its tar changed is corrupt', async () => {
    for (let at = 0; at < EXAMPLE.length; at += 211) {
      const tar = Buffer.from(EXAMPLE)
      tar[at]! ^= 0x20
      await refuse(convert(gzipSync(tar)), 'corrupt', /./)
    }
  })
  it('that is neither compressed nor a tar is corrupt', () =>
    refuse(convert(Buffer.from('hello')), 'corrupt', /Cannot read tar/))
  it('that decompresses to too much is refused on the way', () =>
    refuse(convert(gzipSync(EXAMPLE), {maxUncompressedSize: 5000}), 'unsupported', /more than 5000 bytes/))
  it('of an unknown type is unsupported', async () => {
    await refuse(convertTar(EXAMPLE, {}, {mediaType: 'text/plain'}), 'unsupported', /"text\/plain"/)
  })
})

describe('a large layer', () => {
  const tar = archive(member({name: 'big'}, noise(40 << 20)), member({name: 'a'}, 'a'))
  it('is kept in a file that nobody else sees, and that is gone afterwards', async () => {
    const directory = await temporaryDirectory()
    const seen: string[] = []
    const layer = await convertTar(
      tar,
      {temporaryDirectory: directory, onBytes: () => seen.push(...readdirSync(directory))},
      {blob: tar, mediaType: OCI_LAYER},
    )
    expect(layer.paths).toContain('big')
    expect(seen).toEqual([])
    expect(readdirSync(directory)).toEqual([])
  })
  it('reports progress that ends at the size of the source', async () => {
    const seen: number[] = []
    await convertTar(tar, {onBytes: done => seen.push(done)}, {blob: tar, mediaType: OCI_LAYER})
    expect(seen).toEqual([...seen].sort((left, right) => left - right))
    expect(seen.at(-1)).toBe(tar.length)
    expect(seen.length).toBeGreaterThan(10)
  })
  it('stops when told to, with nothing left behind', async () => {
    const directory = await temporaryDirectory()
    const abort = new AbortController()
    const conversion = convertTar(
      tar,
      {
        temporaryDirectory: directory,
        signal: abort.signal,
        onBytes: done => done > tar.length / 2 && abort.abort(),
      },
      {blob: tar, mediaType: OCI_LAYER},
    )
    await refuse(conversion, 'cancelled', /abort/i)
    expect(readdirSync(directory)).toEqual([])
  })
  it('with very many files says so once, and others do not', async () => {
    const said: string[] = []
    const memoryCare = {
      foundManyFiles: () => void said.push('found'),
      plannedManyFiles: () => void said.push('planned'),
    }
    const options = {memoryCare}
    await convertTar(tar, options)
    expect(said).toEqual([])
    await convertTar(
      Buffer.concat(Array.from({length: 31_000}, (_, index) => member({name: `f${index}`}))),
      options,
    )
    expect(said).toEqual(['found', 'planned'])
  })
  it('needs a directory to keep it in', () =>
    refuse(
      convertTar(tar, {temporaryDirectory: '/nonexistent'}, {blob: tar, mediaType: OCI_LAYER}),
      'failed-precondition',
      /nonexistent/,
    ))
})
