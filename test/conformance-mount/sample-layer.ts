// Layers for the mount backends: trees whose data are computed where they are not written down, so that a file can be
// larger than a disk.

import {
  type DirectoryNode,
  type FileNode,
  type NodeType,
  plainDirectory,
  type TreeNode,
  whiteoutNode,
} from '../../src/lib/vfs/file-tree.ts'

/** A tree, and the device that holds its files' data. */
export interface SampleLayer {
  readonly root: DirectoryNode
  /** Bytes of the device, a multiple of 4096. */
  readonly size: number
  /** The device's bytes, zeros between files. */
  data(offset: number, length: number): Uint8Array
}

export type Attributes = Partial<Omit<TreeNode, 'type' | 'size' | 'dataOffset'>>

const BLOCK_SIZE = 4096

/** What a file holds: bytes, or so many that follow a pattern which differs from place to place. */
export type Content = Uint8Array | string | {readonly size: number}

/** Places files' data on a device, one behind the other. */
export function createLayerBuilder() {
  const extents: {readonly offset: number; readonly size: number; readonly bytes: Uint8Array | undefined}[] =
    []
  let end = 0
  return {
    file: (content: Content, attributes: Attributes = {}): FileNode => {
      const bytes = typeof content === 'string' ? Buffer.from(content) : content
      const size = bytes instanceof Uint8Array ? bytes.length : bytes.size
      if (size === 0) return node('reg', attributes)
      const dataOffset = end
      extents.push({offset: dataOffset, size, bytes: bytes instanceof Uint8Array ? bytes : undefined})
      end += Math.ceil(size / BLOCK_SIZE) * BLOCK_SIZE
      return {...node('reg', attributes), size, dataOffset}
    },
    layer: (root: DirectoryNode): SampleLayer => ({
      root,
      size: Math.max(end, BLOCK_SIZE),
      data: (offset, length) => {
        const result = new Uint8Array(length)
        for (const extent of extents) {
          const from = Math.max(offset, extent.offset)
          const to = Math.min(offset + length, extent.offset + extent.size)
          if (from >= to) continue
          const {bytes} = extent
          result.set(
            bytes ? bytes.subarray(from - extent.offset, to - extent.offset) : pattern(from, to - from),
            from - offset,
          )
        }
        return result
      },
    }),
  }
}

/** A file that is none of bytes. */
export function node(type: Exclude<NodeType, 'dir'>, attributes: Attributes = {}): FileNode {
  return {...whiteoutNode(), type, mode: type === 'symlink' ? 0o777 : 0o644, ...attributes} as FileNode
}

export function directory(
  children: Readonly<Record<string, FileNode>>,
  attributes: Attributes = {},
): DirectoryNode {
  return {...plainDirectory(), ...attributes, children: new Map(Object.entries(children))}
}

/** Bytes that depend on their place alone. */
export function pattern(offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length)
  for (let index = 0; index < length; index++) {
    const place = offset + index
    bytes[index] =
      (Math.imul((place >>> 3) ^ Math.floor(place / 2 ** 32), 0x9e3779b1) >>> 21) ^ (place & 0xff)
  }
  return bytes
}
