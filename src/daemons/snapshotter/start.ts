// The first file that runs: command line, environment and signals, and what a failure looks like from outside.

import {describeError} from '../../lib/errors/coded-error.ts'
import {packageVersion} from '../version.ts'
import {parseFlags, USAGE} from './flags.ts'
import {openLog} from './log.ts'
import {runSnapshotter} from './main.ts'

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
    // Mounts live on by the keeper, and the service manager starts us again: better than going on in an unknown state.
    log.fatal({error: error.stack ?? String(error)}, 'unexpected error')
    process.exit(1)
  })
  const stopped = new Promise<'SIGTERM' | 'SIGINT'>(resolve => {
    for (const name of ['SIGTERM', 'SIGINT'] as const) process.on(name, () => resolve(name))
  })
  try {
    await runSnapshotter({flags: invocation, log, env: process.env, stopped})
    process.exit(0)
  } catch (error) {
    log.fatal({error: describeError(error)}, 'failed to run the snapshotter')
    process.exit(1)
  }
}

function versionLine(): string {
  return `containerd-stargz-grpc ${packageVersion()}\n`
}
