// What a file system served over FUSE is made of: a handler that answers requests from a table of entries, and the
// thread that it runs in. Handlers run in every worker thread and in the main thread alike; they never wait.

import type {ReadLogMemory} from '../io/read-log.ts'
import type {FuseRequest} from './protocol.ts'

/**
 * Which handler a session's threads run. `bare-tree` serves trees without any extended attribute; `deferring` leaves
 * everything to the main thread.
 */
export type HandlerKind = 'data' | 'tree' | 'bare-tree' | 'deferring'

/** A lazy device as every thread sees it: plain numbers and shared memory, so that it can be sent to workers. */
export interface SharedDevice {
  readonly name: string
  /** Bytes. */
  readonly size: number
  /** The sparse file, open in this process: threads share descriptors. */
  readonly fd: number
  /** Which blocks of 4 KiB the sparse file has, as src/lib/io/chunk-bitmap.ts lays them out. */
  readonly present: SharedArrayBuffer
  /** Where READs that are answered from the sparse file are noted. */
  readonly readLog?: ReadLogMemory
}

/** An entry of a session's table: a device, and whatever else its handler needs; sent to workers by structured clone. */
export interface TableEntry {
  readonly device: SharedDevice
}

/** What a handler's answers go through. One of these must be called exactly once for each request that wants a reply. */
export interface RequestHost {
  /** Where a reply's body can be built, for `reply`; 1 MiB. */
  readonly body: Buffer
  /** Replies with the first `size` bytes of `body`. */
  reply(request: FuseRequest, size: number): void
  /** Replies with an error: a positive errno of node:os' constants. */
  replyError(request: FuseRequest, errno: number): void
  /**
   * Replies with bytes of a device, cut off at its end: at once when they are in its sparse file, else when they have
   * been fetched, by the main thread.
   */
  replyData(request: FuseRequest, device: SharedDevice, offset: number, size: number): void
  /**
   * Answers a request about a name or an inode that the table does not have: ENOENT to a LOOKUP, ESTALE to others. After
   * a restart, however, it waits until its entry comes.
   */
  replyUnknown(request: FuseRequest): void
  /** Leaves a request to the main thread's handler; there, the same as `replyUnknown`. */
  defer(request: FuseRequest): void
}

/** Answers the requests of one file system. */
export interface RequestHandler<Entry extends TableEntry = TableEntry> {
  put(entry: Entry): void
  delete(name: string): void
  /** Answers by exactly one call of the host, except what has no reply. What it throws is answered with EIO. */
  handle(request: FuseRequest): void
  /** Of a request that has not been answered yet: whoever waits for it is being killed. */
  abandon?(unique: bigint): void
}
