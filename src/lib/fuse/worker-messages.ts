// What the main thread and its workers tell each other.

import type {HandlerKind, TableEntry} from './request-handler.ts'

export interface WorkerData {
  /** The descriptor of /dev/fuse. */
  readonly session: number
  readonly kind: HandlerKind
  /** An Int32Array, as `STATE` describes it. */
  readonly control: SharedArrayBuffer
}

/** What a worker that blocks in a read shares with the main thread: indexes of 32-bit numbers. */
export const STATE = {
  /** Set by the main thread: end after the request at hand. */
  stop: 0,
  /** How many messages the main thread has posted: a worker that has seen fewer looks for them before it reads on. */
  posted: 1,
  /** The kernel's id of the worker's thread while it serves, else 0. */
  thread: 2,
  /** Set by the worker: it reads no more. */
  ended: 3,
  /** Set by the main thread: what is not in the table does not exist. */
  settled: 4,
} as const

export const STATE_SIZE = 20

/** A deletion has a number of its own: the same name may be deleted again before it has been acknowledged. */
export type ToWorker = {readonly put: TableEntry} | {readonly delete: string; readonly serial: number}

export type FromWorker =
  | {readonly ready: true}
  /** A request that the main thread must answer. */
  | {readonly request: Uint8Array}
  /** The serial of a deletion: no request that is still being handled uses the entry. */
  | {readonly deleted: number}
  /** Something that was answered with EIO. */
  | {readonly problem: string}
