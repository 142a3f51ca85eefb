// Runs programs for the quickstart: shows the command first, and takes everything down with it when interrupted.
// Commands end by themselves; services run until the end, and are then stopped in the reverse order of their start.

import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {accessSync, constants, existsSync} from 'node:fs'
import {delimiter, join, resolve} from 'node:path'
import {createInterface} from 'node:readline'
import {setTimeout as sleep} from 'node:timers/promises'
import chalk from 'chalk'

export const ROOT = resolve(import.meta.dirname, '../..')
const CTR_REMOTE = join(ROOT, 'bin/ctr-remote')
/** As a reader in the checkout calls it. */
const SHOWN = 'bin/ctr-remote'

/** The width that lines keep to. */
const COLUMNS = 100

/** A program failed. It has said why on stderr itself. */
export class ProgramFailed extends Error {}

/** How long a service may take to listen. */
const START_TIMEOUT_MS = 60_000

/** A service that does not end by itself after this is killed. */
const STOP_TIMEOUT_MS = 20_000

/**
 * Programs run in process groups of their own, so that an interrupt reaches each command once, from here: a terminal
 * would send it to all in its group, and a second one tells ctr-remote to give up without tidying up.
 */
const commands = new Set<ChildProcess>()
const services: {readonly child: ChildProcess; readonly options: ServiceOptions}[] = []
let interrupted: NodeJS.Signals | undefined

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (interrupted) return
    interrupted = signal
    for (const child of commands) signalGroup(child, signal)
  })
}

/** The signal that wants everything to end, if there was one. */
export function interruption(): NodeJS.Signals | undefined {
  return interrupted
}

/** Ends what runs: commands first, because services serve them. Resolves when all have ended. */
export async function stopPrograms(): Promise<void> {
  const ends = [...commands].map(child => once(child, 'close'))
  if (!interrupted) for (const child of commands) signalGroup(child, 'SIGTERM')
  await Promise.all(ends)
  for (const {child, options} of services.reverse()) {
    if (child.exitCode !== null || child.signalCode !== null) continue
    await options.beforeStop?.()
    const end = once(child, 'exit')
    child.kill(options.signal)
    const timer = setTimeout(() => signalGroup(child, 'SIGKILL'), STOP_TIMEOUT_MS)
    await end
    clearTimeout(timer)
  }
}

/** Which of these programs are not on the PATH. */
export function missingPrograms(programs: readonly string[]): readonly string[] {
  const isIn = (program: string) => (directory: string) => {
    try {
      accessSync(join(directory, program), constants.X_OK)
      return true
    } catch {
      return false
    }
  }
  const directories = (process.env.PATH ?? '').split(delimiter)
  return programs.filter(program => !directories.some(isIn(program)))
}

/** Resolves when a service has made its socket. */
export async function untilThere(socket: string): Promise<void> {
  for (const deadline = Date.now() + START_TIMEOUT_MS; !existsSync(socket); await sleep(20)) {
    if (interruption()) throw new ProgramFailed('interrupted')
    if (Date.now() > deadline) throw new ProgramFailed(`nothing listens on ${socket}`)
  }
}

/** Runs a program to its end; its output goes where ours goes. */
export async function run(file: string, words: readonly string[], env = process.env): Promise<void> {
  await ended(start(file, words, {stdout: 'inherit', env}), file)
}

/** Runs a program with variables of its own, which are not shown; the command is. */
export async function runShown(
  file: string,
  words: readonly string[],
  env: Readonly<Record<string, string>>,
): Promise<void> {
  showCommand(file, words)
  await run(file, words, {...process.env, ...env})
}

/** Runs ctr-remote. */
export async function ctrRemote(words: readonly string[]): Promise<void> {
  showCommand(SHOWN, words)
  await run(CTR_REMOTE, words)
}

