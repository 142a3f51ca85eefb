// Runs programs for the quickstart: shows the command first, and takes everything down with it when interrupted.

import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {join, resolve} from 'node:path'
import {createInterface} from 'node:readline'
import chalk from 'chalk'

export const ROOT = resolve(import.meta.dirname, '../..')
const CTR_REMOTE = join(ROOT, 'bin/ctr-remote')

/** The width that lines keep to. */
const COLUMNS = 100

/** A program failed. It has said why on stderr itself. */
export class ProgramFailed extends Error {}

/**
 * Programs run in process groups of their own, so that an interrupt reaches each of them once, from here: a terminal
 * would send it to all in its group, and a second one tells ctr-remote to give up without tidying up.
 */
const running = new Set<ChildProcess>()
let interrupted: NodeJS.Signals | undefined

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (interrupted) return
    interrupted = signal
    stopAll(signal)
  })
}

/** The signal that wants everything to end, if there was one. */
export function interruption(): NodeJS.Signals | undefined {
  return interrupted
}

/** Tells every program to end, and resolves when all have. */
export async function stopPrograms(): Promise<void> {
  const ends = [...running].map(child => once(child, 'close'))
  if (!interrupted) stopAll('SIGTERM')
  await Promise.all(ends)
}

/** Runs a program to its end; its output goes where ours goes. */
export async function run(file: string, words: readonly string[]): Promise<void> {
  await ended(start(file, words, 'inherit'), file)
}

/** Runs ctr-remote. */
export async function ctrRemote(words: readonly string[]): Promise<void> {
  showCommand(words)
  await run(CTR_REMOTE, words)
}

/** Runs ctr-remote with `--json`; resolves to what it prints. */
export async function ctrRemoteJson<Result>(words: readonly string[]): Promise<Result> {
  showCommand(words)
  const child = start(CTR_REMOTE, [...words, '--json'], 'pipe')
  let printed = ''
  child.stdout!.setEncoding('utf8').on('data', text => {
    printed += text
  })
  await ended(child, 'ctr-remote')
  return JSON.parse(printed) as Result
}

/** Starts a registry on a free port of this machine; resolves to its host and port. It runs until `stopPrograms`. */
export async function startRegistry(): Promise<string> {
  const words = ['registry', 'serve', '--listen=127.0.0.1:0', '--quiet']
  showCommand(words)
  const child = start(CTR_REMOTE, words, 'pipe')
  for await (const line of createInterface({input: child.stdout!})) {
    const address = /http:\/\/(\S+?)\/?$/.exec(line)?.[1]
    if (address) return address
  }
  throw new ProgramFailed('the registry did not start')
}

function start(file: string, words: readonly string[], stdout: 'inherit' | 'pipe'): ChildProcess {
  if (interrupted) throw new ProgramFailed('interrupted')
  const child = spawn(file, words, {stdio: ['ignore', stdout, 'inherit'], detached: true})
  running.add(child)
  child.once('close', () => running.delete(child))
  return child
}

async function ended(child: ChildProcess, file: string): Promise<void> {
  const [code, signal] = await once(child, 'close')
  if (code !== 0) throw new ProgramFailed(`${file} ended with ${signal ?? `exit code ${code}`}`)
}

function stopAll(signal: NodeJS.Signals): void {
  for (const child of running) {
    try {
      process.kill(-child.pid!, signal)
    } catch {
      // It ended by itself meanwhile.
    }
  }
}

/** Shows a command as it can be pasted into a shell, over several lines when it is long. */
function showCommand(words: readonly string[]): void {
  const lines = ['$ bin/ctr-remote']
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
