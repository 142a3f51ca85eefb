// How a blob gets to a registry: in the cheapest way that the registry lets us, and on each refusal in the next one.

import type {CallOptions} from '../oci/content-store.ts'
import {ChunkStream} from './chunk-stream.ts'
import type {RepositoryLocation} from './location.ts'
import {mountBlob} from './mount-blob.ts'
import {isBlobPresent} from './presence.ts'
import {pause, retryDelayMs} from './retry.ts'
import {type ReadableBlob, type UploadFailure, uploadWhole} from './upload-whole.ts'

export interface BlobToUpload extends ReadableBlob {
  /** The registry has been asked for it, and for mounting it: it is known to lack it. */
  readonly isMissing: boolean
}

export interface UploadOptions {
  /** Bytes of a chunk. */
  readonly chunkSize: number
  /** Blobs from this size on are sent in chunks even where they could be sent in one request. */
  readonly chunkedFrom: number
  /** Paths of repositories on the same registry that may have the blob. */
  readonly mountFrom: readonly string[]
}

/** Resolves when the registry has the blob. Throws what reading it throws. */
export async function uploadBlob(
  location: RepositoryLocation,
  blob: BlobToUpload,
  options: UploadOptions & CallOptions,
): Promise<void> {
  if (!blob.isMissing) {
    if (await isBlobPresent(location, blob, options)) return
    if (await mountBlob(location, {digest: blob.digest, from: options.mountFrom}, options)) return
  }
  let refusal: UploadFailure | undefined
  if (blob.size < options.chunkedFrom) {
    refusal = await sendInOneRequest(location, blob, options)
    if (!refusal || (await turnsOutPresent(location, blob, refusal, options))) return
  }
  if (await sendInChunks(location, blob, options)) return
  await sendWithoutChoice(location, blob, refusal, options)
}

/**
 * One request is the fastest way, and cannot be resumed. After trouble it is repeated only where chunks would be no better,
 * since the blob is one chunk.
 */
function sendInOneRequest(
  location: RepositoryLocation,
  blob: BlobToUpload,
  options: UploadOptions & CallOptions,
): Promise<UploadFailure | undefined> {
  const attempts = blob.size <= options.chunkSize ? location.session.retry.attempts : 1
  return uploadWhole(location, blob, {...options, attempts})
}

/** Whether a failed request did its work, and its answer was what got lost. Throws failures that chunks do not mend. */
async function turnsOutPresent(
  location: RepositoryLocation,
  blob: BlobToUpload,
  failure: UploadFailure,
  options: UploadOptions & CallOptions,
): Promise<boolean> {
  if (failure.isTooLarge) return false
  if (!failure.isPassing || blob.size <= options.chunkSize) throw failure.error
  await pause(retryDelayMs(location.session.retry, 2, failure.retryAfterMs), options)
  return isBlobPresent(location, blob, options)
}

/** False when the registry refuses chunks. */
async function sendInChunks(
  location: RepositoryLocation,
  {read, ...blob}: BlobToUpload,
  options: UploadOptions & CallOptions,
): Promise<boolean> {
  let stream: ChunkStream | undefined
  try {
    for await (const bytes of firstChunkWhole(read(), options.chunkSize)) {
      if (stream) {
        await stream.write(bytes)
      } else {
        stream = await ChunkStream.start(location, bytes, options)
        if (!stream) return false
      }
    }
    if (!stream) return false
    await stream.finish(blob)
    return true
  } finally {
    await stream?.[Symbol.asyncDispose]()
  }
}

/** The same bytes, of which the first part is a chunk: nothing smaller is sent before the last one. */
async function* firstChunkWhole(
  parts: AsyncIterable<Uint8Array>,
  chunkSize: number,
): AsyncGenerator<Uint8Array> {
  const first = Buffer.allocUnsafe(chunkSize)
  let filled = 0
  for await (const part of parts) {
    const taken = Math.min(part.length, chunkSize - filled)
    first.set(part.subarray(0, taken), filled)
    if (filled < chunkSize && filled + taken === chunkSize) yield first
    filled += taken
    if (taken < part.length) yield part.subarray(taken)
  }
  if (filled > 0 && filled < chunkSize) yield first.subarray(0, filled)
}

/** Chunks are refused: either one request was too large, and there is no way left, or it must do. */
async function sendWithoutChoice(
  location: RepositoryLocation,
  blob: BlobToUpload,
  refusal: UploadFailure | undefined,
  options: CallOptions,
): Promise<void> {
  if (refusal?.isTooLarge) throw refusal.error
  const {attempts} = location.session.retry
  const failure = await uploadWhole(location, blob, {...options, attempts})
  if (failure) throw failure.error
}
