// The messages of the FUSE protocol that file systems need of which nothing is written, as bytes (include/uapi/linux/fuse.h, protocol
// 7.41; little-endian, because so is every machine that Node's addons of this package are built for). Pure: buffers in,
// buffers out.

/** Request kinds (enum fuse_opcode). */
export const OPCODE = {
  lookup: 1,
  forget: 2,
  getattr: 3,
  setattr: 4,
  readlink: 5,
  symlink: 6,
  mknod: 8,
  mkdir: 9,
  unlink: 10,
  rmdir: 11,
  rename: 12,
  link: 13,
  open: 14,
  read: 15,
  write: 16,
  statfs: 17,
  release: 18,
  getxattr: 22,
  listxattr: 23,
  flush: 25,
  init: 26,
  opendir: 27,
  readdir: 28,
  releasedir: 29,
  access: 34,
  create: 35,
  interrupt: 36,
  destroy: 38,
  batchForget: 42,
  readdirplus: 44,
  rename2: 45,
  statx: 52,
} as const

/** The node that every path starts at. */
export const ROOT_NODE = 1

/** Flags of an OPEN or OPENDIR reply. */
export const FOPEN_KEEP_CACHE = 1 << 1
export const FOPEN_CACHE_DIR = 1 << 3
export const FOPEN_PASSTHROUGH = 1 << 7

/** Bytes of struct fuse_in_header, fuse_out_header, fuse_entry_out, fuse_attr_out, fuse_open_out. */
export const IN_HEADER_SIZE = 40
export const OUT_HEADER_SIZE = 16
export const ENTRY_SIZE = 128
export const ATTR_REPLY_SIZE = 104
export const OPEN_REPLY_SIZE = 16
export const STATFS_SIZE = 80

/** The largest READ that may come, on a mount of an earlier version. */
export const MAX_READ = 1 << 20
/**
 * The largest READ that a new mount has: `max_pages` pages, which INIT agrees on. EROFS reads no more of a file at once, and what
 * the kernel reads beyond it, into files that perhaps nobody wants, keeps no reader waiting in a READ of its own.
 */
export const READ_SIZE = 128 << 10
const MAX_PAGES = READ_SIZE / 4096
/** Nothing is ever written, and a request is at most this and a header long. */
const MAX_WRITE = 4096
/** What the kernel demands of the buffer that requests are read into. */
export const REQUEST_BUFFER_SIZE = 16_384

/** Seconds that an entry or its attributes stay valid: layers never change. Thirty years. */
const FOREVER = 1_000_000_000n

/** One request. `bytes` is all of it, and belongs to the caller's buffer: copy what is kept. */
export interface FuseRequest {
  readonly opcode: number
  /** Echoed in the reply. A request that is sent again has another one. */
  readonly unique: bigint
  /** The inode that it is about: a safe integer, because all ids are ours. */
  readonly nodeId: number
  /** The thread that waits; 0 when nobody does, or when it is in another pid namespace. */
  readonly pid: number
  readonly bytes: Buffer
}

/** The request in `bytes`; undefined for what is not one whole request, which the kernel never sends. */
export function parseRequest(bytes: Buffer): FuseRequest | undefined {
  if (bytes.length < IN_HEADER_SIZE || bytes.readUInt32LE(0) !== bytes.length) return undefined
  return {
    opcode: bytes.readUInt32LE(4),
    unique: bytes.readBigUInt64LE(8),
    nodeId: readNumber(bytes, 16),
    pid: bytes.readUInt32LE(32),
    bytes,
  }
}

/** Any 64-bit number that we gave out ourselves, or that only has to be compared. */
function readNumber(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32
}

/** The name that a LOOKUP asks for, as bytes without the NUL. */
export function parseName(request: FuseRequest): Buffer {
  return nameAt(request, IN_HEADER_SIZE)
}

/** CREATE: the name of the file to make. */
export function parseCreateName(request: FuseRequest): Buffer {
  return nameAt(request, IN_HEADER_SIZE + 16)
}

