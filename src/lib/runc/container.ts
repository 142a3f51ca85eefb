// One container under runc: started, watched, stopped and removed.

import {type ChildProcess, spawn} from 'node:child_process'
import {once} from 'node:events'
import {mkdir, readFile, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import type {Readable, Writable} from 'node:stream'
import {setTimeout} from 'node:timers/promises'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {runCommand, runCommandOrThrow} from '../io/run-command.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {RuntimeSpec} from './runtime-spec.ts'

/** How a workload ended; 128 + N for one that signal N killed, as shells say it. */
export interface ContainerExit {
  readonly exitCode: number
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
  /** Kills every process of the container, and resolves when it has ended. */
  killAll(): Promise<void>
}

/** How much of a workload's last words on standard error is kept, bytes. */
const TAIL_SIZE = 4096
/** How long to wait before a signal is sent again to a container that runc may not have finished to make. */
const KILL_INTERVAL_MS = 100
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
      stdio: [
        terminal || options.stdin === 'inherit' ? 'inherit' : options.stdin ? 'pipe' : 'ignore',
        'pipe',
        'pipe',
      ],
      // Ctrl-C must reach us, not the workload: its own session. With a terminal runc must stay in the foreground
      // group, where it passes keys and changes of the window's size on to the workload's terminal.
      detached: !terminal,
    },
  )
  const stderr = new OutputTail()
  feed(child, options.stdin)
  const outputs = Promise.all([
    pass(child.stdout!, options.stdout, bytes => options.onStdout?.(bytes)),
    pass(child.stderr!, options.stderr, bytes => stderr.add(bytes)),
  ])
  const exited = waitFor(child, outputs, async exitCode => {
    const failure = exitCode === 0 ? undefined : await startFailure(log, stderr.text(), spec.process.args[0]!)
    if (failure === undefined) return {exitCode}
    throw new CodedError('failed-precondition', `Cannot start the workload: ${failure}`)
  })
  exited.catch(() => {})
  return {
    exited,
    kill: signal => sendSignal(directory, id, signal),
    killAll: () => killUntilEnded(directory, id, exited),
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

/** A container that has just ended, or is not made yet, makes runc fail: whether it ended is what `exited` is for. */
async function sendSignal(directory: string, id: string, signal: string): Promise<void> {
  await runCommand('runc', ['--root', stateOf(directory), 'kill', id, signalForRunc(signal)])
}

/**
 * runc knows signals by number and by name, except the real-time ones, `SIGRTMIN+3`, that images with systemd stop by:
 * they count from 34 in the C library (signal(7)).
 */
function signalForRunc(signal: string): string {
  const offset = /^(?:SIG)?RTMIN\+(\d{1,2})$/.exec(signal)?.[1]
  return offset === undefined ? signal : String(34 + Number(offset))
}

/** The end of the first process is the end of all others of its PID namespace. */
async function killUntilEnded(directory: string, id: string, exited: Promise<unknown>): Promise<void> {
  let hasEnded = false
  const markEnded = () => {
    hasEnded = true
  }
  const ended = exited.then(markEnded, markEnded)
  // While runc is still making the container there is nothing to kill: ask again.
  while (!hasEnded) {
    await sendSignal(directory, id, 'KILL')
    const pause = new AbortController()
    await Promise.race([
      ended,
      setTimeout(KILL_INTERVAL_MS, undefined, {signal: pause.signal}).catch(() => {}),
    ])
    pause.abort()
  }
}

async function waitFor<T>(
  child: ChildProcess,
  outputs: Promise<unknown>,
  finish: (exitCode: number) => Promise<T>,
): Promise<T> {
  const [exitCode, signal] = (await once(child, 'exit').catch(cause => {
    throw new CodedError('failed-precondition', 'Cannot run the workload: "runc" cannot be executed', {cause})
  })) as [number | null, NodeJS.Signals | null]
  const grace = new AbortController()
  await Promise.race([
    outputs,
    setTimeout(OUTPUT_GRACE_MS, undefined, {signal: grace.signal}).catch(() => {}),
  ])
  grace.abort()
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

/** Copies at the pace of `target`. */
async function pass(
  source: Readable,
  target: Writable | undefined,
  see: (bytes: Uint8Array) => void,
): Promise<void> {
  try {
    for await (const chunk of source as AsyncIterable<Uint8Array>) {
      see(chunk)
      if (target) await write(target, chunk)
    }
  } catch {
    // The stream was destroyed when its grace was over.
  }
}

/** A target that closes early (a pipe to `head`) does not stop the workload, nor the watching of what it prints. */
async function write(target: Writable, chunk: Uint8Array): Promise<void> {
  if (!target.writable || target.write(chunk)) return
  const settled = new AbortController()
  const events = ['drain', 'close'].map(event => once(target, event, {signal: settled.signal}))
  await Promise.race(events).catch(() => {})
  settled.abort()
}

/** The last bytes of a stream. */
class OutputTail {
  #bytes: Uint8Array = new Uint8Array()

  add(bytes: Uint8Array): void {
    this.#bytes = Buffer.concat([this.#bytes, bytes]).subarray(-TAIL_SIZE)
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
