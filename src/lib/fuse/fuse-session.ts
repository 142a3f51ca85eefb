// One FUSE session: a connection to the kernel, worker threads that answer from a table of lazy devices, and the main
// thread, which answers what needs the network, what is not known yet, and what readers give up on.

import {closeSync, openSync, write, writeSync} from 'node:fs'
import {promisify} from 'node:util'
import pLimit from 'p-limit'
import {CodedError, describeError} from '../errors/coded-error.ts'
import type {LazyDevice} from '../layer/ports.ts'
import {type Connection, type ConnectionOptions, openConnection} from './connection.ts'
import {DeferredRequests} from './deferred-requests.ts'
import type {FuseLog} from './fuse-log.ts'
import {encodeResend} from './protocol.ts'
import type {HandlerKind, RequestHandler, RequestHost, SharedDevice, TableEntry} from './request-handler.ts'
import {startWorkers} from './worker-pool.ts'

export interface SessionOptions extends ConnectionOptions {
  readonly kind: HandlerKind
  /** Threads that answer; each costs some 17 MB. */
  readonly workers: number
  /** How long a reader waits for data, in milliseconds, before it gets EIO. */
  readonly deadlineMs: number
  /** The main thread's own handler, which may know more than those of the workers, made for `kind`. */
  readonly createHandler: (host: RequestHost) => RequestHandler
  /** Told when nobody serves any more, and nobody asked for that. */
  readonly onGone: () => void
}

export interface Session<Entry extends TableEntry> {
  readonly connection: Connection
  /** Serves `device`; `extra` is what this kind of file system needs besides. Does nothing for a name that is there. */
  add(device: LazyDevice, extra: Omit<Entry, 'device'>): SharedDevice
  /** Ends the serving of a device; who still waits for its data gets EIO. */
  delete(name: string): Promise<void>
  device(name: string): SharedDevice | undefined
  /**
   * Sends a notification; resolves when the kernel has acted on it, which may have to wait for READs to be answered. Does
   * nothing once the session is being closed.
   */
  notify(message: Buffer): Promise<void>
  /** After a restart, once all devices have been added: asks the kernel for the requests that the last server lost. */
  resume(): void
  /** `leave` keeps the mount for the next daemon, where a keeper holds the descriptor; otherwise it is unmounted. */
  close(how: 'leave' | 'unmount'): Promise<void>
}

const writeAsync = promisify(write)

/** Opens a session at `mountpoint`: the one that the keeper holds under `name`, else a new one. */
export async function openSession<Entry extends TableEntry>(
  options: SessionOptions,
): Promise<Session<Entry>> {
  const {kind, log, mountpoint} = options
  const connection = await openConnection(options)
  const session = connection.fd
  const shared = new Map<string, SharedDevice>()
  const oneAtATime = pLimit(1)
  let closing = false
  const deferred = new DeferredRequests({
    session,
    createHandler: options.createHandler,
    log,
    deadlineMs: options.deadlineMs,
    waitForEntries: connection.adopted,
  })
  const pool = await startWorkers({
    session,
    kind,
    workers: options.workers,
    settled: !connection.adopted,
    onRequest: bytes => deferred.handle(bytes),
    onProblem: problem => log.warn({mountpoint, error: problem}, 'cannot answer a FUSE request'),
    onReplaced: () => askAgain(connection, log),
    onGone: () => {
      connection.stopHolding()
      options.onGone()
    },
  }).catch(async error => {
    await connection.close(connection.adopted ? 'leave' : 'unmount')
    throw error
  })
  // A process that exits waits for its threads, which wait for the kernel.
  const stopNow = () => pool.stopNow()
  process.once('exit', stopNow)

  const remove = async (name: string): Promise<void> => {
    const device = shared.get(name)
    if (!device) return
    shared.delete(name)
    await Promise.all([pool.delete(name), deferred.delete(name)])
    closeSync(device.fd)
  }

  return {
    connection,
    add: (device, extra) => {
      const known = shared.get(device.name)
      if (known) return known
      const entry = {device: openDevice(device)}
      shared.set(device.name, entry.device)
      pool.put({...extra, ...entry})
      deferred.put({...extra, ...entry}, device)
      return entry.device
    },
    delete: remove,
    device: name => shared.get(name),
    // In the thread pool, because it may block until the main thread has answered a READ; one at a time, to leave the
    // pool's other threads to their work.
    notify: message =>
      oneAtATime(async () => {
        if (!closing) await writeAsync(session, message).catch(ignoreUnknownNode)
      }),
    resume: () => {
      pool.settle()
      deferred.stopWaiting()
      if (connection.adopted) askAgain(connection, log)
    },
    close: async how => {
      closing = true
      // What is being notified may need answers.
      await oneAtATime(async () => {})
      await pool.stop()
      process.removeListener('exit', stopNow)
      const {resend} = connection.negotiated
      await deferred.close(how === 'unmount' ? 'fail' : resend ? 'abandon' : 'finish')
      await connection.close(how)
      for (const device of shared.values()) closeSync(device.fd)
      shared.clear()
    },
  }
}

function openDevice({name, size, path, present, readLog}: LazyDevice): SharedDevice {
  if (!/^[0-9a-f-]{1,255}$/.test(name) || size % 4096 !== 0) {
    throw new CodedError('invalid-argument', `Cannot serve device ${JSON.stringify(name)} of ${size} bytes`)
  }
  try {
    return {name, size, fd: openSync(path, 'r'), present, ...(readLog ? {readLog} : {})}
  } catch (cause) {
    throw new CodedError('internal', `Cannot open the data of device "${name}": ${describeError(cause)}`, {
      cause,
    })
  }
}

/** Has the kernel send what was read and not answered, by an earlier process or by a thread that died. */
function askAgain({fd, negotiated}: Connection, log: FuseLog): void {
  if (!negotiated.resend) {
    log.warn(
      {},
      'who was reading when the last server was killed waits for ever: Linux before 6.9 cannot ask again',
    )
    return
  }
  try {
    writeSync(fd, encodeResend())
  } catch (error) {
    log.warn({error: describeError(error)}, 'cannot ask the kernel for what was left unanswered')
  }
}

/** The kernel says ENOENT when it does not know the inode or the name, so that there is nothing to forget. */
function ignoreUnknownNode(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}
