// The library's main entry: what a program that imports `ctr-remote` gets.

import {mkdtempSync, writeFileSync} from 'node:fs'
import {rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {gunzipSync, gzipSync, zstdCompressSync} from 'node:zlib'
import {afterAll, describe, expect, it} from 'vitest'
import {
  type BlobSource,
  type BuildLayerOptions,
  buildLayer,
  type ConvertedBlob,
  codeOf,
  extractDetachedToc,
  openBytesBlob,
  openFile,
  openLayer,
  readFile,
  verifyLayer,
} from '../../src/index.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {archive, directory, member} from '../support/tar.ts'

const TAR = archive(directory('d/'), member({name: 'd/a'}, 'a'.repeat(5000)), member({name: 'b'}, 'bee'))
const home = mkdtempSync(join(tmpdir(), 'ctr-remote-library-'))
afterAll(() => rm(home, {recursive: true}))

const blobOf = (bytes: Uint8Array) => openBytesBlob(bytes, 'the test')

async function build(source: Uint8Array, options: Partial<BuildLayerOptions> = {}) {
  const parts: Uint8Array[] = []
  const write = (bytes: Uint8Array) => void parts.push(Uint8Array.from(bytes))
  const built = await buildLayer(blobOf(source), {write, ...options})
  return {...built, bytes: Buffer.concat(parts)}
}

async function textOf(blob: BlobSource, built: ConvertedBlob, path: string): Promise<string> {
  const {tocDigest} = built
  const layer = await openLayer(blob, {where: 'the layer', tocDigest})
  const parts: Uint8Array[] = []
  for await (const part of readFile(layer, layer.files.get(path)!)) parts.push(part)
  return Buffer.concat(parts).toString()
}

describe('a layer is built', () => {
  it('of a tar, and can be listed, read and verified', async () => {
    const built = await build(TAR, {prioritizedPaths: ['b', 'gone']})
    expect(built.descriptor).toMatchObject({digest: digestOf(built.bytes), size: built.bytes.length})
    expect(built.prioritized).toMatchObject({files: 1, missing: ['gone']})
    expect(built.diffId).toBe(digestOf(gunzipSync(built.bytes)))
    expect(await textOf(blobOf(built.bytes), built, 'b')).toBe('bee')
    const layer = await openLayer(blobOf(built.bytes), {where: 'the layer'})
    expect([...layer.files.keys()]).toEqual(['b', 'd', 'd/a'])
    const {findings, format} = await verifyLayer(blobOf(built.bytes), built.descriptor, built)
    expect({findings, format}).toEqual({findings: [], format: 'eStargz'})
  })
  it.each([
    ['gzip', gzipSync(TAR)],
    ['zstd', zstdCompressSync(TAR)],
  ] as const)('of a tar in %s, to the same bytes', async (_, bytes) => {
    const [plain, compressed] = await Promise.all([build(TAR), build(bytes)])
    expect(compressed.bytes).toEqual(plain.bytes)
  })
  it('with its TOC outside', async () => {
    const built = await build(TAR, {toc: 'outside-lossless', chunkSize: 1000})
    expect(built.diffId).toBe(digestOf(TAR))
    const externalToc = await extractDetachedToc(built.detachedToc!, 'the TOC')
    const {findings} = await verifyLayer(blobOf(built.bytes), built.descriptor, {externalToc})
    expect(findings).toEqual([])
  })
  it.each(['zstd:chunked', 'zstd:chunked-stargz'] as const)('as %s', async format => {
    const built = await build(TAR, {format, prioritizedPaths: ['b']})
    expect(built.descriptor.mediaType).toBe('application/vnd.oci.image.layer.v1.tar+zstd')
    const {annotations} = built.descriptor
    const layer = await openLayer(blobOf(built.bytes), {where: 'the layer', annotations})
    expect([...layer.files.keys()]).toEqual(['b', 'd', 'd/a'])
    const {findings} = await verifyLayer(blobOf(built.bytes), built.descriptor, built)
    expect(findings).toEqual([])
  })
  it('from a file, and read from one', async () => {
    const [tar, layer] = [join(home, 'tar'), join(home, 'layer')]
    writeFileSync(tar, TAR)
    await using source = await openFile(tar)
    const parts: Uint8Array[] = []
    const built = await buildLayer(source, {write: bytes => void parts.push(bytes)})
    writeFileSync(layer, Buffer.concat(parts))
    await using blob = await openFile(layer)
    expect(await textOf(blob, built, 'd/a')).toBe('a'.repeat(5000))
    await expect(blob.read(0, blob.size + 1)).rejects.toThrow(/Cannot read/)
  })
})

describe('a failure has a code', () => {
  const failure = async (work: Promise<unknown>) => work.then(() => 'no failure', codeOf)
  it('for a tar that is cut short', async () =>
    expect(await failure(build(TAR.subarray(0, 700)))).toBe('corrupt'))
  it('for a gzip that is cut short', async () =>
    expect(await failure(build(gzipSync(TAR).subarray(0, 60)))).toBe('corrupt'))
  it.each([-1, 13, 2.5])('for level %d', async level =>
    expect(await failure(build(TAR, {level}))).toBe('invalid-argument'),
  )
  it.each([
    ['level 0', {level: 0}],
    ['level 23', {level: 23}],
    ['a TOC outside', {toc: 'outside'}],
  ] as const)('for zstd:chunked with %s', async (_, options) =>
    expect(await failure(build(TAR, {format: 'zstd:chunked', ...options}))).toBe('invalid-argument'),
  )
  it('for a source that changes while it is read', async () => {
    let reads = 0
    const changing: BlobSource = {
      size: TAR.length,
      read: async (offset, length) => Buffer.alloc(length, reads++ + offset),
    }
    expect(await failure(buildLayer(changing, {write: () => {}}))).toBe('corrupt')
  })
  it('of whoever takes the layer', async () => {
    const full = Object.assign(new Error('no space'), {code: 'ENOSPC'})
    const write = () => {
      throw full
    }
    expect(await failure(build(TAR, {write}))).toBe('unavailable')
  })
  it('for a file that is not there', async () =>
    expect(await failure(openFile(join(home, 'nothing')))).toBe('not-found'))
  it('for an abort', async () => {
    const signal = AbortSignal.abort()
    expect(await failure(build(TAR, {signal}))).toBe('cancelled')
    const built = await build(TAR)
    expect(await failure(verifyLayer(blobOf(built.bytes), built.descriptor, {signal}))).toBe('cancelled')
  })
})
