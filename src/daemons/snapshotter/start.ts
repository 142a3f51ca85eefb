// The first file that runs: command line, environment and signals, and what a failure looks like from outside.

import {describeError} from '../../lib/errors/coded-error.ts'
import {packageVersion} from '../version.ts'
import {parseFlags, USAGE} from './flags.ts'
import {openLog} from './log.ts'
import {runSnapshotter, StopRequest} from './main.ts'

await start(process.argv.slice(2))

async function start(argv: readonly string[]): Promise<void> {
  let invocation: ReturnType<typeof parseFlags>
  try {
    invocation = parseFlags(argv)
  } catch (error) {
    process.stderr.write(`containerd-stargz-grpc: ${describeError(error)}\n${USAGE}`)
    process.exit(2)
  }
  if (invocation.kind === 'version') return void process.stdout.write(versionLine())
  if (invocation.kind === 'help') return void process.stdout.write(USAGE)
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
    await runSnapshotter({flags: invocation, log, env: process.env, stop: listenForStop()})
    process.exit(0)
  } catch (error) {
    if (error instanceof StopRequest) process.exit(0)
    log.fatal({error: describeError(error)}, 'failed to run the snapshotter')
    process.exit(1)
  }
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

function versionLine(): string {
  return `containerd-stargz-grpc ${packageVersion()}\n`
}
