// Every layer format and option, as things that a tar can be built into: what the conformance suite runs for.

import {tmpdir} from 'node:os'
import {decompressStream} from '../../src/lib/blob/decompress.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {convertLayer} from '../../src/lib/convert/convert-layer.ts'
import {plainConversion} from '../../src/lib/convert/plain-conversion.ts'
import {estargzCompressor, externalTocCompressor} from '../../src/lib/estargz/compressor.ts'
import {encodeLegacyFooter, FOOTER_SIZE, parseFooter} from '../../src/lib/estargz/footer.ts'
import {extractDetachedToc, type OpenLayer, openLayer, readFile} from '../../src/lib/estargz/open-layer.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {tocDigestOf} from '../../src/lib/oci/annotations.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import {type LayerCompression, OCI_LAYER} from '../../src/lib/oci/media-type.ts'
import {type ZstdChunkedDialect, zstdChunkedCompressor} from '../../src/lib/zstdchunked/compressor.ts'
import {plainFormat} from '../support/formats.ts'
import {memoryBlob, memoryContent} from '../support/memory-content.ts'
import {writeBlob} from '../support/sample-image.ts'

/** A layer of some format, in memory. */
export interface BuiltLayer {
  readonly bytes: Uint8Array
  readonly descriptor: Descriptor
  readonly diffId: Digest
  /** The TOC of a format that keeps it outside. */
  readonly externalToc?: Uint8Array
}

export interface LayerFormat {
  readonly name: string
  /** Files come one by one, by the TOC; a plain layer is only unpacked as a whole. */
  readonly isLazy: boolean
  /** Prioritised files come first, and a landmark ends them. */
  readonly isOrdered: boolean
  /** The tar is the source's to the last byte. */
  readonly keepsTar: boolean
  readonly keepsTocOutside: boolean
  build(tar: Uint8Array, prioritizedPaths?: readonly string[]): Promise<BuiltLayer>
}

export const codec = createBulkCodec()

interface EstargzSettings {
  readonly chunkSize?: number
  readonly minChunkSize?: number
  readonly toc?: 'inside' | 'outside' | 'outside-lossless'
}

function estargz(name: string, settings: EstargzSettings = {}): LayerFormat {
  const {toc = 'inside', ...sizes} = settings
  const lossless = toc === 'outside-lossless'
  return {
    name,
    isLazy: true,
    isOrdered: !lossless,
    keepsTar: lossless,
    keepsTocOutside: toc !== 'inside',
    async build(tar, prioritizedPaths = []) {
      const {content, descriptor} = await sourceOf(tar)
      const built = await convertLayer(
        {content, descriptor, diffId: digestOf(tar)},
        {
          codec,
          compressor: toc === 'inside' ? estargzCompressor(6) : externalTocCompressor(6, {lossless}),
          target: content,
          family: 'oci',
          temporaryDirectory: tmpdir(),
          prioritizedPaths,
          lossless,
          ...sizes,
        },
      )
      const bytes = content.blobs.get(built.descriptor.digest)!
      const layer = {bytes, descriptor: built.descriptor, diffId: built.diffId}
      if (!built.detachedToc) return layer
      return {...layer, externalToc: await extractDetachedToc(built.detachedToc, 'the TOC')}
    },
  }
}

/** Nobody writes it any more: eStargz with the older footer, and a manifest that vouches for the TOC. */
function legacyStargz(): LayerFormat {
  const modern = estargz('legacy stargz')
  return {
    ...modern,
    async build(tar, prioritizedPaths) {
      const built = await modern.build(tar, prioritizedPaths)
      const {tocOffset} = parseFooter(built.bytes.subarray(-FOOTER_SIZE))!
      const bytes = Buffer.concat([built.bytes.subarray(0, -FOOTER_SIZE), encodeLegacyFooter(tocOffset!)])
      return {...built, bytes, descriptor: {...built.descriptor, digest: digestOf(bytes), size: bytes.length}}
    },
  }
}

