// How a daemon is told to end.

import {CodedError} from '../../lib/errors/coded-error.ts'

/** What ends a daemon. */
export type StopSignal = 'SIGTERM' | 'SIGINT'

/** Why a daemon's signal is aborted. */
export class StopRequest extends CodedError {
  readonly signal: StopSignal

  constructor(signal: StopSignal) {
    super('cancelled', `Stopped by ${signal}`)
    this.signal = signal
  }
}

/** Resolves to what stopped the daemon, once something has. */
export function stopSignalOf(stop: AbortSignal): Promise<StopSignal> {
  return new Promise(resolve => {
    const done = () => resolve(stop.reason instanceof StopRequest ? stop.reason.signal : 'SIGTERM')
    if (stop.aborted) done()
    else stop.addEventListener('abort', done, {once: true})
  })
}
