// sd_notify(3): tells the service manager when the daemon is ready and when it stops.

import {describeError} from '../../lib/errors/coded-error.ts'
import {sendDatagram} from '../../lib/native/system-calls.ts'
import type {Log} from './log.ts'

/** Sends states such as `READY=1`; does nothing without a service manager. */
export type Notify = (state: string) => void

/** `socket` is `$NOTIFY_SOCKET`: a path, or `@` and a name in the abstract namespace. */
export function createNotify(socket: string | undefined, log: Log): Notify {
  if (!socket) return () => {}
  return state => {
    try {
      sendDatagram(socket, Buffer.from(state))
    } catch (error) {
      log.warn({socket, error: describeError(error)}, 'failed to notify the service manager')
    }
  }
}
