// How much a daemon logs.

import {CodedError} from '../../lib/errors/coded-error.ts'

/** The names that the log knows, least first. */
export const LOG_LEVELS = ['trace', 'debug', 'info', 'warning', 'error', 'fatal', 'panic'] as const
export type LogLevel = (typeof LOG_LEVELS)[number]

export function parseLogLevel(text: string): LogLevel {
  const name = text.toLowerCase() === 'warn' ? 'warning' : text.toLowerCase()
  const level = LOG_LEVELS.find(known => known === name)
  if (level) return level
  throw new CodedError(
    'invalid-argument',
    `Cannot use log level ${JSON.stringify(text)}: expected one of ${LOG_LEVELS.join(', ')}`,
  )
}
