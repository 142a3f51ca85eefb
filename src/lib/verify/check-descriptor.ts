// Checks what a descriptor says besides digest and size: bytes that it carries, and the type of its layer.

import {compressionOfBlob} from '../blob/detect-compression.ts'
import {digestOf} from '../blob/sha256.ts'
import type {Finding} from '../estargz/finding.ts'
import {decodeBase64} from '../io/base64.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {layerCompressionOf} from '../oci/media-type.ts'

/** The bytes in a descriptor must be those that it describes: clients that take them fetch nothing. */
export function checkEmbeddedData({data, digest, size}: Descriptor): Finding[] {
  if (data === undefined) return []
  const bytes = decodeBase64(data)
  if (bytes?.length === size && digestOf(bytes) === digest) return []
  const message = `The "data" in the descriptor of ${digest} is not its contents`
  return [{kind: 'descriptor', message}]
}

/** Runtimes go by the bytes, but not every tool does. */
export async function checkMediaType(
  blob: BlobSource,
  {mediaType}: Descriptor,
  options: CallOptions,
): Promise<Finding[]> {
  const found = await compressionOfBlob(blob, options)
  if (found === layerCompressionOf(mediaType)) return []
  const bytes = found === 'none' ? 'not compressed' : found
  return [
    {
      kind: 'media-type',
      message: `The media type is ${JSON.stringify(mediaType)}, but the bytes are ${bytes}`,
    },
  ]
}
