// Sends a blob that can be read again from its start: in one request, as it is read, and in chunks if that fails.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions, CopyOptions, OpenBlob} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type BlobWriterOptions, createBlobWriter} from './blob-writer.ts'
import type {RepositoryLocation} from './location.ts'
import {isBlobPresent} from './presence.ts'
import {uploadWhole} from './upload.ts'

/**
 * Sends a blob that the registry does not have. One request is the fastest, and cannot be resumed: after trouble, or
 * where a proxy limits the size of a request, the blob is read again and sent in chunks. Throws what the source throws.
 */
export async function sendBlob(
  location: RepositoryLocation,
  blob: OpenBlob,
  descriptor: Descriptor,
  options: BlobWriterOptions & CopyOptions,
): Promise<void> {
  if (descriptor.size < options.chunkedFrom) {
    if (await sendWhole(location, blob, descriptor, options)) return
    // It was the answer that got lost.
    if (await isBlobPresent(location, descriptor, options)) return
  }
  await using writer = createBlobWriter(location, descriptor, options)
  for await (const bytes of counted(blob, options)) await writer.write(bytes)
  await writer.commit(descriptor, options)
}

/** Resolves to false when it is worth another try. */
async function sendWhole(
  location: RepositoryLocation,
  blob: OpenBlob,
  {digest, size}: Descriptor,
  options: CopyOptions,
): Promise<boolean> {
  let failure: {readonly error: unknown} | undefined
  // What is wrong with the source is no trouble of the registry's, which is all that the client could make of it.
  async function* body(): AsyncGenerator<Uint8Array> {
    try {
      yield* counted(blob, options)
    } catch (error) {
      failure = {error}
      throw error
    }
  }
  try {
    await uploadWhole(location, {digest, size, body, attempts: 1}, options)
    return true
  } catch (error) {
    options.signal?.throwIfAborted()
    if (failure) throw failure.error
    // "failed-precondition" is what becomes of "413 Content Too Large".
    if (hasCode(error, 'unavailable', 'failed-precondition')) return false
    throw error
  }
}

async function* counted(
  blob: OpenBlob,
  options: CallOptions & Pick<CopyOptions, 'onBytes'>,
): AsyncGenerator<Uint8Array> {
  let doneBytes = 0
  for await (const bytes of blob.stream(options)) {
    yield bytes
    doneBytes += bytes.length
    options.onBytes?.(doneBytes)
  }
}
