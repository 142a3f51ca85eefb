// Who serves a blob: the host that did last, then the repository's hosts in order. Redirects are followed once and
// remembered, so that a read costs one round trip.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import {type Endpoint, endpointUrl} from './endpoint.ts'
import {FEW_ATTEMPTS, firstOf} from './fallback.ts'
import type {HttpResponse} from './http.ts'
import type {RepositoryLocation} from './location.ts'
import {errorFromResponse} from './registry-error.ts'

/** An answer with status 200 or 206; whoever gets it reads or discards its body. */
export interface BlobAnswer {
  readonly response: HttpResponse
  readonly endpoint: Endpoint
}

export interface BlobRequest {
  /** The value of the Range header; undefined for the whole blob. */
  readonly range: string | undefined
  /** What is being done, for errors. */
  readonly action: string
  /** What is wrong with an answer, if anything; then another host is asked, and the last one's is `corrupt`. */
  readonly problemOf: (response: HttpResponse) => string | undefined
  readonly onSend?: () => void
}

/** Gets a blob, or a range of it, from the first host that gives it. */
export async function requestBlob(
  location: RepositoryLocation,
  digest: Digest,
  {range, action, problemOf, onSend}: BlobRequest,
  {signal}: CallOptions,
): Promise<BlobAnswer> {
  const {session, endpoints, served} = location
  const headers: Record<string, string> = range === undefined ? {} : {range}

  async function ask(endpoint: Endpoint, url: URL, attempts: number): Promise<BlobAnswer> {
    const request = {method: 'GET', url, headers, action, attempts, onSend} as const
    const response = await session.send(endpoint, request, {signal})
    if (response.status !== 200 && response.status !== 206) throw await refusal(response, action)
    const problem = encodingProblem(response) ?? problemOf(response)
    if (problem === undefined) return {response, endpoint}
    await response.discard()
    throw new CodedError('corrupt', `Cannot ${action}: ${response.url.host} ${problem}`)
  }

  const known = served.get(digest)
  if (known) {
    try {
      return await ask(known.endpoint, known.url, Math.min(session.retry.attempts, FEW_ATTEMPTS))
    } catch {
      signal?.throwIfAborted()
      // Signed URLs expire; what is really wrong, if anything, the registry says when it is asked again.
      if (served.get(digest) === known) served.delete(digest)
    }
  }
  return firstOf(endpoints, 'pull', {session, signal}, async (endpoint, attempts) => {
    const url = endpointUrl(endpoint, `blobs/${digest}`)
    const answer = await ask(endpoint, url, attempts)
    const isElsewhere = answer.response.url.href !== url.href || endpoint !== endpoints[0]
    if (isElsewhere) served.set(digest, {url: answer.response.url, endpoint})
    return answer
  })
}

/** Notes that the body of an answer broke off: others are asked first from now on. */
export function distrust(location: RepositoryLocation, digest: Digest, {endpoint}: BlobAnswer): void {
  location.served.delete(digest)
  location.session.health.fail(endpoint.origin)
}

async function refusal(response: HttpResponse, action: string): Promise<CodedError> {
  const error = await errorFromResponse(response, action)
  return response.status === 416
    ? new CodedError('corrupt', `Cannot ${action}: it is shorter than its descriptor says`, {cause: error})
    : error
}

/** A proxy that compresses in spite of `Accept-Encoding: identity` would have offsets mean something else. */
function encodingProblem(response: HttpResponse): string | undefined {
  const encoding = response.header('content-encoding')?.trim().toLowerCase()
  return encoding === undefined || encoding === '' || encoding === 'identity'
    ? undefined
    : `sends it encoded as ${JSON.stringify(encoding)}`
}
