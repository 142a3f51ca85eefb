// A source layer on its way into a spool: decompressed, hashed and indexed while it is written.

import {decompressStream} from '../blob/decompress.ts'
import {limitSize} from '../blob/limit-size.ts'
import type {BulkCodec, Spool} from '../compression/codec.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {BlobSource, CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, digestFromHash} from '../oci/digest.ts'
import {layerCompressionOf} from '../oci/media-type.ts'
import {MANY_FILES, type MemoryCare} from '../tar/memory-care.ts'
import {plainTar} from '../tar/plain-tar.ts'
import {TarScanner} from '../tar/scanner.ts'
import type {TarEntry} from '../tar/tar-entry.ts'
import type {SourceMembers} from './source-members.ts'
import {SpoolFile} from './spool-file.ts'

/** A layer in a store. */
export interface LayerSource {
  readonly content: ContentStore
  readonly descriptor: Descriptor
  /** What the image config says the decompressed layer's digest is; verified when given. */
  readonly diffId?: Digest | undefined
}

export interface SpoolOptions extends CallOptions {
  readonly codec: BulkCodec
  /** Where a layer that is too large for memory is kept, under no name, while it is converted. */
  readonly temporaryDirectory: string
  /** Bytes to which a layer may decompress at most; undefined for what `temporaryDirectory` has room for. */
  readonly maxUncompressedSize?: number | undefined
  readonly memoryCare?: MemoryCare | undefined
  /** Compressed bytes read so far. */
  readonly onBytes?: ((doneBytes: number) => void) | undefined
}

/** A decompressed layer and what is in it; disposing it frees the disk space or memory. */
export interface SpooledLayer extends AsyncDisposable {
  readonly spool: Spool
  readonly entries: readonly TarEntry[]
  /** The compressed members that it came in, where they are known. */
  readonly members?: SourceMembers
  /** The first of its files that were sparse in the source, and are plain here. */
  readonly sparseFile?: TarEntry | undefined
}

/**
 * Spools a layer. Throws `corrupt` unless the blob has its digest, the tar is whole, and the DiffID is right;
 * `unsupported` for a media type that is no layer; `unavailable` when the disk is full.
 */
export async function spoolLayer(source: LayerSource, options: SpoolOptions): Promise<SpooledLayer> {
  const {content, descriptor} = source
  if (layerCompressionOf(descriptor.mediaType) === undefined) {
    throw new CodedError(
      'unsupported',
      `Cannot convert a layer of type ${JSON.stringify(descriptor.mediaType)}`,
    )
  }
  await using blob = await content.open(descriptor, options)
  const compressed = countBytes(blob.stream(options), options.onBytes)
  const tar = decompressStream(compressed, `layer ${descriptor.digest}`, options)
  return await spoolTar(tar, source, options)
}

/** Spools what a layer was decompressed to; throws as `spoolLayer`. */
export async function spoolTar(
  tar: AsyncIterable<Uint8Array>,
  source: LayerSource,
  options: SpoolOptions,
): Promise<SpooledLayer> {
  const entries: TarEntry[] = []
  const scanner = new TarScanner(
    entry => {
      if (entries.push(entry) === MANY_FILES) options.memoryCare?.foundManyFiles()
    },
    {takesSparse: true},
  )
  const digester = source.diffId ? options.codec.createDigester() : undefined
  const store = new SpoolFile(options.temporaryDirectory)
  try {
    const limit = {
      maxSize: options.maxUncompressedSize,
      directory: options.temporaryDirectory,
      where: `layer ${source.descriptor.digest}`,
    }
    for await (const bytes of limitSize(tar, limit)) {
      options.signal?.throwIfAborted()
      // All three use the same bytes, and none changes them.
      const pending = Promise.all([digester?.update(bytes), store.write(bytes)])
      try {
        scanner.push(bytes)
      } finally {
        await pending
      }
    }
    scanner.end()
    if (source.diffId && digester) checkDiffId(source.diffId, digestFromHash(await digester.digest()))
    const layer = {spool: await store.finish(), entries, [Symbol.asyncDispose]: () => store.close()}
    const sparseFile = entries.find(entry => entry.sparse)
    return sparseFile ? {...(await spoolPlain(layer, source, options)), sparseFile} : layer
  } catch (error) {
    await store.close()
    throw error
  }
}

/** Spools a layer once more, with its sparse files made plain; frees the first one. */
async function spoolPlain(
  layer: SpooledLayer,
  {content, descriptor}: LayerSource,
  options: SpoolOptions,
): Promise<SpooledLayer> {
  await using sparse = layer
  const {spool, entries} = sparse
  const tar = plainTar(spoolSource(spool, options.codec), entries, options)
  // The DiffID is that of the source, and has been checked.
  return await spoolTar(tar, {content, descriptor}, options)
}

function spoolSource(spool: Spool, codec: BulkCodec): BlobSource {
  return {
    size: spool.size,
    read: async (offset, length, {signal} = {}) => {
      signal?.throwIfAborted()
      return readSpool(spool, offset, length, codec)
    },
  }
}

/** Some bytes of a spool. */
export function readSpool(
  spool: Spool,
  offset: number,
  length: number,
  codec: BulkCodec,
): Promise<Uint8Array> {
  return codec.readPieces(spool, {
    literals: new Uint8Array(0),
    offsets: Float64Array.of(offset),
    sizes: Float64Array.of(length),
    counts: Uint32Array.of(1),
  })
}

function checkDiffId(expected: Digest, actual: Digest): void {
  if (actual === expected) return
  throw new CodedError(
    'corrupt',
    `Cannot use the layer: it decompresses to ${actual}, but the image config says ${expected}`,
  )
}

/** Passes chunks on, and says how many bytes have come by. */
export async function* countBytes(
  chunks: AsyncIterable<Uint8Array>,
  onBytes: ((doneBytes: number) => void) | undefined,
): AsyncGenerator<Uint8Array> {
  let doneBytes = 0
  for await (const chunk of chunks) {
    doneBytes += chunk.length
    onBytes?.(doneBytes)
    yield chunk
  }
}
