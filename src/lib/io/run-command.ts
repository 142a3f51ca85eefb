// Running a helper program to its end: mount, runc, CNI plugins. Never through a shell.

import {constants} from 'node:os'
import {CodedError} from '../errors/coded-error.ts'

export interface CommandOptions {
  readonly cwd?: string | undefined
  /** Written to the program's standard input, which is empty otherwise. */
  readonly input?: string | undefined
  /** Added to the environment of this process. */
  readonly env?: Readonly<Record<string, string>> | undefined
  /** The program is killed after this long; the default is a minute. */
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

export interface CommandResult {
  /** For a program that died of a signal, 128 + the signal's number, as shells have it. */
  readonly exitCode: number
  readonly stdout: string
  readonly stderr: string
}

/** Most output kept of either stream, characters: helpers answer with little, and hostile ones with no more. */
const MAX_OUTPUT = 16 * 1024 * 1024

/**
 * Runs `file` with `args` and resolves when it has ended, whatever its exit code. Throws `failed-precondition` when
 * there is no such program, `unavailable` when it does not end in time, `cancelled` when aborted.
 */
export async function runCommand(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  options.signal?.throwIfAborted()
  const {cwd, env, signal, input = '', timeoutMs = 60_000} = options
  // Loaded here: most of what can run a program does not, and it would be a tenth of their start.
  const {execa} = await import('execa')
  const result = await execa(file, args, {
    reject: false,
    input,
    maxBuffer: MAX_OUTPUT,
    timeout: timeoutMs,
    ...(cwd === undefined ? {} : {cwd}),
    ...(env === undefined ? {} : {env}),
    ...(signal === undefined ? {} : {cancelSignal: signal}),
  })
  if (result.isCanceled) signal?.throwIfAborted()
  if (result.timedOut) {
    throw new CodedError(
      'unavailable',
      `Cannot run ${JSON.stringify(file)}: it did not end within ${timeoutMs} ms`,
    )
  }
  if (result.code === 'ENOENT') {
    throw new CodedError(
      'failed-precondition',
      `Cannot run ${JSON.stringify(file)}: the program is not installed`,
    )
  }
  const {signal: deathSignal, stdout, stderr} = result
  const exitCode = result.exitCode ?? 128 + (deathSignal === undefined ? 0 : constants.signals[deathSignal])
  return {exitCode, stdout, stderr}
}

/** As `runCommand`, but an exit code other than 0 throws `failed-precondition` with what the program said. */
export async function runCommandOrThrow(
  file: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<CommandResult> {
  const result = await runCommand(file, args, options)
  if (result.exitCode === 0) return result
  const said = (result.stderr.trim() || result.stdout.trim()).slice(0, 2000)
  throw new CodedError(
    'failed-precondition',
    `Cannot run "${[file, ...args.slice(0, 3)].join(' ')}": exit code ${result.exitCode}${said ? `: ${said}` : ''}`,
  )
}
