// The end of a blob whose size is not known: one request tells both. Lazily readable layers are opened from their end.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
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
 * the size, and its bytes are taken only where they are all of a blob not larger than `length`. Nothing is verified.
 */
export async function fetchBlobTail(
  location: RepositoryLocation,
  digest: Digest,
  length: number,
  call: CallOptions,
): Promise<BlobTail> {
  const action = `read the end of blob ${digest} of ${location.name}`
  const request = {range: `bytes=-${length}`, action, problemOf: () => undefined}
  const {response} = await requestBlob(location, digest, request, call)
  return response.status === 206 ? readPart(response, length, action) : readAll(response, length, action)
}

async function readPart(response: HttpResponse, length: number, action: string): Promise<BlobTail> {
  const match = /^bytes (\d{1,15})-(\d{1,15})\/(\d{1,15})$/.exec(
    response.header('content-range')?.trim() ?? '',
  )
  const [first, last, size] = (match?.slice(1) ?? []).map(Number)
  if (first === undefined || last !== size! - 1 || first !== Math.max(0, size! - length)) {
    await response.discard()
    throw new CodedError(
      'corrupt',
      `Cannot ${action}: ${response.url.host} answers with Content-Range ${JSON.stringify(response.header('content-range'))}`,
    )
  }
  return {size: size!, bytes: await readBody(response, size! - first, action)}
}

async function readAll(response: HttpResponse, length: number, action: string): Promise<BlobTail> {
  const size = Number(response.header('content-length') ?? Number.NaN)
  if (!Number.isSafeInteger(size) || size < 0) {
    await response.discard()
    throw new CodedError('corrupt', `Cannot ${action}: ${response.url.host} does not tell its size`)
  }
  if (size <= length) return {size, bytes: await readBody(response, size, action)}
  await response.discard()
  return {size, bytes: new Uint8Array(0)}
}

async function readBody(response: HttpResponse, size: number, action: string): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(size)
  let filled = 0
  for await (const part of response.body) {
    if (filled + part.length > size) break
    bytes.set(part, filled)
    filled += part.length
  }
  if (filled === size) return bytes
  throw new CodedError('unavailable', `Cannot ${action}: ${response.url.host} sent other than ${size} bytes`)
}
