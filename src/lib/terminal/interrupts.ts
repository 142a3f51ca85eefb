// SIGINT, SIGTERM and SIGHUP: the first one cancels what runs, so that it cleans up; a second one ends the process.

import {CodedError} from '../errors/coded-error.ts'

/** Exit codes as a shell reports death by these signals: 128 and the signal's number. */
const EXIT_CODES = {SIGHUP: 129, SIGINT: 130, SIGTERM: 143} as const

type Interrupt = keyof typeof EXIT_CODES

let received: Interrupt | undefined
const abort = new AbortController()
const consumers: Array<() => void> = []
let consumeAll: ((name: Interrupt) => void) | undefined

/** Aborted, with a `cancelled` error as its reason, by the first signal that nobody consumes. */
export const interruptSignal: AbortSignal = abort.signal

/** Listens from now on; call once per process. */
export function listenForInterrupts(): void {
  for (const name of Object.keys(EXIT_CODES) as Interrupt[]) process.on(name, () => interrupt(name))
}

/** Lets `consume` take the next SIGINT instead of the cancellation (`optimize --wait-on-signal`). */
export function consumeNextInterrupt(consume: () => void): Disposable {
  consumers.push(consume)
  return {
    [Symbol.dispose]: () => {
      const index = consumers.indexOf(consume)
      if (index !== -1) consumers.splice(index, 1)
    },
  }
}

/** Hands every SIGHUP, SIGINT and SIGTERM to `consume`, and none to the cancellation, until disposed. */
export function consumeInterrupts(consume: (name: Interrupt) => void): Disposable {
  consumeAll = consume
  return {
    [Symbol.dispose]: () => {
      consumeAll = undefined
    },
  }
}

/** The exit code of a process that a signal has cancelled; undefined when none has. */
export function interruptedExitCode(): number | undefined {
  return received && EXIT_CODES[received]
}

function interrupt(name: Interrupt): void {
  if (consumeAll) {
    consumeAll(name)
    return
  }
  const consume = name === 'SIGINT' ? consumers.shift() : undefined
  if (consume) {
    consume()
    return
  }
  if (received) {
    // A live list had hidden it.
    if (process.stderr.isTTY) process.stderr.write('\x1b[?25h')
    process.exit(EXIT_CODES[name])
  }
  received = name
  abort.abort(new CodedError('cancelled', `Cancelled by ${name}`))
}
