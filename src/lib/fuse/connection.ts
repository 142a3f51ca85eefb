// The connection to the kernel: /dev/fuse opened, mounted and agreed upon by ourselves, without libfuse and fusermount;
// or the one that an earlier process left with the keeper.

import {closeSync, openSync, readSync, writeFileSync, writevSync} from 'node:fs'
import {mkdir} from 'node:fs/promises'
import {CodedError, describeError} from '../errors/coded-error.ts'
import {findMount} from '../mount/mount-table.ts'
import {
  MNT_DETACH,
  MS_NODEV,
  MS_NOEXEC,
  MS_NOSUID,
  MS_RDONLY,
  mount,
  UMOUNT_NOFOLLOW,
  unmount,
} from '../native/system-calls.ts'
import type {FuseLog} from './fuse-log.ts'
import type {Keeper} from './keeper.ts'
import {
  type Negotiated,
  negotiate,
  OPCODE,
  OUT_HEADER_SIZE,
  parseRequest,
  putReplyHeader,
  READ_SIZE,
  REQUEST_BUFFER_SIZE,
} from './protocol.ts'

/** How often a keeper that may have been killed is given the descriptor again; this one is lost only if both die. */
const HOLD_INTERVAL_MS = 30_000

/** What mount(8) and df(1) show as the file system's type, and as its source: the reference's, which people look for. */
const TYPE = 'fuse.ctr-remote'
const SOURCE = 'stargz'

export interface ConnectionOptions {
  readonly mountpoint: string
  /** Names the descriptor in the keeper. */
  readonly name: string
  /** Whether to ask for passthrough, which takes one level from those that file systems may stack. */
  readonly passthrough: boolean
  /** Whether some files change. */
  readonly changing: boolean
  /** Whether there are access control lists. */
  readonly accessLists?: boolean | undefined
  /** KiB that the kernel may read ahead of a reader. */
  readonly readAheadKb: number
  /** Whether programs may be run from the mount itself, with set-id bits and devices in force. */
  readonly exec: boolean
  /** Whether the kernel passes on what would change something, for the file system to refuse by itself. */
  readonly askAboutChanges?: boolean
  readonly keeper: Keeper | undefined
  /** Called before a new mount is made, whoever read through the last one having lost it. */
  readonly onNew?: (() => Promise<void>) | undefined
  readonly log: FuseLog
}

export interface Connection {
  readonly fd: number
  readonly negotiated: Negotiated
  /** True when an earlier process made the mount. */
  readonly adopted: boolean
  /** KiB that the kernel reads ahead in files that are opened from now on. */
  readAhead(kb: number): void
  /** To be called when the file system is gone. */
  stopHolding(): void
  close(how: 'leave' | 'unmount'): Promise<void>
}

/**
 * Raised with whatever the kernel remembers of a mount and the next daemon must mean the same by: inode numbers, names, what
 * was negotiated, and this note itself. A mount of another format is not taken over.
 */
const NOTE_FORMAT = 1

/** What the keeper notes beside the descriptor. */
interface Note {
  readonly format: typeof NOTE_FORMAT
  readonly mountpoint: string
  /** The mount's device, `major:minor`. */
  readonly device: string
  readonly negotiated: Negotiated
}

