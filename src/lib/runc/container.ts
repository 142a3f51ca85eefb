// One container under runc: started, watched, stopped and removed.

import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdir, readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import type {Readable, Writable} from 'node:stream'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {runCommand, runCommandOrThrow} from '../io/run-command.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {RuntimeSpec} from './runtime-spec.ts'

/** How a workload ended; 128 + N for one that signal N killed, as shells say it. */
export interface ContainerExit {
  readonly exitCode: number
  /** The end of what it wrote, for messages; empty with a terminal. */
  readonly lastOutput: string
}

export interface ContainerOptions {
  /** A directory of the caller's for the bundle and runc's state; `removeContainers` cleans up after it. */
  readonly directory: string
  readonly id: string
  readonly spec: RuntimeSpec
  /** `inherit` is this process's own standard input; left out, the workload reads nothing. */
  readonly stdin?: Readable | 'inherit' | undefined
  readonly stdout?: Writable | undefined
  readonly stderr?: Writable | undefined
  /** Sees standard output as it passes by. */
  readonly onStdout?: ((bytes: Uint8Array) => void) | undefined
}

export interface RunningContainer {
  /**
   * Resolves when the workload has ended and its output has been passed on. Rejects with `failed-precondition` when
   * it could not be started, with the reason that runc gives.
   */
  readonly exited: Promise<ContainerExit>
  /** Sends a signal, by name or number, to the workload's first process. One that has ended already is no error. */
  kill(signal: string): Promise<void>
  /** Kills every process of the container at once. */
  killAll(): Promise<void>
}

/** How much of a workload's last output is kept for messages, bytes per stream. */
const LAST_OUTPUT_SIZE = 4096
/** How long the output may stay open after runc has ended: a daemon of the workload can hold it forever. */
const OUTPUT_GRACE_MS = 1000

/** Throws what to do when this machine or this user cannot run containers. */
export async function requireRunc(options: CallOptions = {}): Promise<void> {
  const instead = 'give the files with --prefetch-list, or convert without them with --no-optimize'
  if (process.geteuid?.() !== 0) {
    throw new CodedError(
      'permission-denied',
      `Cannot run the workload: mounting its file system and watching it need root; run as root, ${instead}`,
    )
  }
  try {
    await runCommandOrThrow('runc', ['--version'], options)
  } catch (cause) {
    if (hasCode(cause, 'cancelled')) throw cause
    throw new CodedError(
      'failed-precondition',
      `Cannot run the workload: it needs "runc" on the PATH; install it, ${instead}`,
      {cause},
    )
  }
}

/** Writes the bundle and starts the container. The caller calls `removeContainers` whatever happens. */
export async function startContainer(options: ContainerOptions): Promise<RunningContainer> {
  const {directory, id, spec} = options
  const bundle = join(directory, 'bundle')
  const log = join(directory, 'runc.log')
  await mkdir(bundle, {recursive: true, mode: 0o700})
  await writeFile(join(bundle, 'config.json'), JSON.stringify(spec), {mode: 0o600})
  const {terminal} = spec.process
  const child = spawn(
    'runc',
    ['--root', stateOf(directory), '--log', log, '--log-format', 'json', 'run', '--bundle', bundle, id],
    {
      stdio: [terminal || options.stdin === 'inherit' ? 'inherit' : options.stdin ? 'pipe' : 'ignore', 'pipe', 'pipe'],
      // Ctrl-C must reach us, not the workload: its own session. With a terminal runc must stay in the foreground
      // group, where it passes keys and changes of the window's size on to the workload's terminal.
      detached: !terminal,
    },
  )
  const stdout = new OutputTail()
  const stderr = new OutputTail()
  feed(child, options.stdin)
  const outputs = Promise.all([
    pass(child.stdout!, options.stdout, bytes => {
      stdout.add(bytes)
      options.onStdout?.(bytes)
    }),
    pass(child.stderr!, options.stderr, bytes => stderr.add(bytes)),
  ])
  const exited = waitFor(child, outputs, async exitCode => {
    const said = stderr.text()
    const failure = exitCode === 0 ? undefined : await startFailure(log, said, spec.process.args[0]!)
    if (failure !== undefined) throw cannotStart(failure)
    return {exitCode, lastOutput: said || stdout.text()}
  })
  exited.catch(() => {})
  return {
    exited,
    kill: signal => sendSignal(directory, id, [signal]),
    killAll: () => sendSignal(directory, id, ['--all', 'KILL']),
  }
}

