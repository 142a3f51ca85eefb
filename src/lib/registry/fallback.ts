// Trying a repository's endpoints in order: mirrors first, the origin last.

import {CodedError, codeOf, messageOf} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Capability, Endpoint} from './endpoint.ts'
import type {RepositoryLocation} from './location.ts'
import type {RetryPolicy} from './retry.ts'

/** Attempts on a mirror while there is another host to go to. */
const MIRROR_ATTEMPTS = 2

/**
 * The first success of `attempt` over the endpoints that have `capability`. Any failure but an abort moves on; when
 * all fail, the last host's error counts, because that is the origin, and the others are told with it.
 */
export async function firstOf<T>(
  endpoints: readonly Endpoint[],
  capability: Capability,
  {retry, signal}: CallOptions & {readonly retry: RetryPolicy},
  attempt: (endpoint: Endpoint, attempts: number) => Promise<T>,
): Promise<T> {
  const able = endpoints.filter(endpoint => endpoint.capabilities.includes(capability))
  const failures: string[] = []
  for (const [index, endpoint] of able.entries()) {
    const last = index === able.length - 1
    try {
      return await attempt(endpoint, last ? retry.attempts : Math.min(retry.attempts, MIRROR_ATTEMPTS))
    } catch (error) {
      signal?.throwIfAborted()
      if (last && failures.length === 0) throw error
      if (last) {
        throw new CodedError(codeOf(error), `${messageOf(error)} (before that: ${failures.join('; ')})`, {
          cause: error,
        })
      }
      failures.push(`${endpoint.host}: ${messageOf(error)}`)
    }
  }
  throw new CodedError(
    'failed-precondition',
    `Cannot ${capability}: no configured host of ${endpoints[0]?.namespace ?? endpoints[0]?.host ?? 'the registry'} allows it`,
  )
}

/**
 * The one host that is written to, the first that may be (as in containerd): an image whose parts went to different
 * hosts would be nowhere.
 */
export function pushEndpoint({endpoints, name}: RepositoryLocation): Endpoint {
  const endpoint = endpoints.find(({capabilities}) => capabilities.includes('push'))
  if (endpoint) return endpoint
  throw new CodedError('failed-precondition', `Cannot push to ${name}: no configured host allows it`)
}
