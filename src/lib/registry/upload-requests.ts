// The requests that uploads are made of (distribution-spec, "Push"), and where their answers send us.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {endpointUrl} from './endpoint.ts'
import {pushEndpoint} from './fallback.ts'
import type {HttpResponse} from './http.ts'
import type {RepositoryLocation} from './location.ts'
import {errorFromResponse} from './registry-error.ts'
import type {SessionRequest} from './repository-session.ts'

/** Longest time that giving up an upload may take. */
const CANCEL_TIMEOUT_MS = 5_000

/** Opens an upload; resolves to where its bytes go. */
export async function startUpload(location: RepositoryLocation, options: CallOptions): Promise<URL> {
  const url = endpointUrl(pushEndpoint(location), 'blobs/uploads/')
  const response = await sendUpload(location, {method: 'POST', url}, options)
  if (response.status !== 202) throw await errorFromResponse(response, actionOf(location))
  await response.discard()
  return locationOf(location, response)
}

/** Tells the registry to forget an upload; failures do not matter, since registries expire uploads. */
export async function cancelUpload(location: RepositoryLocation, url: URL): Promise<void> {
  const signal = AbortSignal.timeout(CANCEL_TIMEOUT_MS)
  const request = {method: 'DELETE', url, attempts: 1} as const
  await sendUpload(location, request, {signal}).then(
    response => response.discard(),
    () => undefined,
  )
}

export function sendUpload(
  location: RepositoryLocation,
  request: Omit<SessionRequest, 'action'>,
  options: CallOptions,
): Promise<HttpResponse> {
  return location.session.send(pushEndpoint(location), {...request, action: actionOf(location)}, options)
}

export function actionOf(location: RepositoryLocation): string {
  return `upload a blob to ${location.name}`
}

export function isStored(response: HttpResponse): boolean {
  return response.status === 201 || response.status === 204 || response.status === 200
}

/** Where the registry wants the next bytes. Answers to later requests may leave it out; then nothing changes. */
export function locationOf(location: RepositoryLocation, response: HttpResponse, current?: URL): URL {
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
