// What an upstream's answers mean to the client that asked.

import {hasCode, messageOf} from '../errors/coded-error.ts'
import type {HttpResponse} from '../registry/http.ts'
import {errorFromResponse} from '../registry/registry-error.ts'
import {Problem} from '../registry-server/problem.ts'

/** An upstream's refusal, as ours; reads the rest of the answer. */
export async function problemFromUpstream(response: HttpResponse, what: string): Promise<Problem> {
  const retryAfter = response.header('retry-after')
  const later = retryAfter === undefined ? {} : {'retry-after': retryAfter}
  const {message} = await errorFromResponse(response, `get ${what}`)
  switch (response.status) {
    case 401:
      return new Problem('UNAUTHORIZED', message)
    case 403:
      return new Problem('DENIED', message)
    case 404:
    case 410:
      return new Problem('MANIFEST_UNKNOWN', message)
    case 416:
      return new Problem('RANGE_INVALID', message)
    case 429:
      return new Problem('TOOMANYREQUESTS', message, later)
    default:
      return new Problem(response.status >= 500 ? 'UNAVAILABLE' : 'BAD_UPSTREAM', message, later)
  }
}

/** What went wrong between us and an upstream, as a refusal; anything else stays what it is. */
export function upstreamProblem(error: unknown): unknown {
  if (error instanceof Problem) return error
  if (hasCode(error, 'unauthenticated')) return new Problem('UNAUTHORIZED', messageOf(error))
  if (hasCode(error, 'permission-denied')) return new Problem('DENIED', messageOf(error))
  if (hasCode(error, 'not-found')) return new Problem('MANIFEST_UNKNOWN', messageOf(error))
  if (hasCode(error, 'unavailable')) return new Problem('UNAVAILABLE', messageOf(error))
  if (hasCode(error, 'corrupt', 'failed-precondition', 'unsupported')) {
    return new Problem('BAD_UPSTREAM', messageOf(error))
  }
  return error
}
