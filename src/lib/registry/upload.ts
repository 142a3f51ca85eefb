// Blob uploads (distribution-spec, "Push"): mounting, one PUT for the whole, or chunks that survive broken connections.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import {endpointUrl} from './endpoint.ts'
import {pushEndpoint} from './fallback.ts'
import type {HttpResponse, RequestBody} from './http.ts'
import type {RepositoryLocation} from './location.ts'
import {isBlobPresent} from './presence.ts'
import {errorFromResponse} from './registry-error.ts'
import {isRetryableStatus, parseRetryAfter, pause, retryDelayMs} from './retry.ts'
import type {SessionRequest} from './session.ts'

/** A blob that may be in another repository of the same registry. */
export interface MountCandidate {
  readonly digest: Digest
  /** Path of the other repository. */
  readonly from: string
}

/** Bytes to send; a function, so that every attempt starts them anew. */
export interface WholeBlob {
  readonly digest: Digest
  readonly size: number
  readonly body: RequestBody
  /** Of the upload as a whole; the policy's by default. */
  readonly attempts?: number
}

/** An upload in pieces. Bytes of a piece may be reused once `append` has resolved. */
export interface ChunkedUpload {
  append(bytes: Uint8Array, options: CallOptions): Promise<void>
  /** Makes the blob visible; throws `corrupt` when the registry finds another digest. */
  finish(blob: {readonly digest: Digest; readonly size: number}, options: CallOptions): Promise<void>
  /** Tells the registry to forget it; failures do not matter, since registries expire uploads. */
  cancel(): Promise<void>
}

/** Longest time that giving up an upload may take. */
const CANCEL_TIMEOUT_MS = 5_000

/** Mounts a blob from another repository; false when the registry would rather have the bytes. */
export async function mountBlob(
  location: RepositoryLocation,
  {digest, from}: MountCandidate,
  options: CallOptions,
): Promise<boolean> {
  const url = endpointUrl(pushEndpoint(location), 'blobs/uploads/', {mount: digest, from})
  const scopes = [...location.scopes, `repository:${from}:pull`]
  const response = await sendUpload(location, {method: 'POST', url, scopes}, options)
  await response.discard()
  // 202 opens an upload instead; ours is opened when its bytes are there, so this one is given back.
  if (response.status === 202) await cancelUpload(location, locationOf(location, response))
  return response.status === 201
}

/** Sends a blob with POST and PUT, from the start again after trouble that may pass. */
export async function uploadWhole(
  location: RepositoryLocation,
  blob: WholeBlob,
  options: CallOptions,
): Promise<void> {
  const {retry} = location.session
  const attempts = blob.attempts ?? retry.attempts
  for (let attempt = 1; ; attempt++) {
    const failure = await tryWhole(location, blob, options)
    if (!failure) return
    if (attempt >= attempts || !failure.passing) throw failure.error
    await pause(retryDelayMs(retry, attempt + 1, failure.retryAfterMs), options)
  }
}

/** What went wrong with an upload, and whether it is worth another try. */
interface UploadFailure {
  readonly error: unknown
  readonly passing: boolean
  readonly retryAfterMs?: number | undefined
}

/** One upload from its start to its end; one that fails is given back. */
async function tryWhole(
  location: RepositoryLocation,
  {digest, size, body}: WholeBlob,
  options: CallOptions,
): Promise<UploadFailure | undefined> {
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
    return {error, passing: isRetryableStatus(response.status), retryAfterMs}
  } catch (error) {
    await cancelUpload(location, upload)
    options.signal?.throwIfAborted()
    return {error, passing: hasCode(error, 'unavailable')}
  }
}

