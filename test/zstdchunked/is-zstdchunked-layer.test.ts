import {expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import {estargzCompressor} from '../../src/lib/estargz/compressor.ts'
import {
  TAR_SPLIT_POSITION,
  TOC_DIGEST,
  ZSTD_CHUNKED_CHECKSUM,
  ZSTD_CHUNKED_POSITION,
} from '../../src/lib/oci/annotations.ts'
import {withAnnotations} from '../../src/lib/oci/descriptor.ts'
import {type ZstdChunkedDialect, zstdChunkedCompressor} from '../../src/lib/zstdchunked/compressor.ts'
import {isZstdChunkedLayer} from '../../src/lib/zstdchunked/is-zstdchunked-layer.ts'
import {buildBlob} from '../support/layers.ts'
import {memoryBlob} from '../support/memory-content.ts'
import {tarOf} from '../support/sample-image.ts'

const TAR = tarOf({'a.txt': 'a\n', 'b.txt': 'b\n'})

/** Whether a layer for `written`, with its annotations changed, serves readers of `wanted`. */
async function serves(
  written: ZstdChunkedDialect,
  wanted: ZstdChunkedDialect,
  changes: Readonly<Record<string, string | undefined>> = {},
): Promise<boolean> {
  const {bytes, descriptor} = await buildBlob(TAR, {compressor: zstdChunkedCompressor(3, written)})
  return isZstdChunkedLayer(memoryBlob(bytes), withAnnotations(descriptor, changes), {dialect: wanted})
}

it('a layer serves the readers it was written for, and no others', async () => {
  expect(await serves('podman', 'podman')).toBe(true)
  expect(await serves('stargz', 'stargz')).toBe(true)
  expect(await serves('podman', 'stargz')).toBe(false)
  expect(await serves('stargz', 'podman')).toBe(false)
})

it.each([
  ['podman', ZSTD_CHUNKED_CHECKSUM, undefined],
  ['podman', ZSTD_CHUNKED_CHECKSUM, digestOf('other')],
  ['podman', ZSTD_CHUNKED_POSITION, '1:2:3:1'],
  ['podman', ZSTD_CHUNKED_POSITION, 'nonsense'],
  ['podman', TAR_SPLIT_POSITION, undefined],
  ['podman', TOC_DIGEST, digestOf('both')],
  ['stargz', TOC_DIGEST, undefined],
  ['stargz', TOC_DIGEST, digestOf('other')],
] as const)('a layer for %s does not with %s %s', async (dialect, key, value) => {
  expect(await serves(dialect, dialect, {[key]: value})).toBe(false)
})

it('eStargz does not, whatever its annotations', async () => {
  const {bytes, descriptor} = await buildBlob(TAR, {compressor: estargzCompressor(6)})
  expect(await isZstdChunkedLayer(memoryBlob(bytes), descriptor, {dialect: 'stargz'})).toBe(false)
})

it('lets errors of the source pass', async () => {
  const {bytes, descriptor} = await buildBlob(TAR, {compressor: zstdChunkedCompressor(3, 'podman')})
  const gone = {
    ...memoryBlob(bytes),
    read: async () => {
      throw new CodedError('unavailable', 'Cannot read the blob: the registry is gone')
    },
  }
  await expect(isZstdChunkedLayer(gone, descriptor, {dialect: 'podman'})).rejects.toThrow(/gone/)
})
