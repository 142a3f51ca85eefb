// Replies to the kernel, and the part of a host that workers and the main thread share.

import {readSync, writeSync, writevSync} from 'node:fs'
import {constants} from 'node:os'
import {CodedError} from '../errors/coded-error.ts'
import {wrapChunkBitmap} from '../io/chunk-bitmap.ts'
import {openReadLog} from '../io/read-log.ts'
import {type FuseRequest, MAX_READ, OPCODE, OUT_HEADER_SIZE, putReplyHeader} from './protocol.ts'
import type {SharedDevice} from './request-handler.ts'

/** Presence is known by blocks of this many bytes. */
const BLOCK_SIZE = 4096

/** Writes replies; one per thread, because it has a buffer. */
export interface Replier {
  readonly body: Buffer
  reply(request: FuseRequest, size: number): void
  replyBytes(request: FuseRequest, bytes: Uint8Array): void
  replyError(request: FuseRequest, errno: number): void
  /** To a request about something that does not exist: the kernel looks a stale inode's name up again. */
  replyNothing(request: FuseRequest): void
  /**
   * Replies with a range of a device when its sparse file has all of it; returns whether it did. Throws `corrupt` when the
   * file is shorter than what it is said to have.
   */
  replyPresent(request: FuseRequest, device: SharedDevice, offset: number, size: number): boolean
}

export function createReplier(session: number): Replier {
  const out = Buffer.allocUnsafeSlow(OUT_HEADER_SIZE + MAX_READ)
  const body = out.subarray(OUT_HEADER_SIZE)

  const reply = (request: FuseRequest, size: number): void => {
    putReplyHeader(out, request.unique, 0, size)
    orError(request, () => writeSync(session, out, 0, OUT_HEADER_SIZE + size))
  }

  const replyError = (request: FuseRequest, errno: number): void => {
    const header = Buffer.allocUnsafe(OUT_HEADER_SIZE)
    putReplyHeader(header, request.unique, errno, 0)
    tolerateGone(() => writeSync(session, header))
  }

  /** A reply that the kernel does not take must not leave the request without one. */
  const orError = (request: FuseRequest, write: () => void): void => {
    try {
      tolerateGone(write)
    } catch (error) {
      replyError(request, EIO)
      throw error
    }
  }

  return {
    body,
    reply,
    replyBytes: (request, bytes) => {
      const header = Buffer.allocUnsafe(OUT_HEADER_SIZE)
      putReplyHeader(header, request.unique, 0, bytes.length)
      orError(request, () => writevSync(session, [header, bytes]))
    },
    replyError,
    replyNothing: request => replyError(request, request.opcode === OPCODE.lookup ? ENOENT : ESTALE),
    replyPresent: (request, device, offset, size) => {
      const length = lengthWithin(device, offset, size)
      if (length > 0 && !isPresent(device, offset, length)) return false
      for (let done = 0; done < length; ) {
        const read = readSync(device.fd, body, done, length - done, offset + done)
        if (read === 0) {
          throw new CodedError(
            'corrupt',
            `Cannot read lazy device "${device.name}": its file ends before ${offset + done}`,
          )
        }
        done += read
      }
      reply(request, length)
      if (device.readLog && length > 0) openReadLog(device.readLog).note(...blocksOf(offset, length), true)
      return true
    },
  }
}

/** How many of `size` bytes at `offset` a device has. */
export function lengthWithin(device: {readonly size: number}, offset: number, size: number): number {
  return Math.max(0, Math.min(size, device.size - offset))
}

function isPresent({present, size}: SharedDevice, offset: number, length: number): boolean {
  return wrapChunkBitmap(present, size / BLOCK_SIZE).hasAll(...blocksOf(offset, length))
}

/** The first and the last block of a range that is not empty. */
function blocksOf(offset: number, length: number): [number, number] {
  return [Math.floor(offset / BLOCK_SIZE), Math.floor((offset + length - 1) / BLOCK_SIZE)]
}

const GONE = ['ENOENT', 'ENODEV', 'ENOTCONN', 'ECONNABORTED']

/** Nobody waits for a reply any more when its reader was killed, or the file system is gone. */
function tolerateGone(write: () => void): void {
  try {
    write()
  } catch (error) {
    if (!GONE.includes((error as NodeJS.ErrnoException).code ?? '')) throw error
  }
}

/** The errno that readers get for what went wrong on our side: never a short read, which would be filled with zeros. */
export const {EIO} = constants.errno
const {ENOENT, ESTALE} = constants.errno
