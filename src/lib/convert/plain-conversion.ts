// The layer conversion that goes back to what every tool reads: the tar as it is, bare or in plain gzip members or zstd
// frames.

import {createHash} from 'node:crypto'
import {decompressStream} from '../blob/decompress.ts'
import {compressionOfBlob} from '../blob/detect-compression.ts'
import {limitSize} from '../blob/limit-size.ts'
import type {BulkCodec, MemberKind} from '../compression/codec.ts'
import {copyBlob} from '../copy/copy-image.ts'
import {CodedError} from '../errors/coded-error.ts'
import {CONTAINERD_UNCOMPRESSED, isLazyAnnotation, withoutLazyAnnotations} from '../oci/annotations.ts'
import {withContent} from '../oci/descriptor.ts'
import {digestFromHash} from '../oci/digest.ts'
import {type LayerCompression, layerMediaType} from '../oci/media-type.ts'
import type {LayerConversion, LayerResult, LayerToConvert} from './convert-image.ts'
import {convertUnlessKnown, type FreshLayer} from './convert-unless-known.ts'
import type {PlainFormat} from './layer-format.ts'
import type {LayerConversionOptions} from './lazy-conversion.ts'

/**
 * What of `LayerConversionOptions` matters here. In the temporary directory there must be room for a decompressed layer,
 * although none is kept: whoever reads it will need as much.
 */
export type PlainConversionOptions = Pick<
  LayerConversionOptions,
  'codec' | 'temporaryDirectory' | 'maxUncompressedSize' | 'cache'
>

/** Bytes of the tar in one member: large enough that cutting costs nothing, small enough for every core. */
const MEMBER_SIZE = 4 << 20
/** Bytes of the tar that are held in memory and compressed at once. */
const BATCH_SIZE = 8 * MEMBER_SIZE
/** The level of libdeflate that is no larger than zlib's 9. */
const GZIP_LEVEL = 6

/**
 * Keeps every layer's tar to the last byte, so that DiffIDs stay: a TOC and landmarks that an earlier conversion put into
 * it stay files of it, as in the reference. Layers that are in the wanted form already are copied.
 */
export function plainConversion(format: PlainFormat, options: PlainConversionOptions): LayerConversion {
  const {compression} = format
  const {codec} = options
  const level = compression === 'zstd' ? format.level : GZIP_LEVEL
  const keyOf = ({descriptor, diffId, family}: LayerToConvert) =>
    createHash('sha256')
      .update(JSON.stringify(['plain', compression, level, codec.name, family, descriptor, diffId]))
      .digest('hex')
  return {
    key: keyOf,
    convert: async layer =>
      (await isThereAlready(layer, compression))
        ? keepLayer(layer, compression)
        : convertUnlessKnown(layer, keyOf(layer), options.cache, () =>
            convertToPlain(layer, {...options, compression, level}),
          ),
  }
}

/**
 * Whether a layer's bytes are in the wanted form, whatever its media type says. One that can be read lazily is made anew:
 * its many members and its footer have no use any more.
 */
async function isThereAlready(layer: LayerToConvert, compression: LayerCompression): Promise<boolean> {
  const {content, descriptor, signal} = layer
  if (Object.keys(descriptor.annotations ?? {}).some(isLazyAnnotation)) return false
  await using blob = await content.open(descriptor, {signal})
  return (await compressionOfBlob(blob, {signal})) === compression
}

async function keepLayer(layer: LayerToConvert, compression: LayerCompression): Promise<LayerResult> {
  const {content, target, descriptor, diffId, signal} = layer
  await copyBlob(content, target, descriptor, {signal})
  const mediaType = layerMediaType(compression, layer.family)
  return {descriptor: {...withoutLazyAnnotations(descriptor), mediaType}, diffId, reused: true}
}

