// Converting archives in tests: from a tar to the eStargz layer that it becomes, and back.

import {tmpdir} from 'node:os'
import {gunzipSync, gzipSync} from 'node:zlib'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {
  type ConvertedBlob,
  type ConvertLayerOptions,
  convertLayer,
} from '../../src/lib/convert/convert-layer.ts'
import {estargzCompressor} from '../../src/lib/estargz/compressor.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import {OCI_LAYER_GZIP} from '../../src/lib/oci/media-type.ts'
import {TarScanner} from '../../src/lib/tar/scanner.ts'
import type {TarEntry} from '../../src/lib/tar/tar-entry.ts'
import {memoryContent} from './memory-content.ts'
import {writeBlob} from './sample-image.ts'

export interface ConvertedTar extends ConvertedBlob {
  readonly bytes: Uint8Array
  /** The decompressed layer. */
  readonly tar: Uint8Array
  /** The paths in it, in order. */
  readonly paths: readonly string[]
}

/** Converts a tar, gzip'ed first unless `source` says what blob to take. */
export async function convertTar(
  tar: Uint8Array,
  options: Partial<ConvertLayerOptions> = {},
  source: {readonly blob?: Uint8Array; readonly mediaType?: string} = {},
): Promise<ConvertedTar> {
  const built = await buildBlob(tar, options, source)
  const decompressed = gunzipSync(built.bytes)
  return {...built, tar: decompressed, paths: entriesOf(decompressed).map(({path}) => path)}
}

/** As `convertTar`, into any format. */
export async function buildBlob(
  tar: Uint8Array,
  options: Partial<ConvertLayerOptions> = {},
  source: {readonly blob?: Uint8Array; readonly mediaType?: string} = {},
): Promise<ConvertedBlob & {readonly bytes: Uint8Array}> {
  const content = memoryContent()
  const {blob = gzipSync(tar), mediaType = OCI_LAYER_GZIP} = source
  const descriptor = await writeBlob(content, blob, mediaType)
  const converted = await convertLayer(
    {content, descriptor, diffId: digestOf(tar)},
    {
      codec: createBulkCodec(),
      compressor: estargzCompressor(6),
      target: content,
      family: 'oci',
      temporaryDirectory: tmpdir(),
      ...options,
    },
  )
  return {...converted, bytes: content.blobs.get(converted.descriptor.digest)!}
}

/** The entries of an archive. */
export function entriesOf(tar: Uint8Array): TarEntry[] {
  const entries: TarEntry[] = []
  const scanner = new TarScanner(entry => entries.push(entry))
  scanner.push(tar)
  scanner.end()
  return entries
}