/** Opens an upload to which pieces are added one after the other. */
export async function startChunkedUpload(
  location: RepositoryLocation,
  options: CallOptions,
): Promise<ChunkedUpload> {
  const {retry} = location.session
  let url = await startUpload(location, options)
  let offset = 0

  /** One PATCH; resolves to undefined when it was stored, else to what to do about it. */
  async function patch(
    bytes: Uint8Array,
    callOptions: CallOptions,
  ): Promise<{error: unknown; final: boolean; retryAfterMs?: number | undefined} | undefined> {
    const headers = {
      'content-type': 'application/octet-stream',
      'content-length': String(bytes.length),
      // distribution-spec "Pushing a blob in chunks": start and end, both included, without a unit.
      'content-range': `${offset}-${offset + bytes.length - 1}`,
    }
    try {
      const request = {method: 'PATCH', url, headers, body: bytes, attempts: 1} as const
      const response = await sendUpload(location, request, callOptions)
      if (response.status === 202 || response.status === 204 || response.status === 201) {
        await response.discard()
        url = locationOf(location, response, url)
        return undefined
      }
      const retryAfterMs = parseRetryAfter(response.header('retry-after'), Date.now())
      // 416 says that pieces are out of step: the registry's own count of bytes decides.
      const final = !isRetryableStatus(response.status) && response.status !== 416
      return {error: await errorFromResponse(response, actionOf(location)), final, retryAfterMs}
    } catch (error) {
      callOptions.signal?.throwIfAborted()
      return {error, final: !hasCode(error, 'unavailable')}
    }
  }

  /** How many bytes the registry has. */
  async function storedSize(callOptions: CallOptions): Promise<number> {
    const response = await sendUpload(location, {method: 'GET', url}, callOptions)
    if (response.status !== 204 && response.status !== 200) {
      throw await errorFromResponse(response, `resume the upload of a blob to ${location.name}`)
    }
    await response.discard()
    url = locationOf(location, response, url)
    const match = /^(?:bytes=)?0-(\d{1,16})$/.exec(response.header('range') ?? '')
    if (!match) return 0
    // Registries say "0-0" for nothing as well as for one byte; pieces are larger, so it is nothing.
    return match[1] === '0' ? 0 : Number(match[1]) + 1
  }

  async function recover(size: number, callOptions: CallOptions): Promise<number> {
    const stored = await storedSize(callOptions)
    if (stored === 0 && offset === 0) {
      await cancelUpload(location, url)
      url = await startUpload(location, callOptions)
      return 0
    }
    if (stored < offset || stored > offset + size) {
      throw new CodedError(
        'unavailable',
        `Cannot resume the upload of a blob to ${location.name}: the registry has ${stored} bytes, ${offset} were sent`,
      )
    }
    return stored - offset
  }

  return {
    async append(bytes, callOptions) {
      let rest = bytes
      for (let attempt = 1; rest.length > 0; attempt++) {
        const failure = await patch(rest, callOptions)
        if (!failure) {
          offset += rest.length
          return
        }
        if (failure.final || attempt >= retry.attempts) throw failure.error
        await pause(retryDelayMs(retry, attempt + 1, failure.retryAfterMs), callOptions)
        const stored = await recover(rest.length, callOptions)
        if (stored > 0) attempt = 1
        rest = rest.subarray(stored)
        offset += stored
      }
    },
    async finish(blob, callOptions) {
      url.searchParams.set('digest', blob.digest)
      const response = await sendUpload(
        location,
        {method: 'PUT', url, headers: {'content-length': '0'}},
        callOptions,
      )
      if (isStored(response)) return response.discard()
      const error = await errorFromResponse(response, actionOf(location))
      // A PUT whose answer was lost has closed the upload; the blob itself then tells.
      if (response.status === 404 && (await isBlobPresent(location, blob, callOptions))) return
      throw error
    },
    cancel: () => cancelUpload(location, url),
  }
}

async function startUpload(location: RepositoryLocation, options: CallOptions): Promise<URL> {
  const url = endpointUrl(pushEndpoint(location), 'blobs/uploads/')
  const response = await sendUpload(location, {method: 'POST', url}, options)
  if (response.status !== 202) throw await errorFromResponse(response, actionOf(location))
  await response.discard()
  return locationOf(location, response)
}

async function cancelUpload(location: RepositoryLocation, url: URL): Promise<void> {
  const signal = AbortSignal.timeout(CANCEL_TIMEOUT_MS)
  const request = {method: 'DELETE', url, attempts: 1} as const
  await sendUpload(location, request, {signal}).then(
    response => response.discard(),
    () => undefined,
  )
}

function sendUpload(
  location: RepositoryLocation,
  request: Omit<SessionRequest, 'scopes' | 'action'> & {readonly scopes?: readonly string[]},
  options: CallOptions,
): Promise<HttpResponse> {
  const full = {scopes: location.scopes, action: actionOf(location), ...request}
  return location.session.send(pushEndpoint(location), full, options)
}

function actionOf(location: RepositoryLocation): string {
  return `upload a blob to ${location.name}`
}

function isStored(response: HttpResponse): boolean {
  return response.status === 201 || response.status === 204 || response.status === 200
}

/** Where the registry wants the next bytes. Answers to later requests may leave it out; then nothing changes. */
function locationOf(location: RepositoryLocation, response: HttpResponse, current?: URL): URL {
  const header = response.header('location')
  if (header === undefined && current) return current
  const url = header === undefined ? null : URL.parse(header, response.url.href)
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new CodedError('corrupt', `Cannot ${actionOf(location)}: the registry names no usable upload URL`)
  }
  if (response.url.protocol === 'https:' && url.protocol === 'http:') {
    if (url.hostname !== response.url.hostname) {
      throw new CodedError(
        'permission-denied',
        `Cannot ${actionOf(location)}: the registry wants the bytes over plain HTTP at ${url.host}`,
      )
    }
    // A registry behind a TLS proxy that does not know of it: the URL that was asked is the right one.
    return new URL(`${url.pathname}${url.search}`, response.url)
  }
  return url
}