async function convertToPlain(
  layer: LayerToConvert,
  options: PlainConversionOptions & Pick<PlainFormat, 'compression' | 'level'>,
): Promise<FreshLayer> {
  const {codec, compression, level} = options
  const {descriptor, diffId, target, signal} = layer
  const mediaType = layerMediaType(compression, layer.family)
  await using blob = await target.write({mediaType}, {signal})
  const tarDigester = codec.createDigester()
  const blobDigester = codec.createDigester()
  let size = 0
  for await (const tar of batchesOf(decompress(layer, options))) {
    const hashed = tarDigester.update(tar)
    const pieces = compression === 'none' ? [tar] : await compressMembers(compression, level, tar, codec)
    for (const piece of pieces) {
      size += piece.length
      await Promise.all([blob.write(piece), blobDigester.update(piece)])
    }
    await hashed
  }
  const tarDigest = digestFromHash(await tarDigester.digest())
  if (tarDigest !== diffId) {
    throw new CodedError(
      'corrupt',
      `Cannot use the layer ${descriptor.digest}: it decompresses to ${tarDigest}, but the image config says ${diffId}`,
    )
  }
  const written = {digest: digestFromHash(await blobDigester.digest()), size}
  signal.throwIfAborted()
  await blob.commit(written, {signal, labels: {[CONTAINERD_UNCOMPRESSED]: diffId}})
  return {descriptor: withContent(withoutLazyAnnotations(descriptor), {...written, mediaType}), diffId}
}

/** The layer's tar; the blob is verified at its end. */
async function* decompress(
  {descriptor, content, signal, onBytes}: LayerToConvert,
  {temporaryDirectory, maxUncompressedSize}: PlainConversionOptions,
): AsyncGenerator<Uint8Array> {
  await using blob = await content.open(descriptor, {signal})
  async function* compressed(): AsyncGenerator<Uint8Array> {
    let doneBytes = 0
    for await (const bytes of blob.stream({signal})) {
      doneBytes += bytes.length
      onBytes(doneBytes, descriptor.size)
      yield bytes
    }
  }
  const where = `layer ${descriptor.digest}`
  const limit = {maxSize: maxUncompressedSize, directory: temporaryDirectory, where}
  for await (const bytes of limitSize(decompressStream(compressed(), where, {signal}), limit)) {
    signal.throwIfAborted()
    yield bytes
  }
}

/** The same bytes in pieces of `BATCH_SIZE`, of which only the last may be smaller; of no bytes one empty piece. */
async function* batchesOf(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let parts: Uint8Array[] = []
  let filled = 0
  let isFirst = true
  for await (const chunk of chunks) {
    for (let at = 0; at < chunk.length; ) {
      const part = chunk.subarray(at, at + BATCH_SIZE - filled)
      parts.push(part)
      filled += part.length
      at += part.length
      if (filled === BATCH_SIZE) {
        yield Buffer.concat(parts)
        parts = []
        filled = 0
        isFirst = false
      }
    }
  }
  if (filled > 0 || isFirst) yield Buffer.concat(parts)
}

/** Members of `MEMBER_SIZE` bytes each: cut by position alone, so that the output is a function of the input. */
async function compressMembers(
  kind: MemberKind,
  level: number,
  tar: Uint8Array,
  codec: BulkCodec,
): Promise<Uint8Array[]> {
  const spool = {size: tar.length, storage: tar}
  // An empty tar has an empty member: no bytes at all are no gzip.
  const count = Math.max(1, Math.ceil(tar.length / MEMBER_SIZE))
  const members = Array.from({length: count}, (_, index) => {
    const offset = index * MEMBER_SIZE
    return codec.compressMembers(kind, level, spool, {
      literals: new Uint8Array(0),
      offsets: Float64Array.of(offset),
      sizes: Float64Array.of(Math.min(MEMBER_SIZE, tar.length - offset)),
      counts: Uint32Array.of(1),
    })
  })
  return (await Promise.all(members)).map(({bytes}) => bytes)
}
