// Trying a repository's endpoints in order: mirrors first, the origin last.

import {CodedError, codeOf, hasCode, messageOf} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Capability, Endpoint} from './endpoint.ts'
import type {RepositoryLocation} from './location.ts'
import type {Session} from './repository-session.ts'

/** Attempts on a host while there is another to go to. */
export const FEW_ATTEMPTS = 2

/**
 * The first success of `attempt` over the endpoints that have `capability`, those that have failed lately last. Any
 * failure but an abort moves on; when all fail, the origin's error counts, which is the last endpoint, and the others'
 * are told with it.
 */
export async function firstOf<T>(
  endpoints: readonly Endpoint[],
  capability: Capability,
  {session, signal}: CallOptions & {readonly session: Pick<Session, 'retry' | 'health'>},
  attempt: (endpoint: Endpoint, attempts: number) => Promise<T>,
): Promise<T> {
  const {retry, health} = session
  const able = endpoints.filter(endpoint => endpoint.capabilities.includes(capability))
  const origin = able.at(-1)
  const isFailing = new Map(able.map(endpoint => [endpoint, health.isFailing(endpoint.origin)]))
  const failures = new Map<Endpoint, unknown>()
  for (const endpoint of able.toSorted((a, b) => Number(isFailing.get(a)) - Number(isFailing.get(b)))) {
    try {
      const attempts = endpoint === origin ? retry.attempts : Math.min(retry.attempts, FEW_ATTEMPTS)
      return await attempt(endpoint, attempts)
    } catch (error) {
      signal?.throwIfAborted()
      failures.set(endpoint, error)
      if (hasCode(error, 'unavailable')) health.fail(endpoint.origin)
    }
  }
  if (origin) throw failureOf(origin, failures)
  throw new CodedError(
    'failed-precondition',
    `Cannot ${capability}: no configured host of ${endpoints[0]?.namespace ?? endpoints[0]?.host ?? 'the registry'} allows it`,
  )
}

function failureOf(origin: Endpoint, failures: ReadonlyMap<Endpoint, unknown>): unknown {
  const error = failures.get(origin)
  const others = [...failures].filter(([endpoint]) => endpoint !== origin)
  if (others.length === 0) return error
  const told = others.map(([{host}, failure]) => `${host}: ${messageOf(failure)}`)
  return new CodedError(codeOf(error), `${messageOf(error)} (other hosts: ${told.join('; ')})`, {
    cause: error,
  })
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
