// Manifests as blobs of the store.

import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {MAX_MANIFEST_SIZE, parseImageDocument} from '../oci/manifest.ts'
import {findBlob} from './blobs.ts'
import type {Exchange, Registry} from './exchange.ts'

/** A manifest, or an index, with what it says it is. */
export interface FoundManifest {
  readonly descriptor: Pick<Descriptor, 'mediaType' | 'digest'>
  readonly bytes: Uint8Array
}

/** Reads a blob that is said to be a manifest; one that is not is unknown, never served as if it were. */
export async function readManifest(
  registry: Registry,
  exchange: Exchange,
  digest: Digest,
  knownType: string | undefined,
): Promise<FoundManifest | undefined> {
  const info = await findBlob(registry, digest, exchange)
  if (!info || info.size > MAX_MANIFEST_SIZE) return undefined
  const descriptor = {mediaType: knownType ?? '', digest, size: info.size}
  await using blob = await registry.store.content.open(descriptor, exchange)
  const parts: Uint8Array[] = []
  for await (const part of blob.stream(exchange)) parts.push(part)
  const bytes = Buffer.concat(parts)
  const mediaType = knownType ?? mediaTypeOf(bytes)
  return mediaType === undefined ? undefined : {descriptor: {...descriptor, mediaType}, bytes}
}

function mediaTypeOf(bytes: Uint8Array): string | undefined {
  try {
    const document = parseImageDocument(bytes, '', 'a manifest')
    return document.kind === 'index' ? document.index.mediaType : document.manifest.mediaType
  } catch {
    return undefined
  }
}

export async function writeManifest(
  {store}: Registry,
  {signal}: Exchange,
  descriptor: Descriptor,
  bytes: Uint8Array,
): Promise<void> {
  await using writer = await store.content.write(descriptor, {signal})
  await writer.write(bytes)
  await writer.commit(descriptor, {signal})
}
