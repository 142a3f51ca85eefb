// Whether a registry has a blob or manifest: HEAD requests.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {isIndexMediaType, isManifestMediaType} from '../oci/media-type.ts'
import {type Endpoint, endpointUrl} from './endpoint.ts'
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
  descriptor: Descriptor,
  options: CallOptions,
): Promise<boolean> {
  const {session, endpoints} = location
  return firstOf(endpoints, 'pull', {...options, session}, async (endpoint, attempts) => {
    const ask = (method: 'HEAD' | 'GET') =>
      askHost(location, endpoint, descriptor, {...options, method, attempts})
    const told = await ask('HEAD')
    // Some registries refuse HEAD, and some hosts behind them tell a wrong length, or that of an error page.
    const answer = told === 'refused' || isWrong(told, descriptor) ? await ask('GET') : told
    if (answer === 'missing' || answer === 'refused') {
      if (endpoint === endpoints.at(-1)) return false
      throw new CodedError(
        'not-found',
        `Cannot ${actionOf(location, descriptor)}: ${endpoint.host} does not have it`,
      )
    }
    if (!isWrong(answer, descriptor)) return true
    throw new CodedError(
      'corrupt',
      `Cannot ${actionOf(location, descriptor)}: it has ${answer.size} bytes, its descriptor says ${descriptor.size}`,
    )
  })
}

/** What a host says of a blob; sizes of manifests are not compared, since proxies encode them. */
type Answer = 'missing' | 'refused' | {readonly size: number | undefined}

async function askHost(
  location: RepositoryLocation,
  endpoint: Endpoint,
  descriptor: Descriptor,
  {method, attempts, signal}: CallOptions & {readonly method: 'HEAD' | 'GET'; readonly attempts: number},
): Promise<Answer> {
  const {session} = location
  const {digest, mediaType} = descriptor
  const isManifest = isManifestLike(mediaType)
  const action = actionOf(location, descriptor)
  const url = endpointUrl(endpoint, `${isManifest ? 'manifests' : 'blobs'}/${digest}`)
  // A GET is asked for one byte: the answer tells the size all the same.
  const range: Record<string, string> = method === 'GET' && !isManifest ? {range: 'bytes=0-0'} : {}
  const headers: Record<string, string> = isManifest ? {accept: mediaType} : range
  const response = await session.send(endpoint, {method, url, headers, action, attempts}, {signal})
  const {status} = response
  if (method === 'HEAD' && (status === 405 || status === 501)) {
    await response.discard()
    return 'refused'
  }
  // 416: there is no first byte.
  if (status !== 200 && status !== 206 && status !== 404 && status !== 416) {
    throw await errorFromResponse(response, action)
  }
  await response.discard()
  if (status === 404) return 'missing'
  const told =
    status === 200
      ? response.header('content-length')
      : /\/(\d{1,15})$/.exec(response.header('content-range') ?? '')?.[1]
  return {size: told === undefined ? undefined : Number(told)}
}

function isWrong(answer: Answer, {mediaType, size}: Descriptor): boolean {
  return (
    typeof answer === 'object' &&
    !isManifestLike(mediaType) &&
    answer.size !== undefined &&
    answer.size !== size
  )
}

function actionOf({name}: RepositoryLocation, {digest}: Descriptor): string {
  return `look for ${digest} in ${name}`
}