/** Throws `unsupported` where there is no FUSE, `permission-denied` without the privilege to mount. */
export async function openConnection(options: ConnectionOptions): Promise<Connection> {
  const adopted = await adopt(options)
  if (adopted) return adopted
  await clearMountpoint(options)
  await options.onNew?.()
  const fd = openDevice()
  try {
    const negotiated = mountAndNegotiate(fd, options)
    try {
      const device = (await findMount(options.mountpoint))?.device
      if (device === undefined) throw new CodedError('internal', 'Cannot find the FUSE mount just made')
      setReadAhead(device, options.readAheadKb, options.log)
      const note: Note = {format: NOTE_FORMAT, mountpoint: options.mountpoint, device, negotiated}
      await options.keeper?.hold(options.name, fd, JSON.stringify(note))
      return connectionOf(fd, note, false, options)
    } catch (error) {
      detach(options.mountpoint)
      throw error
    }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** The connection that the keeper holds, if its mount is still there. */
async function adopt(options: ConnectionOptions): Promise<Connection | undefined> {
  const {keeper, name, mountpoint, log} = options
  const held = await keeper?.take(name)
  if (!held) return undefined
  const note = parseNote(held.note)
  const mounted = await findMount(mountpoint)
  if (note && note.mountpoint === mountpoint && mounted?.type === TYPE && mounted.device === note.device) {
    log.info({mountpoint}, 'took over a FUSE mount')
    return connectionOf(held.fd, note, true, options)
  }
  log.warn(
    {mountpoint},
    note ? 'the FUSE mount of an earlier process is gone' : 'the FUSE mount is one of another version',
  )
  closeSync(held.fd)
  await keeper?.drop(name)
  return undefined
}

/** Undefined for a note that this version would not have written. */
function parseNote(text: string): Note | undefined {
  try {
    const note: Partial<Note> | null = JSON.parse(text)
    return note?.format === NOTE_FORMAT ? (note as Note) : undefined
  } catch {
    return undefined
  }
}

/** Makes the mount point a directory, without what a killed process may have left mounted there. */
async function clearMountpoint({mountpoint, log}: ConnectionOptions): Promise<void> {
  for (let left = await findMount(mountpoint); left?.type === TYPE; left = await findMount(mountpoint)) {
    log.warn({mountpoint}, 'detaching a FUSE mount that nobody serves')
    unmount(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW)
  }
  await mkdir(mountpoint, {recursive: true, mode: 0o700})
}

function openDevice(): number {
  try {
    return openSync('/dev/fuse', 'r+')
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code === 'EACCES' ? 'permission-denied' : 'unsupported'
    throw new CodedError(code, `Cannot open /dev/fuse: ${describeError(cause)}`, {cause})
  }
}

function mountAndNegotiate(fd: number, options: ConnectionOptions): Negotiated {
  const {mountpoint: target} = options
  const flags =
    (options.askAboutChanges ? 0 : MS_RDONLY) | (options.exec ? 0 : MS_NOSUID | MS_NODEV | MS_NOEXEC)
  // default_permissions: the kernel checks modes, so that allow_other allows no more than they say.
  const data = `fd=${fd},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions,max_read=${READ_SIZE}`
  mount({source: SOURCE, target, type: TYPE, flags, data})
  try {
    // mount(2) has queued INIT, so that this does not block; nothing else comes before it is answered.
    const buffer = Buffer.alloc(REQUEST_BUFFER_SIZE)
    const request = parseRequest(buffer.subarray(0, readSync(fd, buffer, 0, buffer.length, null)))
    const {readAheadKb, passthrough, changing, accessLists} = options
    const wishes = {readAhead: 1024 * readAheadKb, passthrough, changing, accessLists}
    const answer = request?.opcode === OPCODE.init ? negotiate(request, wishes) : undefined
    if (!request || !answer) {
      throw new CodedError('unsupported', "Cannot serve FUSE: this kernel's protocol is too old")
    }
    const header = Buffer.alloc(OUT_HEADER_SIZE)
    putReplyHeader(header, request.unique, 0, answer.body.length)
    writevSync(fd, [header, answer.body])
    return answer.negotiated
  } catch (error) {
    detach(target)
    throw error
  }
}

/** INIT can only lower the kernel's default of 128 KiB; the mount's own setting counts. */
function setReadAhead(device: string, kb: number, log: FuseLog): void {
  try {
    writeFileSync(`/sys/class/bdi/${device}/read_ahead_kb`, String(kb))
  } catch (error) {
    // In a container /sys may be read-only: reads are of another size then.
    log.debug({device, error: describeError(error)}, 'cannot set the readahead of a FUSE mount')
  }
}

function connectionOf(
  fd: number,
  note: Note,
  adopted: boolean,
  {keeper, name, mountpoint, log}: ConnectionOptions,
): Connection {
  const hold = async (): Promise<void> => {
    try {
      await keeper?.hold(name, fd, JSON.stringify(note))
    } catch (error) {
      log.warn({mountpoint, error: describeError(error)}, 'cannot keep the FUSE mount over a restart')
    }
  }
  let held = Promise.resolve()
  let isGone = false
  const timer = setInterval(() => {
    held = held.then(hold)
  }, HOLD_INTERVAL_MS)
  timer.unref()
  return {
    fd,
    negotiated: note.negotiated,
    adopted,
    readAhead: kb => setReadAhead(note.device, kb, log),
    stopHolding: () => {
      isGone = true
      clearInterval(timer)
    },
    close: async how => {
      clearInterval(timer)
      await held
      // The keeper may have died since it was asked last.
      if (how === 'leave' && !isGone) await hold()
      // Detaching needs no answer of ours. Closing the last descriptor ends whatever still waits with an error.
      if (how === 'unmount') detach(mountpoint)
      closeSync(fd)
      if (how === 'unmount') await keeper?.drop(name)
    },
  }
}

/** Unmounts, also while it is in use. */
function detach(mountpoint: string): void {
  try {
    unmount(mountpoint, MNT_DETACH | UMOUNT_NOFOLLOW)
  } catch {
    // It is not mounted any more.
  }
}
