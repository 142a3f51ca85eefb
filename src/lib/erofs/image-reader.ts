// Finds names in an EROFS image that `encodeErofs`, or its twin in C, has made: what a file is, and where on the data device.

import {CodedError} from '../errors/coded-error.ts'
import type {NodeType} from '../vfs/file-tree.ts'
import {
  DEVICE_SLOT_OFFSET,
  DIRENT_SIZE,
  FLAT_INLINE,
  INODE_SIZE,
  SLOT_SIZE,
  SUPERBLOCK_OFFSET,
  typeOfMode,
  xattrsSizeOf,
} from './on-disk.ts'

/** Reads bytes of an image. */
export type ReadAt = (offset: number, length: number) => Promise<Uint8Array>

/** What an inode says. Sizes and offsets are bytes. */
export interface FoundNode {
  readonly type: NodeType
  readonly size: number
  /** Of a regular file's data on the device; of a device, its number. */
  readonly dataOffset: number
  /** For `ErofsReader` alone: where a directory's entries or a symlink's target are. */
  readonly whole: {readonly offset: number; readonly size: number}
  readonly inlineOffset: number
}

/** A directory or target that is larger is not read: an image of a million files in one directory has less. */
const MAX_CONTENTS = 64 << 20

export class ErofsReader {
  readonly #read: ReadAt
  readonly #blockSize: number
  readonly #metadata: number
  readonly #device: number
  readonly #root: number

  private constructor(read: ReadAt, superblock: DataView, slot: DataView) {
    this.#read = read
    this.#blockSize = 2 ** superblock.getUint8(12)
    this.#root = superblock.getUint16(14, true)
    this.#metadata = superblock.getUint32(40, true) * this.#blockSize
    this.#device = slot.getUint32(68, true)
  }

  static async open(read: ReadAt): Promise<ErofsReader> {
    const [superblock, slot] = [await read(SUPERBLOCK_OFFSET, 128), await read(DEVICE_SLOT_OFFSET, 128)]
    return new ErofsReader(read, viewOf(superblock), viewOf(slot))
  }

  root(): Promise<FoundNode> {
    return this.#node(this.#root)
  }

  /** What has this name in a directory. */
  async find(directory: FoundNode, name: Uint8Array): Promise<FoundNode | undefined> {
    const bytes = await this.#contents(directory)
    for (let at = 0; at < bytes.length; at += this.#blockSize) {
      const block = bytes.subarray(at, at + this.#blockSize)
      const nid = findInBlock(block, name)
      if (nid !== undefined) return this.#node(nid)
    }
    return undefined
  }

  /** What a symlink names. */
  target(symlink: FoundNode): Promise<Uint8Array> {
    return this.#contents(symlink)
  }

  async #node(nid: number): Promise<FoundNode> {
    const at = this.#metadata + nid * SLOT_SIZE
    const inode = viewOf(await this.#read(at, INODE_SIZE))
    const type = typeOfMode(inode.getUint16(4, true))
    const size = Number(inode.getBigUint64(8, true))
    const startBlock = inode.getUint32(16, true)
    const isInline = inode.getUint16(0, true) >> 1 === FLAT_INLINE
    const tail = isInline ? size % this.#blockSize : 0
    return {
      type,
      size,
      dataOffset: type === 'reg' ? Math.max(0, startBlock - this.#device) * this.#blockSize : startBlock,
      whole: {offset: startBlock * this.#blockSize, size: size - tail},
      inlineOffset: at + INODE_SIZE + xattrsSizeOf(inode.getUint16(2, true)),
    }
  }

  async #contents({size, whole, inlineOffset}: FoundNode): Promise<Uint8Array> {
    if (size > MAX_CONTENTS)
      throw new CodedError('unsupported', `Cannot read ${size} bytes of an EROFS image at once`)
    const parts = [
      whole.size > 0 ? await this.#read(whole.offset, whole.size) : new Uint8Array(0),
      size > whole.size ? await this.#read(inlineOffset, size - whole.size) : new Uint8Array(0),
    ]
    return Buffer.concat(parts)
  }
}

/** The nid of a name: entries come first, and say where names start; the last name ends with the block, or at a NUL. */
function findInBlock(block: Uint8Array, name: Uint8Array): number | undefined {
  if (block.length < DIRENT_SIZE) return undefined
  const view = viewOf(block)
  const count = Math.floor(Math.min(view.getUint16(8, true), block.length) / DIRENT_SIZE)
  for (let index = 0; index < count; index++) {
    const at = index * DIRENT_SIZE
    const start = view.getUint16(at + 8, true)
    const end = index + 1 < count ? view.getUint16(at + DIRENT_SIZE + 8, true) : endOfLast(block, start)
    if (end - start !== name.length) continue
    if (Buffer.compare(block.subarray(start, end), name) === 0) return Number(view.getBigUint64(at, true))
  }
  return undefined
}

function endOfLast(block: Uint8Array, start: number): number {
  const end = block.indexOf(0, start)
  return end < 0 ? block.length : end
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
}
