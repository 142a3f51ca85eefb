// The daemon's log: one JSON object a line on stderr, with the keys and levels of the reference's logrus.

import {type Logger, pino} from 'pino'
import type {LogLevel} from './log-level.ts'

/** Fields first, then the message, as pino has it. */
export type Log = Pick<Logger, 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'fatal' | 'level'>

/** Opens the log. Lines are written at once: what a crash leaves behind is what was logged. */
export function openLog(level: LogLevel): Log {
  const destination = pino.destination({dest: 2, sync: true})
  // Whoever read the log is gone: no reason for containers to lose their files.
  destination.on('error', () => {})
  return pino(
    {
      level: level === 'warning' ? 'warn' : level === 'panic' ? 'fatal' : level,
      base: null,
      messageKey: 'msg',
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      formatters: {level: label => ({level: label === 'warn' ? 'warning' : label})},
    },
    destination,
  )
}
