// Layers that are small and decompress to a lot, such as the lastlog of a large user id (moby#5419, #15585).

import {execFileSync} from 'node:child_process'
import {tmpdir} from 'node:os'
import {gzipSync} from 'node:zlib'
import {describe, expect, it, onTestFinished} from 'vitest'
import {createDigester} from '../../src/lib/blob/sha256.ts'
import {type ConvertLayerOptions, convertLayer} from '../../src/lib/convert/convert-layer.ts'
import {plainConversion} from '../../src/lib/convert/plain-conversion.ts'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import {estargzCompressor} from '../../src/lib/estargz/compressor.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {OCI_LAYER_GZIP} from '../../src/lib/oci/media-type.ts'
import {plainFormat} from '../support/formats.ts'
import {memoryContent} from '../support/memory-content.ts'
import {describeWith} from '../support/requires.ts'
import {writeBlob} from '../support/sample-image.ts'
import {block} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const codec = createBulkCodec()
const PART = Buffer.alloc(64 << 20)

/** A layer with one file of zeros, 64 MiB for each part. */
async function zeros(parts: number) {
  const content = memoryContent()
  const header = block({name: 'var/log/lastlog', size: parts * PART.length})
  const digester = createDigester()
  digester.update(header)
  for (let part = 0; part < parts; part++) digester.update(PART)
  digester.update(PART.subarray(0, 1024))
  const member = gzipSync(PART)
  const members = [
    gzipSync(header),
    ...Array.from({length: parts}, () => member),
    gzipSync(PART.subarray(0, 1024)),
  ]
  const descriptor = await writeBlob(content, Buffer.concat(members), OCI_LAYER_GZIP)
  return {content, descriptor, diffId: digester.digest()}
}

async function convert(parts: number, options: Partial<ConvertLayerOptions> = {}) {
  const source = await zeros(parts)
  return convertLayer(source, {
    codec,
    compressor: estargzCompressor(6),
    target: source.content,
    family: 'oci',
    temporaryDirectory: tmpdir(),
    ...options,
  })
}

async function convertToPlain(parts: number, options: {maxUncompressedSize?: number}) {
  const {content, descriptor, diffId} = await zeros(parts)
  const conversion = plainConversion(plainFormat('zstd'), {codec, temporaryDirectory: tmpdir(), ...options})
  return conversion.convert({
    descriptor,
    diffId,
    content,
    target: content,
    family: 'oci',
    manifestDigest: descriptor.digest,
    layerIndex: 0,
    signal: new AbortController().signal,
    onBytes: () => {},
  })
}

async function refuse(conversion: Promise<unknown>, message: RegExp, code = 'unsupported'): Promise<void> {
  const failure = await conversion.catch(error => error)
  expect(messageOf(failure)).toMatch(message)
  expect(codeOf(failure)).toBe(code)
}

describe('a layer of a gigabyte of zeros in a megabyte', () => {
  it('is converted', async () => {
    const {uncompressedSize, counts} = await convert(17)
    expect(uncompressedSize).toBeGreaterThan(17 * PART.length)
    expect(counts.chunks).toBe((17 * PART.length) / (4 << 20) + 1)
  })

  it('is refused where the caller wants less', async () => {
    const message = /decompresses to more than 1000000 bytes, the limit; .* --max-layer-size$/
    await refuse(convert(1, {maxUncompressedSize: 1_000_000}), message)
    await refuse(convertToPlain(1, {maxUncompressedSize: 1_000_000}), message)
  })

  it('is converted where the caller wants just that', async () => {
    const maxUncompressedSize = PART.length + 512 + 1024
    expect((await convert(1, {maxUncompressedSize})).counts.entries).toBe(2)
    expect((await convertToPlain(1, {maxUncompressedSize})).reused).toBe(false)
  })
})

describeWith(['root'], 'a temporary directory that is small', () => {
  async function smallDirectory(): Promise<string> {
    const directory = await temporaryDirectory()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=40m', 'tmpfs', directory])
    onTestFinished(() => void execFileSync('umount', [directory]))
    return directory
  }

  it('is the limit on what layers decompress to', async () => {
    const temporaryDirectory = await smallDirectory()
    await refuse(
      convert(1, {temporaryDirectory}),
      /more than 37748736 bytes, for which there is no room in "\//,
      'unavailable',
    )
  })

  it('has room for zeros, which are not written, when the caller allows more', async () => {
    const temporaryDirectory = await smallDirectory()
    const {counts} = await convert(2, {temporaryDirectory, maxUncompressedSize: 1 << 30})
    expect(counts.chunks).toBe((2 * PART.length) / (4 << 20) + 1)
  })
})
