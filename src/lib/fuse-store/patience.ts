// Requests that are answered later: each once, at the latest after a deadline, because a request without an answer leaves
// its caller in a sleep that not even SIGKILL ends.

import {constants} from 'node:os'
import {CodedError} from '../errors/coded-error.ts'
import type {FuseRequest} from '../fuse/protocol.ts'
import {EIO} from '../fuse/reply.ts'
import type {RequestHost} from '../fuse/request-handler.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {StorePath} from './store-tree.ts'

const {EINTR} = constants.errno

/** Sends a reply that has been found. */
type Reply = () => void

export interface Patience {
  /** Replies with what `work` resolves to; what it throws is EIO. When it takes too long, it is aborted. */
  answer(request: FuseRequest, path: StorePath, work: (call: CallOptions) => Promise<Reply>): void
  /** Answers a request whose caller is being killed, and aborts the work for it. */
  abandon(unique: bigint): void
}

export interface PatienceOptions {
  readonly deadlineMs: number
  readonly onFailure: (path: StorePath, error: unknown) => void
}

export function createPatience(host: RequestHost, {deadlineMs, onFailure}: PatienceOptions): Patience {
  const pending = new Map<bigint, (errno: number, reason: CodedError) => void>()

  function answer(request: FuseRequest, path: StorePath, work: (call: CallOptions) => Promise<Reply>): void {
    const abort = new AbortController()
    const giveUp = (errno: number, reason: CodedError): void => {
      if (!pending.delete(request.unique)) return
      clearTimeout(timer)
      host.replyError(request, errno)
      abort.abort(reason)
    }
    const tooLate = () => {
      const reason = new CodedError('unavailable', `No answer within ${deadlineMs} ms`)
      onFailure(path, reason)
      giveUp(EIO, reason)
    }
    const timer = setTimeout(tooLate, deadlineMs)
    pending.set(request.unique, giveUp)
    const run = async (): Promise<void> => {
      try {
        const reply = await work({signal: abort.signal})
        if (pending.delete(request.unique)) reply()
      } catch (error) {
        if (abort.signal.aborted) return
        onFailure(path, error)
        pending.delete(request.unique)
        host.replyError(request, EIO)
      } finally {
        clearTimeout(timer)
      }
    }
    void run()
  }

  return {
    answer,
    abandon: unique => pending.get(unique)?.(EINTR, new CodedError('cancelled', 'The caller was killed')),
  }
}
