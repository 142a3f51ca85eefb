// The one error class of this project: a message for a person, and a code that every edge can translate.

/** What went wrong, in the words of gRPC status codes; closed, so that translations can be exhaustive. */
export type ErrorCode =
  | 'invalid-argument'
  | 'not-found'
  | 'already-exists'
  | 'failed-precondition'
  | 'permission-denied'
  | 'unauthenticated'
  | 'unavailable'
  | 'corrupt'
  | 'unsupported'
  | 'cancelled'
  | 'internal'

/**
 * An error with a closed `code`. The message starts with a capital, quotes values, and has no final period;
 * `cause` keeps what led to it. Subclass only where a caller must branch on more than the code.
 */
export class CodedError extends Error {
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: {readonly cause?: unknown}) {
    super(message, options)
    this.name = 'CodedError'
    this.code = code
  }
}

/** The code of any thrown value: aborts are `cancelled`, time limits `unavailable`, what nobody classified is `internal`. */
export function codeOf(error: unknown): ErrorCode {
  if (error instanceof CodedError) return error.code
  if (error instanceof Error && error.name === 'AbortError') return 'cancelled'
  // What AbortSignal.timeout() aborts with.
  if (error instanceof Error && error.name === 'TimeoutError') return 'unavailable'
  return codeOfSystemError(error) ?? 'internal'
}

/** True when `error` carries one of `codes`. */
export function hasCode(error: unknown, ...codes: readonly ErrorCode[]): boolean {
  return codes.includes(codeOf(error))
}

/** The message of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

/** The message of an error followed by those of its causes, each said once. */
export function describeError(error: unknown): string {
  const messages: string[] = []
  for (let cause: unknown = error; cause !== undefined && cause !== null && messages.length < 8; ) {
    const message = messageOf(cause)
    if (message && !messages.some(said => said.includes(message))) messages.push(message)
    cause = cause instanceof Error ? cause.cause : undefined
  }
  return messages.join(': ')
}

/** Node's system errors (ENOENT, ECONNREFUSED, …) in our words; undefined for anything else. */
function codeOfSystemError(error: unknown): ErrorCode | undefined {
  const errno = error instanceof Error ? (error as NodeJS.ErrnoException).code : undefined
  switch (errno) {
    case 'ENOENT':
    case 'ENOTDIR':
      return 'not-found'
    case 'EEXIST':
      return 'already-exists'
    case 'EACCES':
    case 'EPERM':
    case 'EROFS':
      return 'permission-denied'
    case 'ENOSPC':
    case 'EDQUOT':
      return 'unavailable'
    case 'ECONNREFUSED':
    case 'ECONNRESET':
    case 'ETIMEDOUT':
    case 'EPIPE':
      return 'unavailable'
    default:
      return undefined
  }
}
