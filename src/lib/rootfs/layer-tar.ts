// One layer as a decompressed tar in a temporary file, verified on the way, with an index of what is in it.

import {open, rename} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import pLimit from 'p-limit'
import {decompressStream} from '../blob/decompress.ts'
import {openFile} from '../blob/file-blob.ts'
import {limitSize} from '../blob/limit-size.ts'
import {createDigester} from '../blob/sha256.ts'
import {writeSparsely} from '../blob/write-fully.ts'
import {CodedError} from '../errors/coded-error.ts'
import {settleAll} from '../io/settle-all.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {ImageConfig, ImageManifest} from '../oci/manifest.ts'
import {layerCompressionOf} from '../oci/media-type.ts'
import {MANY_FILES, type MemoryCare} from '../tar/memory-care.ts'
import {plainTar} from '../tar/plain-tar.ts'
import {TarScanner} from '../tar/scanner.ts'
import type {TarEntry} from '../tar/tar-entry.ts'

/** Layers decompressed at once. */
const PARALLEL_LAYERS = 4

export interface RootfsSource {
  readonly content: ContentStore
  readonly manifest: ImageManifest
  readonly config: ImageConfig
}

/** A layer's tar on disk; who asked for it removes the file. */
export interface LayerTar {
  readonly path: string
  readonly size: number
  readonly entries: readonly TarEntry[]
}

export interface LayerTarSource {
  readonly content: ContentStore
  readonly layer: Descriptor
  /** What the image's config says the tar's digest is. */
  readonly diffId: Digest
}

export interface LayerTarOptions extends CallOptions {
  /** Bytes to which a layer may decompress at most; undefined for what the tar's directory has room for. */
  readonly maxLayerSize?: number | undefined
  readonly memoryCare?: MemoryCare | undefined
}

/**
 * Decompresses a layer into the new file `path`. Throws `corrupt` unless both the blob and the tar have their digests,
 * `unsupported` for a media type that is no layer. A full disk is `unavailable`.
 */
export async function writeLayerTar(
  source: LayerTarSource,
  path: string,
  options: LayerTarOptions = {},
): Promise<LayerTar> {
  const {content, layer, diffId} = source
  if (layerCompressionOf(layer.mediaType) === undefined) {
    throw new CodedError(
      'unsupported',
      `Cannot unpack layer ${layer.digest}: unknown media type ${JSON.stringify(layer.mediaType)}`,
    )
  }
  await using blob = await content.open(layer, options)
  const where = `layer ${layer.digest}`
  const tar = decompressStream(blob.stream(options), where, options)
  const {digest, ...written} = await writeTar(tar, path, where, options)
  if (digest !== diffId) {
    throw new CodedError(
      'corrupt',
      `Cannot unpack layer ${layer.digest}: its tar has the digest ${digest}, but the image's config says ${diffId}`,
    )
  }
  return written.entries.some(entry => entry.sparse) ? makePlain(written, where, options) : written
}

/**
 * Writes the tar of each layer into `directory`, as `writeLayerTar` does. Nobody needs the other layers when one fails: they are
 * stopped, and waited for.
 */
export async function writeLayerTars(
  source: RootfsSource,
  directory: string,
  options: LayerTarOptions,
): Promise<LayerTar[]> {
  const {content, manifest, config} = source
  const limit = pLimit(PARALLEL_LAYERS)
  const abort = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal
  const tars = manifest.layers.map((layer, index) =>
    limit(async () => {
      signal.throwIfAborted()
      const diffId = config.rootfs.diff_ids[index]!
      const path = join(directory, `${index}.tar`)
      return await writeLayerTar({content, layer, diffId}, path, {...options, signal})
    }),
  )
  return settleAll(tars, abort)
}

/** Writes the tar again with its sparse files made plain, in the place of the first one. */
async function makePlain(
  {path, entries}: LayerTar,
  where: string,
  options: LayerTarOptions,
): Promise<LayerTar> {
  const plainPath = `${path}.plain`
  await using sparse = await openFile(path)
  const written = await writeTar(plainTar(sparse, entries, options), plainPath, where, options)
  await rename(plainPath, path)
  return {path, size: written.size, entries: written.entries}
}

async function writeTar(
  tar: AsyncIterable<Uint8Array>,
  path: string,
  where: string,
  {maxLayerSize, memoryCare, signal}: LayerTarOptions,
): Promise<LayerTar & {readonly digest: Digest}> {
  const entries: TarEntry[] = []
  const add = (entry: TarEntry) => {
    if (entries.push(entry) === MANY_FILES) memoryCare?.foundManyFiles()
  }
  const scanner = new TarScanner(add, {takesSparse: true})
  const digester = createDigester()
  await using file = await open(path, 'wx', 0o600)
  let written = 0
  for await (const chunk of limitSize(tar, {maxSize: maxLayerSize, directory: dirname(path), where})) {
    signal?.throwIfAborted()
    digester.update(chunk)
    scanner.push(chunk)
    await writeSparsely(file, chunk, written)
    written += chunk.length
  }
  await file.truncate(written)
  return {path, size: scanner.end().size, entries, digest: digester.digest()}
}
