// What workers leave to the main thread: READs of data that must be fetched, and requests about things that their table
// does not have. Each is answered once, at the latest after a deadline: a request without an answer leaves its reader
// in a sleep that not even SIGKILL ends.

import {readFileSync} from 'node:fs'
import {constants} from 'node:os'
import {CodedError, describeError} from '../errors/coded-error.ts'
import type {LazyDevice} from '../layer/ports.ts'
import {createHandler} from './handlers.ts'
import {type FuseRequest, OPCODE, parseInterrupt, parseRequest} from './protocol.ts'
import {createReplier, EIO, lengthWithin} from './reply.ts'
import type {HandlerKind, RequestHost, TableEntry} from './request-handler.ts'
import type {FuseLog} from './session.ts'
import type {StateFiles} from './tree-answers.ts'

const {EINTR} = constants.errno

/**
 * How long a request waits after a restart until what it is about is served again. Not the reader's deadline: restoring
 * many layers may take its time, and an error then is one that the restart was to prevent.
 */
const RESTORE_MS = 300_000

export interface DeferredRequests {
  put(entry: TableEntry, device: LazyDevice): void
  /** Readers that wait for the device's data get EIO. Resolves when its `read` calls have ended. */
  delete(name: string): Promise<void>
  /** A request as a worker got it. */
  handle(bytes: Uint8Array): void
  /** From now on, what is not in the table does not exist. */
  stopWaiting(): void
  /**
   * `fail` answers what is left with EIO; `finish` waits for its data; `abandon` leaves it to the next server. Resolves
   * when `read` calls have ended.
   */
  close(how: 'fail' | 'finish' | 'abandon'): Promise<void>
}

export interface DeferredOptions {
  readonly session: number
  readonly kind: HandlerKind
  readonly deadlineMs: number
  /** After a restart: requests about unknown things wait until these are added. */
  readonly waitForEntries: boolean
  readonly stateFiles?: StateFiles | undefined
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

export function createDeferredRequests(options: DeferredOptions): DeferredRequests {
  const {log, deadlineMs} = options
  const devices = new Map<string, LazyDevice>()
  const fetches = new Map<bigint, Fetch>()
  const waiting = new Map<bigint, {readonly request: FuseRequest; readonly timer: NodeJS.Timeout}>()
  const replier = createReplier(options.session)
  let waitForEntries = options.waitForEntries

  const host: RequestHost = {
    ...replier,
    replyData: (request, shared, offset, size) => {
      // It may have come since the worker looked.
      if (replier.replyPresent(request, shared, offset, size)) return
      const device = devices.get(shared.name)
      if (!device) return replier.replyNothing(request)
      startFetch(request, device, offset, lengthWithin(shared, offset, size))
    },
    replyUnknown: request => {
      if (waitForEntries) wait(request)
      else replier.replyNothing(request)
    },
    defer: request => host.replyUnknown(request),
  }
  const handler = createHandler(options.kind, host, options.stateFiles)

  const startFetch = (request: FuseRequest, device: LazyDevice, offset: number, length: number): void => {
    const controller = new AbortController()
    let answered = false
    const answer = (reply: () => void): void => {
      if (answered) return
      answered = true
      clearTimeout(timer)
      fetches.delete(request.unique)
      reply()
    }
    const fail = (errno: number, reason: string): void =>
      answer(() => {
        replier.replyError(request, errno)
        log.warn({device: device.name, offset, length, error: reason}, 'cannot read lazily')
        // A reader that waited in vain tells the device more than one that went away.
        const code = errno === EIO ? 'unavailable' : 'cancelled'
        controller.abort(new CodedError(code, `Cannot read "${device.name}": ${reason}`))
      })
    const timer = setTimeout(() => fail(EIO, `no answer within ${deadlineMs} ms`), deadlineMs)
    const run = async (): Promise<void> => {
      try {
        const bytes = await device.read(offset, length, {signal: controller.signal})
        if (bytes.length !== length) throw wrongLength(device, length, bytes)
        answer(() => replier.replyBytes(request, bytes))
      } catch (error) {
        fail(EIO, describeError(error))
      }
    }
    const abandon = (): void =>
      answer(() =>
        controller.abort(new CodedError('cancelled', `Cannot read "${device.name}": the server ends`)),
      )
    fetches.set(request.unique, {
      request,
      device: device.name,
      ended: Promise.resolve().then(run),
      fail,
      abandon,
    })
  }

  const wait = (request: FuseRequest): void => {
    const giveUp = (): void => {
      waiting.delete(request.unique)
      replier.replyError(request, EIO)
      log.warn({node: request.nodeId, opcode: request.opcode}, 'a request waited in vain for its layer')
    }
    waiting.set(request.unique, {request, timer: setTimeout(giveUp, RESTORE_MS)})
  }

  const retryWaiting = (): void => {
    const retried = [...waiting.values()]
    waiting.clear()
    for (const {request, timer} of retried) {
      clearTimeout(timer)
      answer(request)
    }
  }

  const answer = (request: FuseRequest): void => {
    try {
      handler.handle(request)
    } catch (error) {
      replier.replyError(request, EIO)
      log.warn({opcode: request.opcode, error: describeError(error)}, 'cannot answer a FUSE request')
    }
  }

  const endFetches = async (chosen: readonly Fetch[], end: (fetch: Fetch) => void): Promise<void> => {
    for (const fetch of chosen) end(fetch)
    await Promise.all(chosen.map(fetch => fetch.ended))
  }

  return {
    put: (entry, device) => {
      devices.set(device.name, device)
      handler.put(entry)
      retryWaiting()
    },
    delete: async name => {
      devices.delete(name)
      handler.delete(name)
      const chosen = [...fetches.values()].filter(fetch => fetch.device === name)
      await endFetches(chosen, fetch => fetch.fail(EIO, 'the layer was removed'))
    },
    handle: bytes => {
      const request = parseRequest(Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength))
      if (!request) return
      if (request.opcode === OPCODE.interrupt) interrupt(fetches.get(parseInterrupt(request)))
      else answer(request)
    },
    stopWaiting: () => {
      waitForEntries = false
      retryWaiting()
    },
    close: async how => {
      for (const {request, timer} of waiting.values()) {
        clearTimeout(timer)
        if (how !== 'abandon') replier.replyError(request, EIO)
      }
      waiting.clear()
      await endFetches([...fetches.values()], fetch => {
        if (how === 'fail') fetch.fail(EIO, 'the server ends')
        else if (how === 'abandon') fetch.abandon()
      })
    },
  }
}

/**
 * The waiter of a READ got a signal. Only one that kills may end the READ: to EROFS or a program above, a READ that fails
 * with EINTR is an I/O error, and signals like SIGCHLD and SIGALRM are everyday events.
 */
function interrupt(fetch: Fetch | undefined): void {
  if (fetch && isDying(fetch.request.pid)) fetch.fail(EINTR, 'the reader was killed')
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
