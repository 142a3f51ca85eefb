// Outputs that are no plain files: what is written to them is gone at once.

import {constants, createWriteStream, fstatSync, openSync, type Stats} from 'node:fs'
import {connect, Socket} from 'node:net'
import type {Writable} from 'node:stream'
import {finished} from 'node:stream/promises'
import {setTimeout as delay} from 'node:timers/promises'

/** An open output. Disposing it before `commit` leaves a plain file as it was. */
export interface Output extends AsyncDisposable {
  /** The bytes may be reused when it resolves. */
  write(bytes: Uint8Array): Promise<void>
  /** Resolves when all has arrived; a plain file has its name then. */
  commit(): Promise<void>
}

export type StreamPlace =
  /** A device, a named pipe or a socket. */
  | {readonly kind: 'stream'; readonly path: string; readonly found: Stats}
  /** What this process has open. */
  | {readonly kind: 'descriptor'; readonly descriptor: number}

/** How often a pipe is asked for a reader. */
const READER_POLL_MS = 50

export async function openStreamOutput(
  place: StreamPlace,
  options: {readonly signal?: AbortSignal | undefined},
): Promise<Output> {
  const {stream, isOwn} = await openStream(place, options)
  let failure: NodeJS.ErrnoException | undefined
  const noteFailure = (error: Error) => {
    failure ??= error
  }
  stream.on('error', noteFailure)
  return {
    write: bytes =>
      new Promise((written, fail) => {
        // A reader that has seen enough (`| head`) is no failure.
        if (failure?.code === 'EPIPE') return written()
        stream.write(bytes, error => (error && !isBrokenPipe(error) ? fail(error) : written()))
      }),
    commit: async () => {
      if (isOwn) await finished(stream.end(), {readable: false}).catch(noteFailure)
      if (failure && !isBrokenPipe(failure)) throw failure
    },
    async [Symbol.asyncDispose]() {
      if (isOwn) stream.destroy()
      else stream.off('error', noteFailure)
    },
  }
}

/** `isOwn` for streams that nobody else in this process writes to. */
async function openStream(
  place: StreamPlace,
  {signal}: {readonly signal?: AbortSignal | undefined},
): Promise<{readonly stream: Writable; readonly isOwn: boolean}> {
  if (place.kind === 'descriptor') return openDescriptor(place.descriptor)
  const {path, found} = place
  if (found.isSocket()) return {stream: connect(path), isOwn: true}
  if (!found.isFIFO()) return {stream: createWriteStream(path, {flags: 'r+'}), isOwn: true}
  return {stream: await openPipe(path, signal), isOwn: true}
}

/** Node's own streams hold the first ones; two on one descriptor would be in each other's way. */
function openDescriptor(descriptor: number): {readonly stream: Writable; readonly isOwn: boolean} {
  if (descriptor === 1) return {stream: process.stdout, isOwn: false}
  if (descriptor === 2) return {stream: process.stderr, isOwn: false}
  const found = fstatSync(descriptor)
  const stream =
    found.isFIFO() || found.isSocket()
      ? new Socket({fd: descriptor, readable: false, writable: true})
      : createWriteStream('', {fd: descriptor, autoClose: false})
  return {stream, isOwn: true}
}

/** Waits for a reader, and can be given up: open(2) itself could not, and would keep the process from ending. */
async function openPipe(path: string, signal: AbortSignal | undefined): Promise<Socket> {
  for (;;) {
    signal?.throwIfAborted()
    try {
      const fd = openSync(path, constants.O_WRONLY | constants.O_NONBLOCK)
      return new Socket({fd, readable: false, writable: true})
    } catch (error) {
      // Nobody reads it yet.
      if ((error as NodeJS.ErrnoException).code !== 'ENXIO') throw error
    }
    await delay(READER_POLL_MS, undefined, {signal})
  }
}

function isBrokenPipe(error: NodeJS.ErrnoException): boolean {
  return error.code === 'EPIPE' || error.code === 'ERR_STREAM_DESTROYED'
}