/** READ and READDIR(PLUS): a range; `offset` of a directory is what its last entry gave as `next`. */
export function parseRead(request: FuseRequest): {offset: number; size: number} {
  const {bytes} = request
  return {offset: readNumber(bytes, 48), size: Math.min(bytes.readUInt32LE(56), MAX_READ)}
}

/** GETXATTR: the room for the value (0 asks for its size), and the name. */
export function parseGetXattr(request: FuseRequest): {size: number; name: Buffer} {
  return {size: request.bytes.readUInt32LE(40), name: nameAt(request, 48)}
}

/** LISTXATTR: the room for the names; 0 asks for their size. */
export function parseListXattr(request: FuseRequest): {size: number} {
  return {size: request.bytes.readUInt32LE(40)}
}

/** INTERRUPT: the `unique` of the request whose waiter got a signal. */
export function parseInterrupt(request: FuseRequest): bigint {
  return request.bytes.readBigUInt64LE(40)
}

function nameAt({bytes}: FuseRequest, start: number): Buffer {
  const end = bytes.indexOf(0, start)
  return bytes.subarray(start, end < 0 ? bytes.length : end)
}

/** What INIT agrees on. */
export interface Negotiated {
  /** The kernel can send again what a killed server had read but not answered (Linux 6.9). */
  readonly resend: boolean
  /** Files may be opened so that the kernel reads a local file itself (Linux 6.9). */
  readonly passthrough: boolean
}

/** Capabilities of INIT: the first 32 in `flags`, the others in `flags2`. */
const ASYNC_READ = 1 << 0
const AUTO_INVAL_DATA = 1 << 12
const DO_READDIRPLUS = 1 << 13
const PARALLEL_DIROPS = 1 << 18
const POSIX_ACL = 1 << 20
const HAS_MAX_PAGES = 1 << 22
const CACHE_SYMLINKS = 1 << 23
const NO_OPENDIR_SUPPORT = 1 << 24
const EXPLICIT_INVAL_DATA = 1 << 25
const INIT_EXT = 1 << 30
const PASSTHROUGH = 1 << 5
const HAS_RESEND = 1 << 7

const WANTED =
  ASYNC_READ |
  DO_READDIRPLUS |
  PARALLEL_DIROPS |
  HAS_MAX_PAGES |
  CACHE_SYMLINKS |
  NO_OPENDIR_SUPPORT |
  INIT_EXT

/** How many READs of readahead may wait at once: beyond that, hits would queue behind what the network must bring. */
const MAX_BACKGROUND = 64
const CONGESTION_THRESHOLD = 48

/** The oldest protocol whose structures have the sizes above (Linux 5.4 has 7.31). */
const MIN_MINOR = 31
const MAX_MINOR = 41

/** What a server wants of INIT. */
export interface Wishes {
  /** Bytes: the most that the kernel may read ahead. */
  readonly readAhead: number
  /** Adds one to the depth at which other file systems may stack on this one. */
  readonly passthrough: boolean
  /** Files whose attributes may not be kept change with their time, at which the kernel then drops what it has of them. */
  readonly changing: boolean
  /** The kernel obeys access control lists, for which it asks where modes do not settle a matter. */
  readonly accessLists?: boolean | undefined
}

