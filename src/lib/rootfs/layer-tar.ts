// One layer as a decompressed tar in a temporary file, verified on the way, with an index of what is in it.

import {open} from 'node:fs/promises'
import {CodedError} from '../errors/coded-error.ts'
import {decompressStream} from '../io/decompress.ts'
import {createDigester} from '../io/sha256.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {layerCompressionOf} from '../oci/media-type.ts'
import {createTarScanner} from '../tar/scanner.ts'
import type {TarEntry} from '../tar/tar-entry.ts'

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

/**
 * Decompresses a layer into the new file `path`. Throws `corrupt` unless both the blob and the tar have their digests,
 * `unsupported` for a media type that is no layer. A full disk is `unavailable`.
 */
export async function writeLayerTar(
  source: LayerTarSource,
  path: string,
  options: CallOptions = {},
): Promise<LayerTar> {
  const {content, layer, diffId} = source
  const compression = layerCompressionOf(layer.mediaType)
  if (compression === undefined) {
    throw new CodedError(
      'unsupported',
      `Cannot unpack layer ${layer.digest}: unknown media type ${JSON.stringify(layer.mediaType)}`,
    )
  }
  const entries: TarEntry[] = []
  const scanner = createTarScanner(entry => entries.push(entry))
  const digester = createDigester()
  await using blob = await content.open(layer, options)
  await using file = await open(path, 'wx', 0o600)
  const tar = decompressStream(blob.stream(options), compression, `layer ${layer.digest}`, options)
  for await (const chunk of tar) {
    digester.update(chunk)
    scanner.push(chunk)
    await file.writeFile(chunk)
  }
  const {size} = scanner.end()
  const digest = digester.digest()
  if (digest !== diffId) {
    throw new CodedError(
      'corrupt',
      `Cannot unpack layer ${layer.digest}: its tar has the digest ${digest}, but the image's config says ${diffId}`,
    )
  }
  return {path, size, entries}
}
