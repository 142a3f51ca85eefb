// Manifests of a repository: read and written whole, because their digest is that of all their bytes.

import {digestOf} from '../blob/sha256.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {MAX_MANIFEST_SIZE, parseImageDocument} from '../oci/manifest.ts'
import {MANIFEST_MEDIA_TYPES} from '../oci/media-type.ts'
import {type Endpoint, endpointUrl} from './endpoint.ts'
import {firstOf, pushEndpoint} from './fallback.ts'
import type {HttpResponse} from './http.ts'
import type {RepositoryLocation} from './location.ts'
import {errorFromConnection, errorFromResponse, readBounded} from './registry-error.ts'
import {pause, retryDelayMs} from './retry.ts'

/** A manifest as received: its descriptor is made from the bytes, not from what the registry says about them. */
export interface FetchedManifest {
  readonly descriptor: Descriptor
  readonly bytes: Uint8Array
}

/** Fetches the manifest or index that a tag or digest names; throws `not-found`, `corrupt`, `unsupported`. */
export async function fetchManifest(
  location: RepositoryLocation,
  tagOrDigest: string,
  options: CallOptions = {},
): Promise<FetchedManifest> {
  const {session, endpoints} = location
  const capability = isDigest(tagOrDigest) ? 'pull' : 'resolve'
  return firstOf(endpoints, capability, {...options, session}, async (endpoint, attempts) => {
    const action = `read manifest ${JSON.stringify(tagOrDigest)} of ${location.name}`
    const {response, bytes} = await getWhole(location, endpoint, tagOrDigest, action, attempts, options)
    const digest = digestOf(bytes)
    checkDigest(tagOrDigest, digest, response, action)
    const type = (response.header('content-type') ?? '').split(';')[0]!.trim()
    const document = parseImageDocument(
      bytes,
      MANIFEST_MEDIA_TYPES.includes(type) ? type : '',
      `the manifest ${digest} of ${location.name}`,
    )
    const {mediaType} = document.kind === 'index' ? document.index : document.manifest
    return {descriptor: {mediaType, digest, size: bytes.length}, bytes}
  })
}

/** Stores a manifest under a tag or its digest. Its blobs and manifests must be there. */
export async function putManifest(
  location: RepositoryLocation,
  tagOrDigest: string,
  {mediaType, bytes}: {readonly mediaType: string; readonly bytes: Uint8Array},
  options: CallOptions = {},
): Promise<void> {
  const {session} = location
  const action = `write manifest ${JSON.stringify(tagOrDigest)} to ${location.name}`
  const request = {
    method: 'PUT',
    url: endpointUrl(pushEndpoint(location), `manifests/${tagOrDigest}`),
    headers: {'content-type': mediaType, 'content-length': String(bytes.length)},
    body: bytes,
    action,
  } as const
  const response = await session.send(pushEndpoint(location), request, options)
  if (response.status < 200 || response.status > 202) throw await errorFromResponse(response, action)
  checkDigest(tagOrDigest, digestOf(bytes), response, action)
  await response.discard()
}

/** GET with the body inside the retries: a manifest is small, so a broken one is simply fetched again. */
async function getWhole(
  {session}: RepositoryLocation,
  endpoint: Endpoint,
  tagOrDigest: string,
  action: string,
  attempts: number,
  options: CallOptions,
): Promise<{response: HttpResponse; bytes: Uint8Array}> {
  const url = endpointUrl(endpoint, `manifests/${tagOrDigest}`)
  const headers = {accept: [...MANIFEST_MEDIA_TYPES, '*/*'].join(', ')}
  for (let attempt = 1; ; attempt++) {
    const request = {method: 'GET', url, headers, action, attempts} as const
    const response = await session.send(endpoint, request, options)
    if (response.status !== 200) throw await errorFromResponse(response, action)
    try {
      const bytes = await readBounded(response, MAX_MANIFEST_SIZE)
      if (bytes) return {response, bytes}
    } catch (error) {
      options.signal?.throwIfAborted()
      if (attempt >= attempts) throw errorFromConnection(error, action, response.url)
      await pause(retryDelayMs(session.retry, attempt + 1), options)
      continue
    }
    throw new CodedError('corrupt', `Cannot ${action}: it exceeds the limit of ${MAX_MANIFEST_SIZE} bytes`)
  }
}

/** The bytes' digest must be the one that was asked for, and the one that the registry claims. */
function checkDigest(tagOrDigest: string, digest: Digest, response: HttpResponse, action: string): void {
  if (isDigest(tagOrDigest) && tagOrDigest !== digest) {
    throw new CodedError('corrupt', `Cannot ${action}: its bytes have the digest ${digest}`)
  }
  const claimed = response.header('docker-content-digest')
  if (isDigest(claimed) && claimed !== digest) {
    throw new CodedError(
      'corrupt',
      `Cannot ${action}: the registry calls it ${claimed}, but its bytes have the digest ${digest}`,
    )
  }
}
