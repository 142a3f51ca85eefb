// Mounting: a blob that another repository of the same registry has need not travel.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import {endpointUrl} from './endpoint.ts'
import {pushEndpoint} from './fallback.ts'
import type {HttpResponse} from './http.ts'
import type {RepositoryLocation} from './location.ts'
import {cancelUpload, locationOf, sendUpload} from './upload-requests.ts'

/** Repositories for which no token is given: their blobs are mounted with our own rights, or not at all. */
const refusedScopes = new WeakMap<RepositoryLocation, Set<string>>()

/** Mounts a blob from the first of the repositories `from` that has it; false when the registry wants the bytes. */
export async function mountBlob(
  location: RepositoryLocation,
  {digest, from}: {readonly digest: Digest; readonly from: readonly string[]},
  options: CallOptions,
): Promise<boolean> {
  for (const repository of from) if (await mountFrom(location, digest, repository, options)) return true
  return false
}

async function mountFrom(
  location: RepositoryLocation,
  digest: Digest,
  from: string,
  options: CallOptions,
): Promise<boolean> {
  const response = await askToMount(location, digest, from, options)
  if (!response) return false
  await response.discard()
  // 202 opens an upload instead; ours is opened when its bytes are there, so this one is given back.
  if (response.status === 202) await cancelUpload(location, locationOf(location, response))
  return response.status === 201
}

/**
 * Asks with the right to read the other repository, and without it where that is refused: the account may know nothing of
 * a repository that is public, and a registry that checks no such right mounts all the same. Undefined when refused.
 */
async function askToMount(
  location: RepositoryLocation,
  digest: Digest,
  from: string,
  options: CallOptions,
): Promise<HttpResponse | undefined> {
  const url = endpointUrl(pushEndpoint(location), 'blobs/uploads/', {mount: digest, from})
  const refused = refusedScopes.get(location) ?? new Set()
  refusedScopes.set(location, refused)
  if (!refused.has(from)) {
    const moreScopes = [`repository:${from}:pull`]
    const response = await unlessRefused(sendUpload(location, {method: 'POST', url, moreScopes}, options))
    if (response) return response
    refused.add(from)
  }
  return unlessRefused(sendUpload(location, {method: 'POST', url}, options))
}

/** Undefined where a token server or the registry says that we may not. */
async function unlessRefused(sending: Promise<HttpResponse>): Promise<HttpResponse | undefined> {
  try {
    const response = await sending
    if (response.status !== 401 && response.status !== 403) return response
    await response.discard()
  } catch (error) {
    if (!hasCode(error, 'unauthenticated', 'permission-denied', 'invalid-argument')) throw error
  }
  return undefined
}
