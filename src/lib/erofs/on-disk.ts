// The structures of an EROFS image (Linux fs/erofs/erofs_fs.h): sizes, offsets, and encoders that fill them.

import {CodedError} from '../errors/coded-error.ts'
import {encodeByteText} from '../io/byte-text.ts'
import type {NodeType, TreeNode} from '../vfs/file-tree.ts'
import {checkXattr, checkXattrsSize} from './limits.ts'

/** Where the superblock is, and its magic. */
export const SUPERBLOCK_OFFSET = 1024
const MAGIC = 0xe0f5e1e2
/** The one device slot, 128 bytes, right behind what the superblock occupies. */
export const DEVICE_SLOT_OFFSET = 2048
const DEVICE_SLOT_SIZE = 128
/** feature_compat: mtime is in i_mtime. feature_incompat: the image names a device table. */
const COMPAT_MTIME = 0x2
const INCOMPAT_DEVICE_TABLE = 0x8

/** An inode number ("nid") counts slots of this size from the metadata's start. */
export const SLOT_SIZE = 32
export const INODE_SIZE = 64
const EXTENDED = 1
/** Data layouts: whole blocks elsewhere; the last, partial block behind the inode. */
export const FLAT_PLAIN = 0
export const FLAT_INLINE = 2

export const DIRENT_SIZE = 12
const XATTR_HEADER_SIZE = 12
const XATTR_ENTRY_SIZE = 4

/** S_IFMT bits of stat(2), and the file types of directory entries (the same as ext4's). */
const FILE_TYPES: Readonly<Record<NodeType, {readonly mode: number; readonly dirent: number}>> = {
  reg: {mode: 0o100000, dirent: 1},
  dir: {mode: 0o040000, dirent: 2},
  char: {mode: 0o020000, dirent: 3},
  block: {mode: 0o060000, dirent: 4},
  fifo: {mode: 0o010000, dirent: 5},
  symlink: {mode: 0o120000, dirent: 7},
}

/** Names of extended attributes are stored without these prefixes; one that does not end with a dot is a whole name. */
const XATTR_PREFIXES: readonly (readonly [string, number])[] = [
  ['system.posix_acl_access', 2],
  ['system.posix_acl_default', 3],
  ['user.', 1],
  ['trusted.', 4],
  ['security.', 6],
]

export interface SuperblockFields {
  /** log2 of the block size. */
  readonly blockBits: number
  readonly rootNid: number
  readonly inodes: number
  /** Blocks of the image itself, and the block at which its metadata starts. */
  readonly blocks: number
  readonly metaBlock: number
  /** Blocks of the data device, and the address at which they appear. */
  readonly deviceBlocks: number
  readonly deviceAddress: number
}

/** Fills superblock and device slot at their places in `image`. */
export function putSuperblock(image: DataView, fields: SuperblockFields): void {
  const at = SUPERBLOCK_OFFSET
  image.setUint32(at, MAGIC, true)
  image.setUint32(at + 8, COMPAT_MTIME, true)
  image.setUint8(at + 12, fields.blockBits)
  image.setUint16(at + 14, fields.rootNid, true)
  image.setBigUint64(at + 16, BigInt(fields.inodes), true)
  image.setUint32(at + 36, fields.blocks, true)
  image.setUint32(at + 40, fields.metaBlock, true)
  image.setUint32(at + 80, INCOMPAT_DEVICE_TABLE, true)
  image.setUint16(at + 86, 1, true)
  image.setUint16(at + 88, DEVICE_SLOT_OFFSET / DEVICE_SLOT_SIZE, true)
  image.setUint32(DEVICE_SLOT_OFFSET + 64, fields.deviceBlocks, true)
  image.setUint32(DEVICE_SLOT_OFFSET + 68, fields.deviceAddress, true)
}

