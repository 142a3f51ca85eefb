// The only translation of errors into exit codes and messages (docs/cli.md has the table).

import {CLIError} from '@oclif/core/errors'
import {codeOf, describeError, type ErrorCode} from '../lib/errors/coded-error.ts'

export const EXIT_CODES: Readonly<Record<ErrorCode, number>> = {
  internal: 1,
  'invalid-argument': 2,
  'not-found': 3,
  'already-exists': 4,
  'failed-precondition': 5,
  'permission-denied': 6,
  unauthenticated: 7,
  unavailable: 8,
  corrupt: 9,
  unsupported: 10,
  cancelled: 130,
}

/** A failure as the command line tells it. `message` may have several lines. */
export interface Failure {
  readonly code: ErrorCode
  readonly message: string
  readonly exitCode: number
}

/** Any thrown value as a failure; `interrupted` is the exit code of the signal that cancelled the process, if one did. */
export function failureOf(error: unknown, interrupted: number | undefined): Failure {
  // Whatever breaks after a signal breaks because of it.
  if (interrupted !== undefined) {
    return {code: 'cancelled', message: 'Cancelled', exitCode: interrupted}
  }
  // Our own commands' are translated where they are thrown (`explainUsage`); these are of oclif's plugins.
  const code = error instanceof CLIError ? 'invalid-argument' : codeOf(error)
  return {code, message: messageFor(error), exitCode: EXIT_CODES[code]}
}

/** With `--json`, what is printed on stdout. */
export function failureJson(failure: Failure): string {
  return JSON.stringify({error: {code: failure.code, message: failure.message}})
}

function messageFor(error: unknown): string {
  const message = describeError(error).trim()
  return message === ''
    ? 'Failed without a message'
    : message.replace(/\nSee more help with --help$/, '; see --help')
}