/** Answers INIT: the reply's body, and what both sides will do. undefined when the kernel's protocol is not ours. */
export function negotiate(
  request: FuseRequest,
  {readAhead, passthrough, changing, accessLists}: Wishes,
): {body: Buffer; negotiated: Negotiated} | undefined {
  const {bytes} = request
  const [major, minor] = [bytes.readUInt32LE(40), bytes.readUInt32LE(44)]
  if (major !== 7 || minor < MIN_MINOR) return undefined
  const caching = changing ? AUTO_INVAL_DATA : EXPLICIT_INVAL_DATA
  const wanted = WANTED | caching | (accessLists ? POSIX_ACL : 0)
  const flags = bytes.readUInt32LE(52) & wanted
  const wanted2 = HAS_RESEND | (passthrough ? PASSTHROUGH : 0)
  const flags2 = (flags & INIT_EXT) !== 0 && bytes.length >= 60 ? bytes.readUInt32LE(56) & wanted2 : 0
  const body = Buffer.alloc(64)
  body.writeUInt32LE(7, 0)
  body.writeUInt32LE(Math.min(minor, MAX_MINOR), 4)
  body.writeUInt32LE(readAhead, 8)
  body.writeUInt32LE(flags, 12)
  body.writeUInt16LE(MAX_BACKGROUND, 16)
  body.writeUInt16LE(CONGESTION_THRESHOLD, 18)
  body.writeUInt32LE(MAX_WRITE, 20)
  // Times have nanoseconds.
  body.writeUInt32LE(1, 24)
  body.writeUInt16LE(MAX_PAGES, 28)
  body.writeUInt32LE(flags2, 32)
  // max_stack_depth: with passthrough, exactly one file system below ours, so that overlayfs fits above.
  if ((flags2 & PASSTHROUGH) !== 0) body.writeUInt32LE(1, 36)
  return {
    body,
    negotiated: {resend: (flags2 & HAS_RESEND) !== 0, passthrough: (flags2 & PASSTHROUGH) !== 0},
  }
}

/** The header of a reply whose body has `size` bytes; `errno` is positive, 0 for success. */
export function putReplyHeader(out: Buffer, unique: bigint, errno: number, size: number): void {
  out.writeUInt32LE(OUT_HEADER_SIZE + size, 0)
  out.writeInt32LE(-errno, 4)
  out.writeBigUInt64LE(unique, 8)
}

/** An inode as stat(2) shows it. `mode` has the file type's bits. */
export interface FuseAttributes {
  readonly nodeId: number
  readonly size: number
  readonly mode: number
  readonly links: number
  readonly uid: number
  readonly gid: number
  readonly devMajor: number
  readonly devMinor: number
  readonly mtimeSeconds: number
  readonly mtimeNanoseconds: number
}

/** struct fuse_entry_out: the answer to LOOKUP. Returns its size, as every `put` does. */
export function putEntry(out: Buffer, at: number, attributes: FuseAttributes): number {
  out.fill(0, at, at + ENTRY_SIZE)
  writeNumber(out, at, attributes.nodeId)
  out.writeBigUInt64LE(FOREVER, at + 16)
  out.writeBigUInt64LE(FOREVER, at + 24)
  putAttributes(out, at + 40, attributes)
  return ENTRY_SIZE
}

/** struct fuse_attr_out: the answer to GETATTR. */
export function putAttrReply(out: Buffer, at: number, attributes: FuseAttributes): number {
  out.fill(0, at, at + ATTR_REPLY_SIZE)
  out.writeBigUInt64LE(FOREVER, at)
  putAttributes(out, at + 16, attributes)
  return ATTR_REPLY_SIZE
}

/** struct fuse_attr, over zeros. */
function putAttributes(out: Buffer, at: number, attributes: FuseAttributes): void {
  writeNumber(out, at, attributes.nodeId)
  writeNumber(out, at + 8, attributes.size)
  writeNumber(out, at + 16, Math.ceil(attributes.size / 512))
  for (let time = 0; time < 3; time++) {
    out.writeBigInt64LE(BigInt(attributes.mtimeSeconds), at + 24 + 8 * time)
    out.writeUInt32LE(attributes.mtimeNanoseconds, at + 48 + 4 * time)
  }
  out.writeUInt32LE(attributes.mode, at + 60)
  out.writeUInt32LE(attributes.links, at + 64)
  out.writeUInt32LE(attributes.uid, at + 68)
  out.writeUInt32LE(attributes.gid, at + 72)
  out.writeUInt32LE(deviceNumber(attributes.devMajor, attributes.devMinor), at + 76)
  out.writeUInt32LE(4096, at + 80)
}

/** new_encode_dev(): 12 bits of major between the low 8 and the high 12 bits of minor. */
function deviceNumber(major: number, minor: number): number {
  return ((minor & 0xff) | ((major & 0xfff) << 8) | ((minor & 0xfff00) << 12)) >>> 0
}

