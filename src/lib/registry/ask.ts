// Reads that are passed on as they are: a client's request to a repository, and the answer, whatever its status.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type Endpoint, endpointUrl} from './endpoint.ts'
import {firstOf} from './fallback.ts'
import type {HttpResponse} from './http.ts'
import type {RepositoryLocation} from './location.ts'
import {errorFromResponse} from './registry-error.ts'

/** What is asked of a repository. */
export interface Question {
  readonly method: 'GET' | 'HEAD'
  /** Below the repository: `manifests/1.0`, `tags/list`. */
  readonly path: string
  readonly query?: Readonly<Record<string, string>>
  readonly headers?: Readonly<Record<string, string>>
}

/**
 * Sends a question to the first host that answers it; the origin's answer is the caller's, who reads or discards its body.
 * It is not asked again when it is busy: whoever asked us is told, and knows how long he can wait. Throws `unavailable` when
 * no host answers at all.
 */
export async function askRepository(
  location: RepositoryLocation,
  question: Question,
  {signal}: CallOptions,
): Promise<HttpResponse> {
  const {session, endpoints, name} = location
  const {method, path, query, headers} = question
  const action = `read ${path} of ${name}`

  const send = (endpoint: Endpoint) =>
    session.send(
      endpoint,
      {
        method,
        url: endpointUrl(endpoint, path, query),
        ...(headers ? {headers} : {}),
        action,
        attempts: 1,
      },
      {signal},
    )

  return firstOf(endpoints, 'pull', {session, signal}, async endpoint => {
    const response = await send(endpoint).catch(error => {
      signal?.throwIfAborted()
      // A connection that was kept may have been closed while the request was on its way.
      if (hasCode(error, 'unavailable')) return send(endpoint)
      throw error
    })
    if (response.status < 400 || endpoint === endpoints.at(-1)) return response
    throw await errorFromResponse(response, action)
  })
}
