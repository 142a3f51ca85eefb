// Whether a registry has a blob or manifest: HEAD requests.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {isIndexMediaType, isManifestMediaType} from '../oci/media-type.ts'
import {endpointUrl} from './endpoint.ts'
import {firstOf} from './fallback.ts'
import type {RepositoryLocation} from './location.ts'
import {errorFromResponse} from './registry-error.ts'

/** True for what registries keep under /manifests/ instead of /blobs/. */
export function isManifestLike(mediaType: string): boolean {
  return isIndexMediaType(mediaType) || isManifestMediaType(mediaType)
}

/** As `isPresentAt`, for a blob of any media type. */
export function isBlobPresent(
  location: RepositoryLocation,
  blob: Pick<Descriptor, 'digest' | 'size'>,
  options: CallOptions,
): Promise<boolean> {
  return isPresentAt(location, {...blob, mediaType: ''}, options)
}

/** True when a host of the repository has it; throws `corrupt` when it has a blob of another size. */
export async function isPresentAt(
  location: RepositoryLocation,
  {digest, mediaType, size}: Descriptor,
  options: CallOptions,
): Promise<boolean> {
  const {session, endpoints, scopes, name} = location
  const action = `look for ${digest} in ${name}`
  const path = `${isManifestLike(mediaType) ? 'manifests' : 'blobs'}/${digest}`
  return firstOf(endpoints, 'pull', {...options, session}, async (endpoint, attempts) => {
    const url = endpointUrl(endpoint, path)
    const headers: Record<string, string> = isManifestLike(mediaType) ? {accept: mediaType} : {}
    const response = await session.send(
      endpoint,
      {method: 'HEAD', url, headers, scopes, action, attempts},
      options,
    )
    if (response.status === 404 && endpoint === endpoints.at(-1)) {
      await response.discard()
      return false
    }
    if (response.status !== 200) throw await errorFromResponse(response, action)
    await response.discard()
    const told = response.header('content-length')
    if (!isManifestLike(mediaType) && told !== undefined && Number(told) !== size) {
      throw new CodedError('corrupt', `Cannot ${action}: it has ${told} bytes, its descriptor says ${size}`)
    }
    return true
  })
}
