// Reads small documents out of the content that an archive is made from.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type ImageDocument, MAX_MANIFEST_SIZE, parseImageDocument} from '../oci/manifest.ts'

/** A manifest or index, verified and parsed. */
export async function readManifest(
  content: ContentStore,
  descriptor: Descriptor,
  options: CallOptions,
): Promise<ImageDocument> {
  const bytes = await readSmallBlob(content, descriptor, options)
  return parseImageDocument(bytes, descriptor.mediaType, `${descriptor.digest} for ${content.name}`)
}

/** The bytes of a manifest or config, verified; throws `corrupt` for one that is too large to be either. */
export async function readSmallBlob(
  content: ContentStore,
  descriptor: Descriptor,
  options: CallOptions,
): Promise<Buffer> {
  if (descriptor.size > MAX_MANIFEST_SIZE) {
    throw new CodedError(
      'corrupt',
      `Cannot read ${descriptor.digest} for ${content.name}: ${descriptor.size} bytes exceed the limit of ${MAX_MANIFEST_SIZE}`,
    )
  }
  await using blob = await content.open(descriptor, options)
  const parts: Uint8Array[] = []
  for await (const part of blob.stream(options)) parts.push(part)
  return Buffer.concat(parts)
}
