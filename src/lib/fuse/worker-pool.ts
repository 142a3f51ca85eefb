// A session's worker threads, seen from the main thread: started, told about entries, interrupted and ended.

import {existsSync} from 'node:fs'
import {dirname, join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import {Worker} from 'node:worker_threads'
import {CodedError, describeError} from '../errors/coded-error.ts'
import {interruptThread} from '../native/system-calls.ts'
import type {HandlerKind, TableEntry} from './request-handler.ts'
import {type FromWorker, STATE, STATE_SIZE, type ToWorker, type WorkerData} from './worker-messages.ts'

export interface WorkerPool {
  put(entry: TableEntry): void
  /** Resolves when no worker uses the entry any more. */
  delete(name: string): Promise<void>
  /** From now on, what is not in the table does not exist. */
  settle(): void
  /** Ends the workers; each answers what it is at, and requests that come later wait in the kernel. */
  stop(): Promise<void>
  /** The same without the event loop: for a process that is about to exit, which would wait for threads that block. */
  stopNow(): void
}

export interface PoolOptions {
  /** The descriptor of /dev/fuse. */
  readonly session: number
  readonly kind: HandlerKind
  readonly workers: number
  /** Whether what is not in the table does not exist: not so while the table is being restored. */
  readonly settled: boolean
  onRequest(request: Uint8Array): void
  /** A request was answered with EIO, or a worker died. */
  onProblem(problem: string): void
  /** Another worker serves instead of one that died; the request that this one was at has no answer. */
  onReplaced(): void
  /** No worker is left: the file system has been unmounted or aborted, or too many workers have died. */
  onGone(): void
}

/** A worker that dies is replaced this often: what kills more of them would go on for ever. */
const MAX_REPLACEMENTS = 10
/** An interrupt that comes just before a thread blocks is lost, so it is repeated this often until it has an effect. */
const INTERRUPT_INTERVAL_MS = 2
/** How often a process that exits interrupts its workers: for at most some 2 seconds. */
const MAX_LAST_INTERRUPTS = 1000

interface Member {
  readonly worker: Worker
  readonly state: Int32Array
  readonly exited: Promise<void>
  /** What to call when a deletion has been acknowledged, by its serial. */
  readonly unacknowledged: Map<number, () => void>
}

/** Starts the workers; resolves when all of them read requests. */
export async function startWorkers(options: PoolOptions): Promise<WorkerPool> {
  const entries = new Map<string, TableEntry>()
  const members = new Set<Member>()
  let stopping = false
  let settled = options.settled
  let replacements = 0
  let deletions = 0

  const post = (member: Member, message: ToWorker): void => {
    member.worker.postMessage(message)
    Atomics.add(member.state, STATE.posted, 1)
  }

  const start = async (): Promise<void> => {
    const control = new SharedArrayBuffer(STATE_SIZE)
    const workerData: WorkerData = {session: options.session, kind: options.kind, control}
    const worker = new Worker(findWorkerFile(), {workerData, execArgv: [], name: `fuse-${options.kind}`})
    const {promise: exited, resolve: onExit} = Promise.withResolvers<void>()
    const ready = Promise.withResolvers<void>()
    const member = {worker, state: new Int32Array(control), exited, unacknowledged: new Map()}
    if (settled) Atomics.store(member.state, STATE.settled, 1)
    let serving = false
    let failure: unknown
    worker.on('message', (message: FromWorker) => {
      if ('request' in message) options.onRequest(message.request)
      else if ('deleted' in message) member.unacknowledged.get(message.deleted)?.()
      else if ('problem' in message) options.onProblem(message.problem)
      else ready.resolve()
      serving = true
    })
    worker.on('error', error => {
      failure = error
    })
    worker.on('exit', () => {
      members.delete(member)
      for (const acknowledge of member.unacknowledged.values()) acknowledge()
      onExit()
      const cause = failure ?? new CodedError('internal', 'it ended before it was ready')
      ready.reject(new CodedError('internal', 'Cannot start a worker thread for FUSE', {cause}))
      if (stopping || !serving) return
      if (failure !== undefined && replacements++ < MAX_REPLACEMENTS) replace(failure)
      else if (members.size === 0) options.onGone()
    })
    members.add(member)
    for (const entry of entries.values()) post(member, {put: entry})
    await ready.promise
  }

  const replace = (failure: unknown): void => {
    options.onProblem(`a worker thread died: ${describeError(failure)}`)
    start().then(options.onReplaced, error => options.onProblem(describeError(error)))
  }

  const askToStop = (): void => {
    stopping = true
    for (const {state} of members) Atomics.store(state, STATE.stop, 1)
  }

  const stop = async (): Promise<void> => {
    askToStop()
    while (interruptAll(members)) await delay(INTERRUPT_INTERVAL_MS)
    await Promise.all([...members].map(member => member.exited))
  }

  const started = await Promise.allSettled(Array.from({length: options.workers}, start))
  const failed = started.find(result => result.status === 'rejected')
  if (failed) {
    await stop()
    throw failed.reason
  }

  return {
    put: entry => {
      entries.set(entry.device.name, entry)
      for (const member of members) post(member, {put: entry})
    },
    delete: async name => {
      if (!entries.delete(name)) return
      const message = {delete: name, serial: ++deletions}
      await Promise.all([...members].map(member => letGo(member, message, post)))
    },
    settle: () => {
      settled = true
      for (const {state} of members) Atomics.store(state, STATE.settled, 1)
    },
    stop,
    stopNow: () => {
      askToStop()
      const never = new Int32Array(new SharedArrayBuffer(4))
      for (let times = 0; times < MAX_LAST_INTERRUPTS && interruptAll(members); times++) {
        Atomics.wait(never, 0, 0, INTERRUPT_INTERVAL_MS)
      }
    },
  }
}

/** Makes a worker forget an entry, also one that is blocked because no request comes. */
async function letGo(
  member: Member,
  message: ToWorker & {readonly serial: number},
  post: (member: Member, message: ToWorker) => void,
): Promise<void> {
  let done = false
  const acknowledged = new Promise<void>(resolve => {
    member.unacknowledged.set(message.serial, () => {
      member.unacknowledged.delete(message.serial)
      done = true
      resolve()
    })
  })
  post(member, message)
  while (!done) {
    interrupt(member)
    await Promise.race([acknowledged, delay(INTERRUPT_INTERVAL_MS)])
  }
}

/** Interrupts every worker that still serves; returns whether there was one. */
function interruptAll(members: ReadonlySet<Member>): boolean {
  let any = false
  for (const member of members) {
    if (Atomics.load(member.state, STATE.ended) === 0) {
      any = true
      interrupt(member)
    }
  }
  return any
}

function interrupt({state}: Member): void {
  const thread = Atomics.load(state, STATE.thread)
  if (thread === 0) return
  try {
    interruptThread(thread)
  } catch {
    // It has just ended.
  }
}

/** The worker's program: beside this file in the sources and in the library, above this chunk in a bundle. */
function findWorkerFile(): string {
  for (const name of ['worker.ts', 'worker.js']) {
    const path = join(import.meta.dirname, name)
    if (existsSync(path)) return path
  }
  for (let directory = import.meta.dirname; ; directory = dirname(directory)) {
    const path = join(directory, 'fuse-worker.js')
    if (existsSync(path)) return path
    if (dirname(directory) === directory) {
      throw new CodedError('internal', 'Cannot serve a FUSE file system: the worker program is missing')
    }
  }
}