/**
 * Kills and removes every container that `startContainer` made with `directory`, now or in a run that was killed.
 * Not abortable: it is how an abort cleans up.
 */
export async function removeContainers(directory: string): Promise<void> {
  const state = stateOf(directory)
  const {exitCode, stdout} = await runCommand('runc', ['--root', state, 'list', '--quiet'])
  if (exitCode !== 0) return
  for (const id of stdout.split('\n').filter(Boolean)) {
    await runCommandOrThrow('runc', ['--root', state, 'delete', '--force', id])
  }
}

function stateOf(directory: string): string {
  return join(directory, 'runc')
}

async function sendSignal(directory: string, id: string, args: readonly string[]): Promise<void> {
  // A container that has just ended makes runc fail: whether it ended is what `exited` is for.
  const [first, ...rest] = args
  const flags = first === '--all' ? ['--all', id, ...rest] : [id, ...args]
  await runCommand('runc', ['--root', stateOf(directory), 'kill', ...flags])
}

async function waitFor<T>(
  child: ChildProcess,
  outputs: Promise<unknown>,
  finish: (exitCode: number) => Promise<T>,
): Promise<T> {
  const [exitCode, signal] = (await once(child, 'exit').catch(cause => {
    throw new CodedError('failed-precondition', 'Cannot run the workload: "runc" cannot be executed', {cause})
  })) as [number | null, NodeJS.Signals | null]
  let timer: NodeJS.Timeout | undefined
  const grace = new Promise<void>(resolve => {
    timer = setTimeout(resolve, OUTPUT_GRACE_MS)
  })
  await Promise.race([outputs, grace])
  clearTimeout(timer)
  child.stdout?.destroy()
  child.stderr?.destroy()
  if (signal) throw new CodedError('internal', `Cannot watch the workload: runc was killed by ${signal}`)
  return finish(exitCode ?? 1)
}

function feed(child: ChildProcess, stdin: ContainerOptions['stdin']): void {
  if (!child.stdin || stdin === undefined || stdin === 'inherit') return
  // A workload may end, or close its input, without reading it all.
  child.stdin.on('error', () => {})
  stdin.pipe(child.stdin)
  child.once('exit', () => {
    stdin.unpipe()
    stdin.pause()
  })
}

/** Copies at the pace of `target`; a target that closes early (a pipe to `head`) does not stop the workload. */
async function pass(
  source: Readable,
  target: Writable | undefined,
  see: (bytes: Uint8Array) => void,
): Promise<void> {
  try {
    for await (const chunk of source as AsyncIterable<Uint8Array>) {
      see(chunk)
      if (target?.writable && !target.write(chunk)) await Promise.race([once(target, 'drain'), once(target, 'close')])
    }
  } catch {
    // The stream was destroyed when its grace was over.
  }
}

/** The last bytes of a stream. */
class OutputTail {
  #bytes: Uint8Array = new Uint8Array()

  add(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]).subarray(-LAST_OUTPUT_SIZE)
  }

  text(): string {
    return Buffer.from(this.#bytes).toString('utf8').trim()
  }
}

/** runc logs an error when it could not start the workload; undefined when it was the workload that failed. */
async function startFailure(log: string, stderr: string, program: string): Promise<string | undefined> {
  const errors = (await readLog(log))
    .split('\n')
    .map(line => /"level":"(?:error|fatal)","msg":("(?:[^"\\]|\\.)*")/.exec(line)?.[1])
    .filter(text => text !== undefined)
  if (errors.length > 0) return String(JSON.parse(errors.at(-1)!)).replace(/^runc run failed: /, '')
  // A program that the kernel refuses (`exec format error`, a missing interpreter) is reported by runc's init, which
  // has no log any more, as one line on the workload's standard error.
  const name = program.slice(program.lastIndexOf('/') + 1)
  const refused = /^exec (\S+): [a-z ]+$/.exec(stderr)
  return refused?.[1]?.endsWith(`/${name}`) ? stderr : undefined
}

async function readLog(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '')
}

function cannotStart(reason: string): CodedError {
  return new CodedError('failed-precondition', `Cannot start the workload: ${reason}`)
}
