// The end of a blob whose size is not known: one request tells both. Lazily readable layers are opened from their end.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import {openRegistryBlob} from './blob.ts'
import {requestBlob} from './blob-hosts.ts'
import type {HttpResponse} from './http.ts'
import type {RepositoryLocation} from './location.ts'

/** A blob's size, and its last bytes; none where the host does not give them. */
export interface BlobTail {
  readonly size: number
  readonly bytes: Uint8Array
}

/**
 * Asks for the last `length` bytes of a blob (RFC 9110, 14.1.2: a suffix range). A host that ignores ranges still tells
 * the size, and its bytes are taken only where they are all of a blob not larger than `length`; one that knows ranges but
 * not these is asked for the size first. Nothing is verified.
 */
export async function fetchBlobTail(
  location: RepositoryLocation,
  digest: Digest,
  length: number,
  call: CallOptions,
): Promise<BlobTail> {
  const action = `read the end of blob ${digest} of ${location.name}`
  const ask = async (range: string) => {
    const problemOf = (response: HttpResponse) =>
      sizeIn(response) === undefined ? 'does not tell its size' : undefined
    const {response} = await requestBlob(location, digest, {range, action, problemOf}, call)
    return {response, size: sizeIn(response)!}
  }
  const {response, size} = await ask(`bytes=-${length}`).catch(error => {
    // Azure's storage knows no suffix ranges; a blob's first byte tells its size as well.
    if (hasCode(error, 'corrupt', 'invalid-argument', 'unsupported')) return ask('bytes=0-0')
    throw error
  })
  const start = Math.max(0, size - length)
  const bytes = await readBody(response, {start, size}, call)
  if (bytes) return {size, bytes}
  // What was asked for and did not arrive whole is read like any other range; a whole blob is not.
  if (response.status === 200 && start > 0) return {size, bytes: new Uint8Array(0)}
  const blob = openRegistryBlob(location, {mediaType: '', digest, size})
  return {size, bytes: await blob.read(start, size - start, call)}
}

/** The size of the blob that an answer is about; undefined when it does not say. */
function sizeIn(response: HttpResponse): number | undefined {
  const text =
    response.status === 206
      ? /^bytes \d{1,15}-\d{1,15}\/(\d{1,15})$/.exec(response.header('content-range')?.trim() ?? '')?.[1]
      : response.header('content-length')
  const size = Number(text ?? Number.NaN)
  return Number.isSafeInteger(size) && size >= 0 ? size : undefined
}

/** The blob from `start` on; undefined when the answer is about other bytes, or breaks off. */
async function readBody(
  response: HttpResponse,
  {start, size}: {readonly start: number; readonly size: number},
  {signal}: CallOptions,
): Promise<Uint8Array | undefined> {
  const claimed =
    response.status === 206
      ? /^bytes (\d+)-(\d+)/.exec(response.header('content-range')!.trim())!.slice(1)
      : []
  const [first = 0, last = size - 1] = claimed.map(Number)
  if (first !== start || last !== size - 1) {
    await response.discard()
    return undefined
  }
  const bytes = Buffer.allocUnsafe(size - start)
  let filled = 0
  try {
    for await (const part of response.body) {
      if (filled + part.length > bytes.length) return undefined
      bytes.set(part, filled)
      filled += part.length
    }
  } catch {
    signal?.throwIfAborted()
  }
  return filled === bytes.length ? bytes : undefined
}