function zstdChunked(
  name: string,
  dialect: ZstdChunkedDialect,
  sizes: {readonly chunkSize?: number} = {},
): LayerFormat {
  return {
    name,
    isLazy: true,
    isOrdered: true,
    keepsTar: false,
    keepsTocOutside: false,
    async build(tar, prioritizedPaths = []) {
      const {content, descriptor} = await sourceOf(tar)
      const built = await convertLayer(
        {content, descriptor, diffId: digestOf(tar)},
        {
          codec,
          compressor: zstdChunkedCompressor(3, dialect),
          target: content,
          family: 'oci',
          temporaryDirectory: tmpdir(),
          prioritizedPaths,
          ...sizes,
        },
      )
      const bytes = content.blobs.get(built.descriptor.digest)!
      return {bytes, descriptor: built.descriptor, diffId: built.diffId}
    },
  }
}

function plain(compression: LayerCompression): LayerFormat {
  return {
    name: compression === 'none' ? 'uncompressed' : `plain ${compression}`,
    isLazy: false,
    isOrdered: false,
    keepsTar: true,
    keepsTocOutside: false,
    async build(tar) {
      const {content, descriptor} = await sourceOf(tar)
      const diffId = digestOf(tar)
      const built = await plainConversion(plainFormat(compression), {
        codec,
        temporaryDirectory: tmpdir(),
      }).convert({
        content,
        target: content,
        descriptor,
        diffId,
        manifestDigest: diffId,
        layerIndex: 0,
        family: 'oci',
        signal: new AbortController().signal,
        onBytes: () => {},
      })
      const bytes = content.blobs.get(built.descriptor.digest)!
      return {bytes, descriptor: built.descriptor, diffId: built.diffId}
    },
  }
}

async function sourceOf(tar: Uint8Array) {
  const content = memoryContent()
  return {content, descriptor: await writeBlob(content, tar, OCI_LAYER)}
}

export const FORMATS: readonly LayerFormat[] = [
  estargz('eStargz'),
  estargz('eStargz in small chunks', {chunkSize: 300}),
  estargz('eStargz with a minimum size of streams', {chunkSize: 256, minChunkSize: 600}),
  estargz('eStargz with an external TOC', {toc: 'outside', chunkSize: 3000}),
  estargz('eStargz with an external TOC and a minimum', {toc: 'outside', chunkSize: 256, minChunkSize: 600}),
  estargz('eStargz that keeps the DiffID', {toc: 'outside-lossless', chunkSize: 300}),
  estargz('eStargz that keeps the DiffID, with a minimum', {
    toc: 'outside-lossless',
    chunkSize: 256,
    minChunkSize: 600,
  }),
  legacyStargz(),
  zstdChunked('zstd:chunked', 'podman'),
  zstdChunked('zstd:chunked in small chunks', 'podman', {chunkSize: 300}),
  zstdChunked('zstd:chunked for stargz-snapshotter', 'stargz', {chunkSize: 3000}),
  plain('gzip'),
  plain('zstd'),
  plain('none'),
]

export const LAZY_FORMATS = FORMATS.filter(({isLazy}) => isLazy)
export const ORDERED_FORMATS = FORMATS.filter(({isOrdered}) => isOrdered)

/** Opens a layer as a lazy reader does: by nothing but what the manifest says of the TOC. */
export async function openBuilt(built: BuiltLayer, bytes = built.bytes): Promise<OpenLayer> {
  const {annotations} = built.descriptor
  const tocDigest = tocDigestOf(annotations) as Digest | undefined
  const {externalToc} = built
  return openLayer(memoryBlob(bytes), {where: 'the layer', tocDigest, annotations, externalToc})
}

/** The digests of all files' contents, by path, read one by one and verified. */
export async function readContents(layer: OpenLayer): Promise<Map<string, Digest>> {
  const contents = new Map<string, Digest>()
  for (const file of layer.files.values()) {
    if (file.entry.type !== 'reg') continue
    const parts: Uint8Array[] = []
    for await (const part of readFile(layer, file)) parts.push(part)
    contents.set(file.path, digestOf(Buffer.concat(parts)))
  }
  return contents
}

/** What the layer decompresses to. */
export async function decompressed({bytes}: BuiltLayer): Promise<Uint8Array> {
  const parts: Uint8Array[] = []
  for await (const part of decompressStream(once(bytes), 'the layer')) parts.push(part)
  return Buffer.concat(parts)
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes
}
