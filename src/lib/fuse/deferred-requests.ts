// What workers leave to the main thread: READs of data that must be fetched, and requests about things that their table
// does not have. Each is answered once, at the latest after a deadline: a request without an answer leaves its reader
// in a sleep that not even SIGKILL ends.

import {readFileSync} from 'node:fs'
import {constants} from 'node:os'
import {CodedError, describeError} from '../errors/coded-error.ts'
import type {LazyDevice} from '../layer/ports.ts'
import type {FuseLog} from './fuse-log.ts'
import {type FuseRequest, OPCODE, parseInterrupt, parseRequest} from './protocol.ts'
import {createReplier, EIO, lengthWithin, type Replier} from './reply.ts'
import type {RequestHandler, RequestHost, SharedDevice, TableEntry} from './request-handler.ts'

const {EINTR} = constants.errno

/**
 * How long a request waits after a restart until what it is about is served again. Not the reader's deadline: restoring
 * many layers may take its time, and an error then is one that the restart was to prevent.
 */
const RESTORE_MS = 300_000

export interface DeferredOptions {
  readonly session: number
  readonly createHandler: (host: RequestHost) => RequestHandler
  readonly deadlineMs: number
  /** After a restart: requests about unknown things wait until these are added. */
  readonly waitForEntries: boolean
  readonly log: FuseLog
}

/** A READ whose data is being fetched. */
interface Fetch {
  readonly request: FuseRequest
  readonly device: string
  readonly ended: Promise<void>
  /** Replies with an errno, unless something has replied, and aborts the fetch. */
  fail(errno: number, reason: string): void
  abandon(): void
}

export class DeferredRequests {
  readonly #deadlineMs: number
  readonly #log: FuseLog
  readonly #replier: Replier
  readonly #handler: RequestHandler
  readonly #devices = new Map<string, LazyDevice>()
  readonly #fetches = new Map<bigint, Fetch>()
  /** Requests about unknown things. */
  readonly #waiting = new Map<bigint, {readonly request: FuseRequest; readonly timer: NodeJS.Timeout}>()
  #waitForEntries: boolean

