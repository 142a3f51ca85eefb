// The entry point of a session's worker threads: a blocking loop that reads a request from /dev/fuse and answers it.
// libuv's thread pool would be several times slower, and its threads would be missed elsewhere.

import {readSync} from 'node:fs'
import {parentPort, receiveMessageOnPort, workerData} from 'node:worker_threads'
import {describeError} from '../errors/coded-error.ts'
import {type FuseRequest, OPCODE, parseRequest, REQUEST_BUFFER_SIZE} from '../fuse/protocol.ts'
import {createReplier, EIO} from '../fuse/reply.ts'
import type {RequestHost} from '../fuse/request-handler.ts'
import {type FromWorker, STATE, type ToWorker, type WorkerData} from '../fuse/worker-messages.ts'
import {makeInterruptible} from '../native/system-calls.ts'
import {createHandler} from './create-handler.ts'

const port = parentPort!
const {session, kind, control} = workerData as WorkerData
const state = new Int32Array(control)
const replier = createReplier(session)

const send = (message: FromWorker): void => port.postMessage(message)

/** Leaves a request to the main thread. */
const forward = (request: FuseRequest): void => send({request: Uint8Array.from(request.bytes)})

const host: RequestHost = {
  ...replier,
  replyData: (request, device, offset, size) => {
    if (!replier.replyPresent(request, device, offset, size)) forward(request)
  },
  replyUnknown: request => {
    if (Atomics.load(state, STATE.settled) === 1) replier.replyNothing(request)
    else forward(request)
  },
  defer: forward,
}
const handler = createHandler(kind, host)

try {
  Atomics.store(state, STATE.thread, makeInterruptible())
  send({ready: true})
  serve()
} finally {
  Atomics.store(state, STATE.thread, 0)
  Atomics.store(state, STATE.ended, 1)
}

function serve(): void {
  const buffer = Buffer.allocUnsafeSlow(REQUEST_BUFFER_SIZE)
  let seen = 0
  while (Atomics.load(state, STATE.stop) === 0) {
    const size = readRequest(buffer)
    if (size === 'gone') return
    // After the read, which may have taken long: whatever was added before the request was made is known.
    const posted = Atomics.load(state, STATE.posted)
    if (posted !== seen) receiveAll()
    seen = posted
    const request = size === 'again' ? undefined : parseRequest(buffer.subarray(0, size))
    if (request) answer(request)
  }
}

/** The size of the next request; blocks until there is one. */
function readRequest(buffer: Buffer): number | 'again' | 'gone' {
  try {
    return readSync(session, buffer, 0, buffer.length, null)
  } catch (error) {
    switch ((error as NodeJS.ErrnoException).code) {
      // Interrupted by the main thread, or the request was taken back in the meantime.
      case 'EINTR':
      case 'EAGAIN':
      case 'ENOENT':
        return 'again'
      // Unmounted, or aborted.
      case 'ENODEV':
      case 'ENOTCONN':
      case 'ECONNABORTED':
        return 'gone'
      default:
        throw error
    }
  }
}

function answer(request: FuseRequest): void {
  try {
    // Only the main thread has requests that last.
    if (request.opcode === OPCODE.interrupt) forward(request)
    else handler.handle(request)
  } catch (error) {
    replier.replyError(request, EIO)
    send({problem: describeError(error)})
  }
}

function receiveAll(): void {
  for (let next = receiveMessageOnPort(port); next; next = receiveMessageOnPort(port)) {
    const message = next.message as ToWorker
    if ('put' in message) {
      handler.put(message.put)
    } else {
      handler.delete(message.delete)
      send({deleted: message.serial})
    }
  }
}
