// Runs one command line: finds the command, runs it, and turns what comes of it into output and an exit code.

import {resolve} from 'node:path'
import {Config} from '@oclif/core/config'
import {asksForJson, type Invocation, parseInvocation} from './argv.ts'
import {failureJson, failureOf} from './failure.ts'
import {handOverToCtr} from './hand-over.ts'
import {interruptedExitCode, listenForInterrupts} from './interrupts.ts'
import {ignoreBrokenPipe} from './standard-streams.ts'
import {closestName} from './suggestion.ts'
import {versionLine} from './version.ts'

/** The package's folder, seen from dist/cli/chunks or dist/cli, where the bundle puts this file. */
const PACKAGE_ROOT = resolve(
  import.meta.dirname,
  import.meta.dirname.endsWith('chunks') ? '../../..' : '../..',
)

/** Runs `argv` and ends the process. */
export async function main(argv: readonly string[]): Promise<never> {
  listenForInterrupts()
  // Nobody is left to clean up after such a bug; it is told like any other failure.
  process.on('uncaughtException', error => {
    report(error, argv)
    process.exit()
  })
  // A reader that has seen enough (`… | head`) is no failure.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', ignoreBrokenPipe)
  try {
    await run(parseInvocation(argv))
  } catch (error) {
    report(error, argv)
  }
  await flush(process.stdout)
  await flush(process.stderr)
  process.exit()
}

async function run(invocation: Invocation): Promise<void> {
  if (invocation.kind === 'version') return print(versionLine())
  const config = await loadConfig()
  const {words} = invocation
  const found = findCommand(config, words)
  if (invocation.kind === 'help' && (found || isTopic(config, words))) {
    return help(config, found ? [found.id] : words)
  }
  if (found) {
    const globals = invocation.kind === 'command' ? invocation.globals : []
    await config.runCommand(found.id, [...globals, ...found.rest])
    return
  }
  if (isTopic(config, words)) return help(config, words)
  const asked = invocation.kind === 'help' ? {globals: [], words: [...words, '--help']} : invocation
  handOverToCtr(asked, describeUnknown(config, words))
}

function loadConfig(): Promise<Config> {
  return Config.load({root: PACKAGE_ROOT, devPlugins: false, userPlugins: false})
}

/** The command whose words lead `words`, the longest that there is. */
function findCommand(
  config: Config,
  words: readonly string[],
): {readonly id: string; readonly rest: readonly string[]} | undefined {
  for (let length = Math.min(words.length, 2); length > 0; length -= 1) {
    const id = words.slice(0, length).join(':')
    if (config.findCommand(id)) return {id, rest: words.slice(length)}
  }
  return undefined
}

/** True for the program itself and for a topic that no further word narrows down. */
function isTopic(config: Config, words: readonly string[]): boolean {
  const names = words.filter(word => !word.startsWith('-'))
  return names.length === 0 || (names.length === 1 && config.findTopic(names[0]!) !== undefined)
}

async function help(config: Config, words: readonly string[]): Promise<void> {
  const {showHelp} = await import('./help.ts')
  await showHelp(
    config,
    words.filter(word => !word.startsWith('-')),
  )
}

function describeUnknown(config: Config, words: readonly string[]): string {
  const name = words.slice(0, config.findTopic(words[0]!) ? 2 : 1).join(' ')
  const names = [...config.commandIDs, ...config.topics.map(topic => topic.name)].map(id =>
    id.replaceAll(':', ' '),
  )
  const closest = closestName(name, names)
  const hint = closest === undefined ? '' : ` (did you mean "${closest}"?)`
  return `Cannot run ${JSON.stringify(name)}${hint}: ctr-remote has no such command`
}

function report(error: unknown, argv: readonly string[]): void {
  const failure = failureOf(error, interruptedExitCode())
  process.exitCode = failure.exitCode
  if (asksForJson(argv)) print(failureJson(failure))
  process.stderr.write(`ctr-remote: ${failure.message}\n`)
  if (argv.includes('--debug') && error instanceof Error && error.stack)
    process.stderr.write(`${error.stack}\n`)
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

/** Resolves when everything written to a stream has reached the system, or cannot any more. */
function flush(stream: NodeJS.WriteStream): Promise<void> {
  return new Promise(done => stream.write('', () => done()))
}
