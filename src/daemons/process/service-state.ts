// Whether the daemon serves, told to the service manager by sd_notify(3), and to whoever asks.

import {describeError} from '../../lib/errors/coded-error.ts'
import {sendDatagram} from '../../lib/native/system-calls.ts'
import type {Log} from './log.ts'

export class ServiceState {
  readonly #socket: string | undefined
  readonly #log: Log
  #isReady = false

  /** `socket` is `$NOTIFY_SOCKET`: a path, or `@` and a name in the abstract namespace; undefined without a service manager. */
  constructor(socket: string | undefined, log: Log) {
    this.#socket = socket || undefined
    this.#log = log
  }

  get isReady(): boolean {
    return this.#isReady
  }

  ready(): void {
    this.#isReady = true
    this.#notify('READY=1')
  }

  stopping(): void {
    this.#isReady = false
    this.#notify('STOPPING=1')
  }

  #notify(state: string): void {
    if (this.#socket === undefined) return
    try {
      sendDatagram(this.#socket, Buffer.from(state))
    } catch (error) {
      this.#log.warn(
        {socket: this.#socket, error: describeError(error)},
        'failed to notify the service manager',
      )
    }
  }
}
