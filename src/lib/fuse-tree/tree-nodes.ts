// Inode numbers of a session that serves many trees: the layer in the upper bits, the inode of its table in the lower. They
// follow from names and tables alone, because the kernel keeps them while the daemon restarts.

import {createHash} from 'node:crypto'

/** Bits of an inode's number; with the layer's they make a safe integer. */
const INODE_BITS = 22
const LAYER_BITS = 53 - INODE_BITS

/** Two numbers behind a layer's inodes are for its state directory and the file in it. */
export const STATE_DIRECTORY = 2 ** INODE_BITS - 2
export const STATE_FILE = 2 ** INODE_BITS - 1
/** Most inodes of a layer. */
export const MAX_INODES = STATE_DIRECTORY

/**
 * The number of a layer: from 1, so that no node is the session's root. That two of 300 names have the same one has a
 * probability of 2 in 100,000; the session refuses the second.
 */
export function layerIdOf(name: string): number {
  const digest = createHash('sha256').update(name).digest()
  return 1 + (digest.readUInt32LE(0) % (2 ** LAYER_BITS - 1))
}

export function nodeIdOfInode(layerId: number, inode: number): number {
  return layerId * 2 ** INODE_BITS + inode
}

export function layerIdOfNode(nodeId: number): number {
  return Math.floor(nodeId / 2 ** INODE_BITS)
}

export function inodeOfNode(nodeId: number): number {
  return nodeId % 2 ** INODE_BITS
}
