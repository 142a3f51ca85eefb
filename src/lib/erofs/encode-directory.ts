// The contents of a directory: blocks, each an array of fixed-size entries and then their names, sorted by name's bytes
// across the whole directory, `.` and `..` among them, so that the kernel can search it by bisection.

import {encodeByteText} from '../io/byte-text.ts'
import {checkName} from './limits.ts'
import {DIRENT_SIZE} from './on-disk.ts'

/** One name. `nid` is filled in later, when all inodes have their places. */
export interface DirectoryEntry<Node> {
  readonly name: Uint8Array
  readonly node: Node
}

/** A directory cut into blocks. */
export interface DirectoryBlocks<Node> {
  readonly blocks: readonly (readonly DirectoryEntry<Node>[])[]
  /** Bytes: all blocks but the last are full ones. */
  readonly size: number
}

/** Sorts and cuts the entries of a directory. Throws `unsupported` for names that cannot be. */
export function layOutDirectory<Node>(
  self: Node,
  parent: Node,
  children: Iterable<readonly [string, Node]>,
  blockSize: number,
): DirectoryBlocks<Node> {
  const entries = [
    {name: encodeByteText('.'), node: self},
    {name: encodeByteText('..'), node: parent},
    ...Array.from(children, child => entryOf(...child)),
  ].sort((left, right) => compareBytes(left.name, right.name))
  const blocks: DirectoryEntry<Node>[][] = []
  let block: DirectoryEntry<Node>[] = []
  let used = 0
  for (const entry of entries) {
    const size = DIRENT_SIZE + entry.name.length
    if (used + size > blockSize) {
      blocks.push(block)
      block = []
      used = 0
    }
    block.push(entry)
    used += size
  }
  blocks.push(block)
  return {blocks, size: (blocks.length - 1) * blockSize + used}
}

function entryOf<Node>(text: string, node: Node): DirectoryEntry<Node> {
  const name = encodeByteText(text)
  checkName(name)
  return {name, node}
}

/** Writes one block at `at`. A name ends where the next begins; the last of a full block at a NUL or the block's end. */
export function putDirectoryBlock<Node>(
  image: DataView,
  at: number,
  block: readonly DirectoryEntry<Node>[],
  describe: (node: Node) => {readonly nid: number; readonly type: number},
): void {
  let nameOffset = block.length * DIRENT_SIZE
  for (const [index, entry] of block.entries()) {
    const {nid, type} = describe(entry.node)
    const dirent = at + index * DIRENT_SIZE
    image.setBigUint64(dirent, BigInt(nid), true)
    image.setUint16(dirent + 8, nameOffset, true)
    image.setUint8(dirent + 10, type)
    for (const byte of entry.name) image.setUint8(at + nameOffset++, byte)
  }
}

function compareBytes(left: Uint8Array, right: Uint8Array): number {
  const shared = Math.min(left.length, right.length)
  for (let index = 0; index < shared; index++) {
    const difference = left[index]! - right[index]!
    if (difference !== 0) return difference
  }
  return left.length - right.length
}