  constructor({session, createHandler, deadlineMs, waitForEntries, log}: DeferredOptions) {
    this.#deadlineMs = deadlineMs
    this.#log = log
    this.#waitForEntries = waitForEntries
    const replier = createReplier(session)
    this.#replier = replier
    const replyUnknown = (request: FuseRequest) => this.#replyUnknown(request)
    this.#handler = createHandler({
      ...replier,
      replyData: (request, shared, offset, size) => this.#replyData(request, shared, offset, size),
      replyUnknown,
      defer: replyUnknown,
    })
  }

  put(entry: TableEntry, device: LazyDevice): void {
    this.#devices.set(device.name, device)
    this.#handler.put(entry)
    this.#retryWaiting()
  }

  /** Readers that wait for the device's data get EIO. Resolves when its `read` calls have ended. */
  async delete(name: string): Promise<void> {
    this.#devices.delete(name)
    this.#handler.delete(name)
    const chosen = [...this.#fetches.values()].filter(fetch => fetch.device === name)
    await endFetches(chosen, fetch => fetch.fail(EIO, 'the layer was removed'))
  }

  /** A request as a worker got it. */
  handle(bytes: Uint8Array): void {
    const request = parseRequest(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
    if (!request) return
    if (request.opcode === OPCODE.interrupt) this.#interrupt(request)
    else this.#answer(request)
  }

  /** From now on, what is not in the table does not exist. */
  stopWaiting(): void {
    this.#waitForEntries = false
    this.#retryWaiting()
  }

  /**
   * `fail` answers what is left with EIO; `finish` waits for its data; `abandon` leaves it to the next server. Resolves
   * when `read` calls have ended.
   */
  async close(how: 'fail' | 'finish' | 'abandon'): Promise<void> {
    for (const {request, timer} of this.#waiting.values()) {
      clearTimeout(timer)
      if (how !== 'abandon') this.#replier.replyError(request, EIO)
    }
    this.#waiting.clear()
    await endFetches([...this.#fetches.values()], fetch => {
      if (how === 'fail') fetch.fail(EIO, 'the server ends')
      else if (how === 'abandon') fetch.abandon()
    })
  }

  #answer(request: FuseRequest): void {
    try {
      this.#handler.handle(request)
    } catch (error) {
      this.#replier.replyError(request, EIO)
      this.#log.warn({opcode: request.opcode, error: describeError(error)}, 'cannot answer a FUSE request')
    }
  }

  #interrupt(request: FuseRequest): void {
    const unique = parseInterrupt(request)
    const fetch = this.#fetches.get(unique)
    if (fetch) interruptFetch(fetch)
    else if (isDying(request.pid)) this.#handler.abandon?.(unique)
  }

  #replyData(request: FuseRequest, shared: SharedDevice, offset: number, size: number): void {
    // It may have come since the worker looked.
    if (this.#replier.replyPresent(request, shared, offset, size)) return
    const device = this.#devices.get(shared.name)
    if (device) this.#startFetch(request, device, offset, lengthWithin(shared, offset, size))
    else this.#replier.replyNothing(request)
  }

  #replyUnknown(request: FuseRequest): void {
    if (this.#waitForEntries) this.#wait(request)
    else this.#replier.replyNothing(request)
  }

  #startFetch(request: FuseRequest, device: LazyDevice, offset: number, length: number): void {
    // The kernel has sent the same request again; the answer that is on its way is the answer to both.
    if (this.#fetches.has(request.unique)) return
    const controller = new AbortController()
    let answered = false
    const answer = (reply: () => void): void => {
      if (answered) return
      answered = true
      clearTimeout(timer)
      this.#fetches.delete(request.unique)
      reply()
    }
    const fail = (errno: number, reason: string): void =>
      answer(() => {
        this.#replier.replyError(request, errno)
        this.#log.warn({device: device.name, offset, length, error: reason}, 'cannot read lazily')
        // A reader that waited in vain tells the device more than one that went away.
        const code = errno === EIO ? 'unavailable' : 'cancelled'
        controller.abort(new CodedError(code, `Cannot read "${device.name}": ${reason}`))
      })
    const timer = setTimeout(() => fail(EIO, `no answer within ${this.#deadlineMs} ms`), this.#deadlineMs)
    const run = async (): Promise<void> => {
      try {
        const bytes = await device.read(offset, length, {signal: controller.signal})
        if (bytes.length !== length) throw wrongLength(device, length, bytes)
        answer(() => this.#replier.replyBytes(request, bytes))
      } catch (error) {
        fail(EIO, describeError(error))
      }
    }
    const abandon = (): void =>
      answer(() =>
        controller.abort(new CodedError('cancelled', `Cannot read "${device.name}": the server ends`)),
      )
    this.#fetches.set(request.unique, {
      request,
      device: device.name,
      ended: Promise.resolve().then(run),
      fail,
      abandon,
    })
  }

  #wait(request: FuseRequest): void {
    const giveUp = (): void => {
      this.#waiting.delete(request.unique)
      this.#replier.replyError(request, EIO)
      this.#log.warn({node: request.nodeId, opcode: request.opcode}, 'a request waited in vain for its layer')
    }
    clearTimeout(this.#waiting.get(request.unique)?.timer)
    this.#waiting.set(request.unique, {request, timer: setTimeout(giveUp, RESTORE_MS)})
  }

  #retryWaiting(): void {
    const retried = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const {request, timer} of retried) {
      clearTimeout(timer)
      this.#answer(request)
    }
  }
}

async function endFetches(chosen: readonly Fetch[], end: (fetch: Fetch) => void): Promise<void> {
  for (const fetch of chosen) end(fetch)
  await Promise.all(chosen.map(fetch => fetch.ended))
}

/**
 * The waiter of a READ got a signal. Only one that kills may end the READ: to EROFS or a program above, a READ that fails
 * with EINTR is an I/O error, and signals like SIGCHLD and SIGALRM are everyday events.
 */
function interruptFetch(fetch: Fetch): void {
  if (isDying(fetch.request.pid)) fetch.fail(EINTR, 'the reader was killed')
}

/** Whether SIGKILL is pending for a thread (proc_pid_status(5)). */
function isDying(thread: number): boolean {
  if (thread === 0) return false
  try {
    const status = readFileSync(`/proc/${thread}/status`, 'latin1')
    const pending = [...status.matchAll(/^(?:SigPnd|ShdPnd):\s*([0-9a-f]+)$/gm)]
    return pending.some(([, mask]) => (BigInt(`0x${mask}`) & SIGKILL_BIT) !== 0n)
  } catch {
    // It is gone, or not in our pid namespace.
    return false
  }
}

const SIGKILL_BIT = 1n << BigInt(constants.signals.SIGKILL - 1)

function wrongLength(device: LazyDevice, wanted: number, bytes: Uint8Array): CodedError {
  return new CodedError('internal', `Device "${device.name}" gave ${bytes.length} bytes instead of ${wanted}`)
}
