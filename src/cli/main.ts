// Runs one command line: finds the command, runs it, and turns what comes of it into output and an exit code.

import {resolve} from 'node:path'
import type {Config} from '@oclif/core/config'
import {CodedError} from '../lib/errors/coded-error.ts'
import {interruptedExitCode, listenForInterrupts} from '../lib/terminal/interrupts.ts'
import {asksForJson, type Invocation, parseInvocation} from './argv.ts'
import {COMMANDS, findOwnCommand} from './command-table.ts'
import {failureJson, failureOf} from './failure.ts'
import {handOverToCtr} from './hand-over.ts'
import {ignoreBrokenPipe} from './standard-streams.ts'
import {NO_HOME} from './unknown-user.ts'
import {versionLine} from './version.ts'

/** The package's folder, seen from dist/cli, where the bundle puts this file, as from here. */
const PACKAGE_ROOT = resolve(import.meta.dirname, '../..')

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
  const {words} = invocation
  const own = invocation.kind === 'command' ? findOwnCommand(words) : undefined
  if (own && invocation.kind === 'command') {
    return runOwnCommand(own.id, [...invocation.globals, ...own.rest])
  }
  const config = await loadConfig()
  const found = findCommand(config, words)
  if (invocation.kind === 'help' && (found || isTopic(config, words))) {
    return help(config, found ? [found.id] : words)
  }
  if (found) {
    requireHome(config, found.id)
    const globals = invocation.kind === 'command' ? invocation.globals : []
    await config.runCommand(found.id, [...globals, ...found.rest])
    return
  }
  if (isTopic(config, words)) return help(config, words)
  const asked = invocation.kind === 'help' ? {globals: [], words: [...words, '--help']} : invocation
  handOverToCtr(
    asked,
    config.commandIDs.map(id => id.replaceAll(':', ' ')),
  )
}

async function runOwnCommand(id: string, argv: string[]): Promise<void> {
  const [{commandConfig}, {default: Command}] = await Promise.all([
    import('./oclif-config.ts'),
    COMMANDS[id]!(),
  ])
  Command.id = id
  await new Command(argv, commandConfig(PACKAGE_ROOT)).runToEnd()
}

async function loadConfig(): Promise<Config> {
  const {fullConfig} = await import('./oclif-config.ts')
  return fullConfig(PACKAGE_ROOT)
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

/** Completions are kept among the user's files, by oclif itself. */
function requireHome({cacheDir}: Config, id: string): void {
  if (!id.startsWith('autocomplete') || !cacheDir.startsWith(NO_HOME)) return
  throw new CodedError('failed-precondition', 'Cannot keep completions: set XDG_CACHE_HOME or HOME')
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
