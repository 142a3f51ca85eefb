// A daemon's process: command line, environment and signals, and what a failure looks like from outside.

import {describeError} from '../../lib/errors/coded-error.ts'
import {type Log, openLog} from './log.ts'
import type {LogLevel} from './log-level.ts'
import {StopRequest} from './stop-request.ts'
import {packageVersion} from './version.ts'

/** What every daemon's command line says. */
export interface CommonFlags {
  readonly kind: 'run'
  readonly logLevel: LogLevel
}

/** What a daemon runs with. */
export interface DaemonOptions<Flags> {
  readonly flags: Flags
  readonly log: Log
  readonly env: Readonly<Record<string, string | undefined>>
  /** Aborted when the daemon is to end, with a `StopRequest` as its reason. */
  readonly stop: AbortSignal
}

export interface Program<Flags extends CommonFlags> {
  readonly program: string
  readonly usage: string
  /** Throws `invalid-argument`. */
  readonly parseFlags: (argv: readonly string[]) => Flags | {readonly kind: 'version' | 'help'}
  /** What `config` and what follows it do; resolves to the exit code. Throws `invalid-argument`. */
  readonly runConfig: (argv: readonly string[], print: (text: string) => void) => Promise<number>
  /** What the log says when it ends by an error. */
  readonly failure: string
  /** Runs until stopped. */
  readonly run: (options: DaemonOptions<Flags>) => Promise<void>
}

/** Runs a daemon by the process's arguments, and ends the process. */
export async function runDaemon<Flags extends CommonFlags>(daemon: Program<Flags>): Promise<void> {
  const {program, usage} = daemon
  const [command, ...rest] = process.argv.slice(2)
  if (command === 'config') {
    try {
      process.exitCode = await daemon.runConfig(rest, text => process.stdout.write(text))
    } catch (error) {
      process.stderr.write(`${program}: ${describeError(error)}\n`)
      process.exitCode = 1
    }
    return
  }
  let invocation: Flags | {readonly kind: 'version' | 'help'}
  try {
    invocation = daemon.parseFlags(process.argv.slice(2))
  } catch (error) {
    process.stderr.write(`${program}: ${describeError(error)}\n${usage}`)
    process.exit(2)
  }
  if (!isRun(invocation)) {
    process.stdout.write(invocation.kind === 'help' ? usage : `${program} ${packageVersion()}\n`)
    return
  }
  const log = openLog(invocation.logLevel)
  process.on('uncaughtException', error => {
    // Mounts are kept by the keeper, and the service manager starts us again: better than going on in an unknown state.
    log.fatal({error: error.stack ?? String(error)}, 'unexpected error')
    process.exit(1)
  })
  process.on('unhandledRejection', reason => {
    log.error({error: reason instanceof Error ? reason.stack : String(reason)}, 'unexpected error')
  })
  try {
    await daemon.run({flags: invocation, log, env: process.env, stop: listenForStop()})
    process.exit(0)
  } catch (error) {
    if (error instanceof StopRequest) process.exit(0)
    log.fatal({error: describeError(error)}, daemon.failure)
    process.exit(1)
  }
}

function isRun<Flags extends CommonFlags>(
  invocation: Flags | {readonly kind: 'version' | 'help'},
): invocation is Flags {
  return invocation.kind === 'run'
}

/** The first signal asks for an orderly end, the second one ends. */
function listenForStop(): AbortSignal {
  const abort = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.on(name, () => {
      if (abort.signal.aborted) process.exit(1)
      abort.abort(new StopRequest(name))
    })
  }
  return abort.signal
}
