// A session's worker threads, seen from the main thread: started, told about entries, interrupted and ended.

import {existsSync} from 'node:fs'
import {join} from 'node:path'
import {setTimeout as delay} from 'node:timers/promises'
import {Worker} from 'node:worker_threads'
import {CodedError, describeError} from '../errors/coded-error.ts'
import {findAbove} from '../io/find-above.ts'
import {interruptThread} from '../native/system-calls.ts'
import type {HandlerKind, TableEntry} from './request-handler.ts'
import {type FromWorker, STATE, STATE_SIZE, type ToWorker, type WorkerData} from './worker-messages.ts'

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
  const pool = new WorkerPool(options)
  await pool.start()
  return pool
}

export class WorkerPool {
  readonly #options: PoolOptions
  readonly #entries = new Map<string, TableEntry>()
  readonly #members = new Set<Member>()
  #stopping = false
  /** Once all have been ready; before, one that cannot start fails the start of all. */
  #started = false
  #settled: boolean
  #replacements = 0
  #deletions = 0

  constructor(options: PoolOptions) {
    this.#options = options
    this.#settled = options.settled
  }

  /** To be called once, before anything else. */
  async start(): Promise<void> {
    const starting = Array.from({length: this.#options.workers}, () => this.#startOne())
    const results = await Promise.allSettled(starting)
    this.#started = true
    const failed = results.find(result => result.status === 'rejected')
    if (!failed) return
    await this.stop()
    throw failed.reason
  }

  put(entry: TableEntry): void {
    this.#entries.set(entry.device.name, entry)
    for (const member of this.#members) post(member, {put: entry})
  }

  /** Resolves when no worker uses the entry any more. */
  async delete(name: string): Promise<void> {
    if (!this.#entries.delete(name)) return
    const message = {delete: name, serial: ++this.#deletions}
    await Promise.all([...this.#members].map(member => letGo(member, message)))
  }

  /** From now on, what is not in the table does not exist. */
  settle(): void {
    this.#settled = true
    for (const {state} of this.#members) Atomics.store(state, STATE.settled, 1)
  }

  /** Ends the workers; each answers what it is at, and requests that come later wait in the kernel. */
  async stop(): Promise<void> {
    this.#askToStop()
    while (interruptAll(this.#members)) await delay(INTERRUPT_INTERVAL_MS)
    await Promise.all([...this.#members].map(member => member.exited))
  }

  /** The same without the event loop: for a process that is about to exit, which would wait for threads that block. */
  stopNow(): void {
    this.#askToStop()
    const never = new Int32Array(new SharedArrayBuffer(4))
    for (let times = 0; times < MAX_LAST_INTERRUPTS && interruptAll(this.#members); times++) {
      Atomics.wait(never, 0, 0, INTERRUPT_INTERVAL_MS)
    }
  }

  async #startOne(): Promise<void> {
    const options = this.#options
    const {session, kind} = options
    const control = new SharedArrayBuffer(STATE_SIZE)
    const workerData: WorkerData = {session, kind, control}
    const worker = new Worker(findWorkerFile(), {workerData, execArgv: [], name: `fuse-${kind}`})
    const {promise: exited, resolve: onExit} = Promise.withResolvers<void>()
    const ready = Promise.withResolvers<void>()
    const member = {worker, state: new Int32Array(control), exited, unacknowledged: new Map()}
    if (this.#settled) Atomics.store(member.state, STATE.settled, 1)
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
      this.#members.delete(member)
      for (const acknowledge of member.unacknowledged.values()) acknowledge()
      onExit()
      // One that serves ends by itself when the file system is gone.
      const cause =
        failure ?? (serving ? undefined : new CodedError('internal', 'it ended before it was ready'))
      ready.reject(new CodedError('internal', 'Cannot start a worker thread for FUSE', {cause}))
      if (this.#stopping || (!serving && !this.#started)) return
      if (cause !== undefined && this.#replacements++ < MAX_REPLACEMENTS) this.#replace(cause)
      else if (this.#members.size === 0) options.onGone()
    })
    this.#members.add(member)
    for (const entry of this.#entries.values()) post(member, {put: entry})
    await ready.promise
  }

  #replace(failure: unknown): void {
    this.#options.onProblem(`a worker thread died: ${describeError(failure)}`)
    // One that does not come to serve has told by its end.
    this.#startOne().then(
      () => this.#options.onReplaced(),
      () => {},
    )
  }

  #askToStop(): void {
    this.#stopping = true
    for (const {state} of this.#members) Atomics.store(state, STATE.stop, 1)
  }
}

function post(member: Member, message: ToWorker): void {
  member.worker.postMessage(message)
  Atomics.add(member.state, STATE.posted, 1)
}

/** Makes a worker forget an entry, also one that is blocked because no request comes. */
async function letGo(member: Member, message: ToWorker & {readonly serial: number}): Promise<void> {
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

/** The worker's program: in the folder beside in the sources and in the library, above this chunk in a bundle. */
function findWorkerFile(): string {
  for (const name of ['fuse-worker.ts', 'fuse-worker.js']) {
    const path = join(import.meta.dirname, '../fuse-worker', name)
    if (existsSync(path)) return path
  }
  const path = findAbove(import.meta.dirname, 'fuse-worker.js')
  if (path !== undefined) return path
  throw new CodedError('internal', 'Cannot serve a FUSE file system: the worker program is missing')
}
