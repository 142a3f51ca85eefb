// What an EROFS image can hold. The kernel takes an image that breaks these for a damaged disk, and a field that wraps
// around would silently change a file, so the encoder refuses first.

import {CodedError} from '../errors/coded-error.ts'
import type {FileNode} from '../vfs/file-tree.ts'

/** Bytes of a name (EROFS_NAME_LEN), and of a symlink's target (PATH_MAX without its NUL). */
const MAX_NAME_SIZE = 255
const MAX_TARGET_SIZE = 4095
/** Owners have 32 bits; device numbers are Linux's, 12 bits of major and 20 of minor. */
const MAX_OWNER = 2 ** 32 - 1
const MAX_MAJOR = 2 ** 12 - 1
const MAX_MINOR = 2 ** 20 - 1
/** Extended attributes: bytes of a name without its prefix, of a value, and of all of one inode (e_value_size, i_xattr_icount). */
const MAX_XATTR_NAME_SIZE = 255
const MAX_XATTR_VALUE_SIZE = 2 ** 16 - 1
const MAX_XATTRS_SIZE = 12 + 4 * (2 ** 16 - 2)

/** Throws `unsupported` for a name that no directory can have. */
export function checkName(name: Uint8Array): void {
  if (name.length === 0 || name.length > MAX_NAME_SIZE) refuse(`a name of ${name.length} bytes`)
  const dots = name.length <= 2 && name.every(byte => byte === 0x2e)
  if (dots || name.includes(0x2f) || name.includes(0)) refuse('a name that no directory can have')
}

/** Throws `unsupported` for what does not fit into the fields of an inode; `target` is a symlink's, as bytes. */
export function checkNode(node: FileNode, target: Uint8Array): void {
  for (const owner of [node.uid, node.gid]) {
    if (owner < 0 || owner > MAX_OWNER) refuse(`a file of user or group ${owner}`)
  }
  if (node.devMajor > MAX_MAJOR || node.devMinor > MAX_MINOR) {
    refuse(`a device ${node.devMajor}:${node.devMinor}`)
  }
  if (target.length > MAX_TARGET_SIZE) refuse(`a symlink to a path of ${target.length} bytes`)
}

/** Throws `unsupported` for an extended attribute that is too large; `name` is without its prefix. */
export function checkXattr(name: Uint8Array, value: Uint8Array): void {
  if (name.length > MAX_XATTR_NAME_SIZE || value.length > MAX_XATTR_VALUE_SIZE) {
    refuse(`an extended attribute of ${value.length} bytes with a name of ${name.length}`)
  }
}

/** Throws `unsupported` for more extended attributes than an inode can have; `size` is that of all of them, encoded. */
export function checkXattrsSize(size: number): void {
  if (size > MAX_XATTRS_SIZE) refuse(`${size} bytes of extended attributes of one file`)
}

function refuse(what: string): never {
  throw new CodedError('unsupported', `Cannot make an EROFS image: it cannot hold ${what}`)
}
