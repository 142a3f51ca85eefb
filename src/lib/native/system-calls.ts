// System calls that Node does not offer, with its error style: a CodedError that names the call, the path and the errno.

import {constants as osConstants} from 'node:os'
import {CodedError, type ErrorCode} from '../errors/coded-error.ts'
import {encodeByteText} from '../io/byte-text.ts'
import {requireAddon} from './addon.ts'

/** Flags of mount(2) (linux/mount.h). */
export const MS_RDONLY = 1
export const MS_NOSUID = 2
export const MS_NODEV = 4
export const MS_NOEXEC = 8
export const MS_BIND = 4096
/** Flags of umount2(2): the mount goes with its last user; a symlink at the target is not followed. */
export const MNT_DETACH = 2
export const UMOUNT_NOFOLLOW = 8

export interface MountArguments {
  readonly source: string
  readonly target: string
  readonly type: string
  readonly flags: number
  /** Options of the file system, comma-separated. */
  readonly data: string
}

/** mount(2); unlike mount(8) it makes no loop device. */
export function mount(request: MountArguments): void {
  const {source, target, type, flags, data} = request
  const error = requireAddon().mount(text(source), text(target), text(type), flags, text(data))
  check(error, `mount ${type} at ${JSON.stringify(target)}`)
}

/** umount2(2): without `MNT_DETACH`, `failed-precondition` while something in it is in use. */
export function unmount(target: string, flags = 0): void {
  check(requireAddon().umount(text(target), flags), `unmount ${JSON.stringify(target)}`)
}

/** mknod(2): `mode` has the file type's bits. */
export function makeNode(path: string, mode: number, major: number, minor: number): void {
  check(requireAddon().mknod(text(path), mode, major, minor), `make device ${JSON.stringify(path)}`)
}

/** lsetxattr(2); symlinks are not followed. */
export function setXattr(path: string, name: string, value: Uint8Array): void {
  const error = requireAddon().lsetxattr(text(path), text(name), value)
  check(error, `set extended attribute ${JSON.stringify(name)} of ${JSON.stringify(path)}`)
}

/** Sets access and modification time with all their nanoseconds; symlinks are not followed. */
export function setTimes(path: string, seconds: number, nanoseconds: number): void {
  check(requireAddon().lutimes(text(path), seconds, nanoseconds), `set the time of ${JSON.stringify(path)}`)
}

/** Gives back the clean pages that the page cache has of the open file `fd` (posix_fadvise(2), DONTNEED). */
export function dropCache(fd: number): void {
  check(requireAddon().dropCache(fd), 'drop the cache of a file')
}

/**
 * Sends one datagram to a unix socket, as sd_notify(3) does; `@name` is in the abstract namespace. Waits up to 5 seconds
 * where the receiver's queue is full. Throws `not-found` or `unavailable` when nobody is there.
 */
export function sendDatagram(path: string, bytes: Uint8Array): void {
  check(requireAddon().sendDatagram(text(path), bytes), `send a datagram to ${JSON.stringify(path)}`)
}

/**
 * Lets `interruptThread` end blocking calls of the calling thread: they throw EINTR. Returns the thread's id (not the one
 * of node:worker_threads).
 */
export function makeInterruptible(): number {
  return positive(requireAddon().makeInterruptible(), 'make a thread interruptible')
}

/**
 * Ends the blocking call that a thread of this process is in. A call that begins only afterwards is not interrupted:
 * repeat until the thread has noticed.
 */
export function interruptThread(thread: number): void {
  check(requireAddon().interruptThread(thread), `interrupt thread ${thread}`)
}

/**
 * Names the open file `fd` to the FUSE session `session` (FUSE_DEV_IOC_BACKING_OPEN), for FOPEN_PASSTHROUGH; returns the
 * backing id, to be closed with `closeBacking`. The file may be closed at once.
 */
export function openBacking(session: number, fd: number): number {
  return positive(requireAddon().openBacking(session, fd), 'open a backing file')
}

/** Ends what `openBacking` began; files that are open stay so. */
export function closeBacking(session: number, id: number): void {
  check(requireAddon().closeBacking(session, id), `close backing file ${id}`)
}

/** The process at the other end of the unix socket `fd`, when it connected; 0 when it is in another pid namespace. */
export function peerProcess(fd: number): number {
  return positive(requireAddon().peerProcess(fd), 'ask who has connected')
}

/**
 * Sends one message to the SOCK_SEQPACKET socket at `path`, with a descriptor unless `fd` is undefined, and returns the
 * reply; a descriptor in it is the caller's to close. Takes up to 10 seconds, in the thread pool; `fd` must stay open
 * until then. Throws `not-found` or `unavailable` when nobody listens, `internal` when nobody answers.
 */
export async function exchange(
  path: string,
  message: Uint8Array,
  fd?: number,
): Promise<{readonly bytes: Buffer; readonly fd: number | undefined}> {
  const reply = await requireAddon().exchange(text(path), message, fd ?? -1)
  if (typeof reply !== 'number') return {bytes: reply.bytes, fd: reply.fd < 0 ? undefined : reply.fd}
  throw failed(reply, `exchange messages with ${JSON.stringify(path)}`)
}

/** mallopt(3): from now on, blocks of 128 KiB and more go back to the system when they are freed. */
export function mapLargeBlocks(): void {
  requireAddon().mapLargeBlocks()
}

/** malloc_trim(3): gives memory that has been freed back to the system, and what can be read again from programs' files. */
export function trimMemory(): void {
  requireAddon().trimMemory()
}

function text(value: string): Uint8Array {
  if (value.includes('\0'))
    throw new CodedError('invalid-argument', 'Cannot use a path with a NUL in a system call')
  return Buffer.concat([encodeByteText(value), new Uint8Array(1)])
}

function check(errno: number, what: string): void {
  if (errno !== 0) throw failed(errno, what)
}

function positive(result: number, what: string): number {
  if (result < 0) throw failed(-result, what)
  return result
}

function failed(errno: number, what: string): CodedError {
  const name =
    Object.entries(osConstants.errno).find(([, number]) => number === errno)?.[0] ?? `errno ${errno}`
  return new CodedError(codeOfErrno(name), `Cannot ${what}: ${name}`)
}

function codeOfErrno(name: string): ErrorCode {
  switch (name) {
    case 'ENOENT':
    case 'ENOTDIR':
      return 'not-found'
    case 'EEXIST':
      return 'already-exists'
    case 'EPERM':
    case 'EACCES':
      return 'permission-denied'
    case 'EOPNOTSUPP':
    case 'ENODEV':
    case 'ENOSYS':
    case 'ENOTBLK':
      return 'unsupported'
    case 'EBUSY':
      return 'failed-precondition'
    case 'ENOSPC':
    case 'EDQUOT':
    case 'ENOMEM':
    case 'EAGAIN':
    case 'ECONNREFUSED':
    case 'ECONNRESET':
    case 'EPIPE':
      return 'unavailable'
    default:
      return 'internal'
  }
}