/** struct fuse_open_out: the answer to OPEN and OPENDIR; `backingId` with FOPEN_PASSTHROUGH. */
export function putOpenReply(out: Buffer, at: number, flags: number, backingId = 0): number {
  out.fill(0, at, at + OPEN_REPLY_SIZE)
  out.writeUInt32LE(flags, at + 8)
  out.writeInt32LE(backingId, at + 12)
  return OPEN_REPLY_SIZE
}

/** struct fuse_statfs_out: a full file system of `blocks` blocks of 4 KiB. */
export function putStatfs(out: Buffer, at: number, {blocks, files}: {blocks: number; files: number}): number {
  out.fill(0, at, at + STATFS_SIZE)
  writeNumber(out, at, blocks)
  writeNumber(out, at + 24, files)
  out.writeUInt32LE(4096, at + 40)
  out.writeUInt32LE(255, at + 44)
  out.writeUInt32LE(4096, at + 48)
  return STATFS_SIZE
}

/** struct fuse_getxattr_out: how much room a value or a list of names needs. */
export function putXattrSize(out: Buffer, at: number, size: number): number {
  out.writeUInt32LE(size, at)
  out.writeUInt32LE(0, at + 4)
  return 8
}

/** An entry of READDIR: `next` is the offset that reading goes on at; `type` is stat's mode >> 12. */
export interface FuseDirent {
  readonly nodeId: number
  readonly next: number
  readonly type: number
  readonly name: Uint8Array
}

/** struct fuse_dirent; returns 0, and writes nothing, when it does not fit before `end`. */
export function putDirent(out: Buffer, at: number, end: number, entry: FuseDirent): number {
  const size = 24 + ((entry.name.length + 7) & ~7)
  if (at + size > end) return 0
  writeNumber(out, at, entry.nodeId)
  writeNumber(out, at + 8, entry.next)
  out.writeUInt32LE(entry.name.length, at + 16)
  out.writeUInt32LE(entry.type, at + 20)
  out.fill(0, at + 24 + entry.name.length, at + size)
  out.set(entry.name, at + 24)
  return size
}

/**
 * struct fuse_direntplus; 0 when it does not fit. Without `attributes` (`.` and `..`) the kernel learns no entry, and
 * remembers no lookup.
 */
export function putDirentPlus(
  out: Buffer,
  at: number,
  end: number,
  entry: FuseDirent & {readonly attributes: FuseAttributes | undefined},
): number {
  const size = putDirent(out, at + ENTRY_SIZE, end, entry)
  if (size === 0) return 0
  if (entry.attributes) putEntry(out, at, entry.attributes)
  else out.fill(0, at, at + ENTRY_SIZE)
  return ENTRY_SIZE + size
}

/** FUSE_NOTIFY_RESEND: the kernel sends again whatever has been read but not answered. */
export function encodeResend(): Buffer {
  return encodeNotification(7, new Uint8Array(0))
}

/** FUSE_NOTIFY_INVAL_INODE: the kernel forgets the attributes and the cached pages of an inode. */
export function encodeInvalidateInode(nodeId: number): Buffer {
  const body = Buffer.alloc(24)
  writeNumber(body, 0, nodeId)
  // Offset 0 and length 0: all of them.
  return encodeNotification(2, body)
}

/** FUSE_NOTIFY_INVAL_ENTRY: the kernel forgets a name. */
export function encodeInvalidateEntry(parent: number, name: Uint8Array): Buffer {
  const body = Buffer.alloc(16 + name.length + 1)
  writeNumber(body, 0, parent)
  body.writeUInt32LE(name.length, 8)
  body.set(name, 16)
  return encodeNotification(3, body)
}

/** A message that nobody asked for: its code is where replies have the error, and `unique` is 0. */
function encodeNotification(code: number, body: Uint8Array): Buffer {
  const header = Buffer.alloc(OUT_HEADER_SIZE)
  header.writeUInt32LE(OUT_HEADER_SIZE + body.length, 0)
  header.writeInt32LE(code, 4)
  return Buffer.concat([header, body])
}

function writeNumber(out: Buffer, at: number, value: number): void {
  out.writeUInt32LE(value % 2 ** 32, at)
  out.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4)
}
