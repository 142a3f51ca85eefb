// gRPC failures in our words: code, what was being done, and which containerd said so.

import {CodedError, type ErrorCode} from '../errors/coded-error.ts'
import {GrpcStatus, isGrpcFailure} from './grpc.ts'

/** Which containerd, for messages. */
export interface Place {
  /** The path of its socket. */
  readonly address: string
  readonly namespace: string
}

export function describePlace({address, namespace}: Place): string {
  return `containerd "${address}", namespace "${namespace}"`
}

/** The `CodedError` that `failure` is; anything that is no gRPC failure comes back unchanged. */
export function describeFailure(failure: unknown, doing: string, place: Place): unknown {
  if (!isGrpcFailure(failure)) return failure
  // Without a cause: the failure holds nothing more, and would say it all twice.
  return new CodedError(
    codeOfStatus(failure.code),
    `Cannot ${doing} (${describePlace(place)}): ${explain(failure.code, failure.details)}`,
  )
}

function explain(status: number, details: string): string {
  if (status === GrpcStatus.DEADLINE_EXCEEDED) return 'it took longer than --timeout allows'
  return details || `gRPC status ${status}`
}

function codeOfStatus(status: number): ErrorCode {
  switch (status) {
    case GrpcStatus.INVALID_ARGUMENT:
    case GrpcStatus.OUT_OF_RANGE:
      return 'invalid-argument'
    case GrpcStatus.NOT_FOUND:
      return 'not-found'
    case GrpcStatus.ALREADY_EXISTS:
      return 'already-exists'
    case GrpcStatus.PERMISSION_DENIED:
      return 'permission-denied'
    case GrpcStatus.UNAUTHENTICATED:
      return 'unauthenticated'
    case GrpcStatus.FAILED_PRECONDITION:
      return 'failed-precondition'
    // When we cancel, we throw our own reason: this one was the server's, on its way down.
    case GrpcStatus.CANCELLED:
    case GrpcStatus.UNAVAILABLE:
    case GrpcStatus.DEADLINE_EXCEEDED:
    case GrpcStatus.RESOURCE_EXHAUSTED:
    case GrpcStatus.ABORTED:
      return 'unavailable'
    case GrpcStatus.UNIMPLEMENTED:
      return 'unsupported'
    case GrpcStatus.DATA_LOSS:
      return 'corrupt'
    default:
      return 'internal'
  }
}
