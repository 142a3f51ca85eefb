// What stat(2) shows of a tree's inodes, and of the two that no layer has: the session's root and state directories.

import {type FuseAttributes, ROOT_NODE} from '../fuse/protocol.ts'
import {nodeIdOfInode, STATE_DIRECTORY, STATE_FILE} from './tree-nodes.ts'
import type {StateFile} from './tree-state.ts'
import {
  COUNT,
  FIRST,
  GID,
  LINKS,
  MODE,
  MTIME_NANOSECONDS,
  SIZE,
  secondsOf,
  sizeOf,
  type TreeTable,
  TYPE_DIRECTORY,
  TYPE_FILE,
  TYPE_MASK,
  UID,
  wordOf,
} from './tree-table.ts'

/** What directories say of their size: a block, as ext4's smallest. */
const DIRECTORY_SIZE = 4096

const OURS = {uid: 0, gid: 0, devMajor: 0, devMinor: 0, mtimeSeconds: 0, mtimeNanoseconds: 0}

/** Of an inode of a layer's table. */
export function inodeAttributes(layerId: number, table: TreeTable, inode: number): FuseAttributes {
  const mode = wordOf(table, inode, MODE)
  const type = mode & TYPE_MASK
  const isDevice = type === 0o020000 || type === 0o060000
  return {
    nodeId: nodeIdOfInode(layerId, inode),
    size: type === TYPE_DIRECTORY ? DIRECTORY_SIZE : sizeOf(table, inode, SIZE),
    mode,
    links: wordOf(table, inode, LINKS),
    uid: wordOf(table, inode, UID),
    gid: wordOf(table, inode, GID),
    devMajor: isDevice ? wordOf(table, inode, FIRST) : 0,
    devMinor: isDevice ? wordOf(table, inode, COUNT) : 0,
    mtimeSeconds: secondsOf(table, inode),
    mtimeNanoseconds: wordOf(table, inode, MTIME_NANOSECONDS),
  }
}

/**
 * Of the session's root. Only the machine's root may look: what is in a private image is nobody else's business. The time
 * changes with what is listed, so that the kernel reads the list again: it is made of the layers, for every thread to say
 * the same.
 */
export function rootAttributes(layerIds: Iterable<number>): FuseAttributes {
  let mtimeSeconds = 0
  let links = 2
  for (const id of layerIds) {
    mtimeSeconds ^= id % 2 ** 31
    links++
  }
  return {...OURS, nodeId: ROOT_NODE, size: DIRECTORY_SIZE, mode: TYPE_DIRECTORY | 0o500, links, mtimeSeconds}
}

export function stateDirectoryAttributes(layerId: number): FuseAttributes {
  const nodeId = nodeIdOfInode(layerId, STATE_DIRECTORY)
  return {...OURS, nodeId, size: DIRECTORY_SIZE, mode: TYPE_DIRECTORY | 0o500, links: 2}
}

export function stateFileAttributes(layerId: number, {bytes, mtimeSeconds}: StateFile): FuseAttributes {
  const nodeId = nodeIdOfInode(layerId, STATE_FILE)
  return {...OURS, nodeId, size: bytes.length, mode: TYPE_FILE | 0o400, links: 1, mtimeSeconds}
}

/** What LOOKUP says of a name that is not there. */
export const NO_ENTRY: FuseAttributes = {...OURS, nodeId: 0, size: 0, mode: 0, links: 0}

/** Makes the kernel ask again for attributes of something that changes; `at` is where their validity stands. */
export function forgetAttributes(body: Buffer, at: number): void {
  body.writeBigUInt64LE(0n, at)
}