/** Runs ctr-remote with `--json`; resolves to what it prints. */
export async function ctrRemoteJson<Result>(words: readonly string[]): Promise<Result> {
  showCommand(SHOWN, words)
  const child = start(CTR_REMOTE, [...words, '--json'], {stdout: 'pipe'})
  let printed = ''
  child.stdout!.setEncoding('utf8').on('data', text => {
    printed += text
  })
  await ended(child, 'ctr-remote')
  return JSON.parse(printed) as Result
}

/** Runs ctr-remote; resolves to how long it took to print its first line, milliseconds. The output is shown. */
export async function ctrRemoteUntilLine(words: readonly string[]): Promise<number> {
  showCommand(SHOWN, words)
  const begunMs = performance.now()
  let firstMs: number | undefined
  const child = start(CTR_REMOTE, words, {stdout: 'pipe'})
  child.stdout!.on('data', text => {
    firstMs ??= performance.now() - begunMs
    process.stdout.write(text)
  })
  await ended(child, 'ctr-remote')
  return firstMs ?? performance.now() - begunMs
}

/** What a registry has sent so far. */
export interface Served {
  readonly requests: number
  readonly bytes: number
}

/** Starts a registry on a free port of this machine, which runs until `stopPrograms`. */
export async function startRegistry(): Promise<{readonly address: string; served(): Served}> {
  const words = ['registry', 'serve', '--listen=127.0.0.1:0', '--log-format=json']
  showCommand(SHOWN, words)
  const child = startService(CTR_REMOTE, words, {signal: 'SIGTERM', output: 'pipe'})
  const served = {requests: 0, bytes: 0}
  createInterface({input: child.stderr!}).on('line', line => {
    if (!line.startsWith('{')) return void console.error(line)
    served.requests++
    served.bytes += (JSON.parse(line) as {sentBytes: number}).sentBytes
  })
  for await (const line of createInterface({input: child.stdout!})) {
    const address = /http:\/\/(\S+?)\/?$/.exec(line)?.[1]
    if (address) return {address, served: () => ({...served})}
  }
  throw new ProgramFailed('the registry did not start')
}

export interface ServiceOptions {
  /** What ends it. */
  readonly signal: NodeJS.Signals
  /** `pipe`, or an open file that both outputs go to. */
  readonly output: 'pipe' | number
  /** What to do before, as long as it runs. */
  readonly beforeStop?: () => Promise<void>
}

/** Starts a program that runs until `stopPrograms`. */
export function startService(file: string, words: readonly string[], options: ServiceOptions): ChildProcess {
  if (interrupted) throw new ProgramFailed('interrupted')
  const stdio = ['ignore', options.output, options.output] as const
  const child = spawn(file, words, {stdio: [...stdio], detached: true})
  services.push({child, options})
  return child
}

interface StartOptions {
  readonly stdout: 'inherit' | 'pipe'
  readonly env?: NodeJS.ProcessEnv
}

function start(
  file: string,
  words: readonly string[],
  {stdout, env = process.env}: StartOptions,
): ChildProcess {
  if (interrupted) throw new ProgramFailed('interrupted')
  const child = spawn(file, words, {stdio: ['ignore', stdout, 'inherit'], env, detached: true})
  commands.add(child)
  child.once('close', () => commands.delete(child))
  return child
}

async function ended(child: ChildProcess, file: string): Promise<void> {
  const [code, signal] = await once(child, 'close')
  if (code !== 0) throw new ProgramFailed(`${file} ended with ${signal ?? `exit code ${code}`}`)
}

function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  try {
    process.kill(-child.pid!, signal)
  } catch {
    // It ended by itself meanwhile.
  }
}

/** Shows a command as it can be pasted into a shell, over several lines when it is long. */
function showCommand(program: string, words: readonly string[]): void {
  const lines = [`$ ${program}`]
  for (const word of words.map(quote)) {
    if (`${lines.at(-1)} ${word} \\`.length > COLUMNS) {
      lines[lines.length - 1] += ' \\'
      lines.push('   ')
    }
    lines[lines.length - 1] += ` ${word}`
  }
  console.log(chalk.dim(lines.join('\n')))
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`
}