export interface InodeFields {
  readonly node: TreeNode
  readonly layout: typeof FLAT_PLAIN | typeof FLAT_INLINE
  readonly size: number
  /** First block of the data; a device's number for devices. */
  readonly startBlock: number
  readonly number: number
  readonly links: number
  readonly xattrSize: number
}

/** Fills an extended inode at `at`. */
export function putInode(image: DataView, at: number, fields: InodeFields): void {
  const {node} = fields
  const slots = fields.xattrSize === 0 ? 0 : (fields.xattrSize - XATTR_HEADER_SIZE) / 4 + 1
  image.setUint16(at, EXTENDED | (fields.layout << 1), true)
  image.setUint16(at + 2, slots, true)
  image.setUint16(at + 4, FILE_TYPES[node.type].mode | (node.mode & 0o7777), true)
  image.setBigUint64(at + 8, BigInt(fields.size), true)
  image.setUint32(at + 16, fields.startBlock, true)
  image.setUint32(at + 20, fields.number, true)
  image.setUint32(at + 24, node.uid, true)
  image.setUint32(at + 28, node.gid, true)
  image.setBigInt64(at + 32, BigInt(node.mtimeSeconds), true)
  image.setUint32(at + 40, node.mtimeNanoseconds, true)
  image.setUint32(at + 44, fields.links, true)
}

/** A device number as Linux's new_encode_dev has it: minor 7–0, major 11–0, minor 19–8 from the lowest bit. */
export function encodeDevice(major: number, minor: number): number {
  return ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0
}

/** What an inode's mode says that it is. */
export function typeOfMode(mode: number): NodeType {
  const found = Object.entries(FILE_TYPES).find(([, type]) => type.mode === (mode & 0o170000))
  if (!found)
    throw new CodedError('corrupt', `Cannot read an EROFS image: no file has mode 0${mode.toString(8)}`)
  return found[0] as NodeType
}

/** Bytes of the xattrs behind an inode, of whose number of slots it says so much. */
export function xattrsSizeOf(slots: number): number {
  return slots === 0 ? 0 : XATTR_HEADER_SIZE + (slots - 1) * 4
}

/** The type byte of a directory entry. */
export function direntType(node: TreeNode): number {
  return FILE_TYPES[node.type].dirent
}

/**
 * The inline xattr body of an inode: empty, or a header and entries, a multiple of 4 bytes. Names that Linux does not
 * know are dropped. Throws `unsupported` for what is too large.
 */
export function encodeXattrs(xattrs: ReadonlyMap<string, Uint8Array> | undefined): Uint8Array {
  const entries = [...(xattrs ?? [])].flatMap(([name, value]) => {
    const prefix = XATTR_PREFIXES.find(([text]) => (text.endsWith('.') ? isBelow(name, text) : name === text))
    return prefix ? [encodeXattr(encodeByteText(name.slice(prefix[0].length)), prefix[1], value)] : []
  })
  if (entries.length === 0) return new Uint8Array(0)
  const size = XATTR_HEADER_SIZE + entries.reduce((sum, entry) => sum + entry.length, 0)
  checkXattrsSize(size)
  const bytes = new Uint8Array(size)
  let at = XATTR_HEADER_SIZE
  for (const entry of entries) {
    bytes.set(entry, at)
    at += entry.length
  }
  return bytes
}

function isBelow(name: string, prefix: string): boolean {
  return name.startsWith(prefix) && name.length > prefix.length
}

/** Name length, prefix, value size, name, value, padded to 4 bytes. */
function encodeXattr(name: Uint8Array, prefix: number, value: Uint8Array): Uint8Array {
  checkXattr(name, value)
  const bytes = new Uint8Array(Math.ceil((XATTR_ENTRY_SIZE + name.length + value.length) / 4) * 4)
  bytes.set([name.length, prefix, value.length & 0xff, value.length >> 8])
  bytes.set(name, XATTR_ENTRY_SIZE)
  bytes.set(value, XATTR_ENTRY_SIZE + name.length)
  return bytes
}
