// What the distribution API says when it refuses: codes of the distribution-spec, "Error Codes", with their statuses,
// and some of our own for what it has none for.

import {codeOf, describeError} from '../errors/coded-error.ts'

const STATUS_OF = {
  BAD_UPSTREAM: 502,
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DENIED: 403,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 404,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  PAGINATION_NUMBER_INVALID: 400,
  RANGE_INVALID: 416,
  SIZE_INVALID: 413,
  TAG_INVALID: 400,
  TOOMANYREQUESTS: 429,
  UNAUTHORIZED: 401,
  UNAVAILABLE: 503,
  UNKNOWN: 500,
  UNSUPPORTED: 405,
} as const

export type ProblemCode = keyof typeof STATUS_OF

/** A refusal on its way to the client. The message is for people; nothing of this machine belongs in it. */
export class Problem extends Error {
  readonly code: ProblemCode
  readonly headers: Readonly<Record<string, string>>

  constructor(code: ProblemCode, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.name = 'Problem'
    this.code = code
    this.headers = headers
  }

  get status(): number {
    return STATUS_OF[this.code]
  }
}

/** Any error as a refusal. What we did not expect stays in the log, because its message may tell paths. */
export function problemOf(error: unknown): Problem {
  if (error instanceof Problem) return error
  switch (codeOf(error)) {
    case 'unavailable':
      return new Problem(
        'UNAVAILABLE',
        'The store cannot take or give content now; see the log of the registry',
      )
    case 'permission-denied':
      return new Problem('UNSUPPORTED', 'The store of this registry cannot be written')
    default:
      return new Problem('UNKNOWN', 'The registry failed; see its log')
  }
}

/** The body of a refusal. */
export function encodeProblem(problem: Problem): string {
  return JSON.stringify({errors: [{code: problem.code, message: problem.message}]})
}

/** For the log: the refusal, or the whole story of an unexpected error. */
export function describeProblem(error: unknown): string {
  return error instanceof Problem ? `${error.code}: ${error.message}` : describeError(error)
}
