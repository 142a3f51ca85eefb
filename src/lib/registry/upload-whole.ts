// One upload in one request.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {RepositoryLocation} from './location.ts'
import {errorFromResponse} from './registry-error.ts'
import {isRetryableStatus, parseRetryAfter, pause, retryDelayMs} from './retry.ts'
import {actionOf, cancelUpload, isStored, sendUpload, startUpload} from './upload-requests.ts'

/** A blob whose bytes can be read any number of times. */
export interface ReadableBlob {
  readonly digest: Digest
  readonly size: number
  /** Its bytes from the start. */
  readonly read: () => AsyncIterable<Uint8Array>
}

/** Why an upload failed. */
export interface UploadFailure {
  readonly error: unknown
  /** Whether it is worth another try. */
  readonly isPassing: boolean
  /** Whether something on the way accepts no request of that size. */
  readonly isTooLarge: boolean
  readonly retryAfterMs?: number | undefined
}

/** Sends a blob with POST and PUT, up to `attempts` times from its start; resolves to what went wrong the last time. */
export async function uploadWhole(
  location: RepositoryLocation,
  blob: ReadableBlob,
  {attempts, ...options}: CallOptions & {readonly attempts: number},
): Promise<UploadFailure | undefined> {
  for (let attempt = 1; ; attempt++) {
    const failure = await tryWhole(location, blob, options)
    if (!failure?.isPassing || attempt >= attempts) return failure
    await pause(retryDelayMs(location.session.retry, attempt + 1, failure.retryAfterMs), options)
  }
}

/** One upload from its start to its end; one that fails is given back. Throws what the source throws. */
async function tryWhole(
  location: RepositoryLocation,
  {digest, size, read}: ReadableBlob,
  options: CallOptions,
): Promise<UploadFailure | undefined> {
  const failures: unknown[] = []
  // What is wrong with the source is no trouble of the registry's, which is all that the client could make of it.
  async function* body(): AsyncGenerator<Uint8Array> {
    try {
      yield* read()
    } catch (error) {
      failures.push(error)
      throw error
    }
  }
  const url = await startUpload(location, options)
  const upload = new URL(url)
  url.searchParams.set('digest', digest)
  const headers = {'content-type': 'application/octet-stream', 'content-length': String(size)}
  const request = {method: 'PUT', url, headers, body, attempts: 1} as const
  try {
    const response = await sendUpload(location, request, options)
    if (isStored(response)) {
      await response.discard()
      return undefined
    }
    const retryAfterMs = parseRetryAfter(response.header('retry-after'), Date.now())
    const error = await errorFromResponse(response, actionOf(location))
    await cancelUpload(location, upload)
    const {status} = response
    return {error, isPassing: isRetryableStatus(status), isTooLarge: status === 413, retryAfterMs}
  } catch (error) {
    await cancelUpload(location, upload)
    options.signal?.throwIfAborted()
    if (failures.length > 0) throw failures[0]
    return {error, isPassing: hasCode(error, 'unavailable'), isTooLarge: false}
  }
}
