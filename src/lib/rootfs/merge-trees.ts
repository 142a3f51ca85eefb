// The layers' trees as the one tree that overlayfs would show: for unpacking into one directory, where its marks for
// hidden files are of no use and, in a container, often cannot be made.

import {type DirectoryNode, type FileNode, OPAQUE_XATTR, plainDirectory} from '../vfs/file-tree.ts'

/** Merges trees, lowest first. Files stay the same objects, so that hard links and where a file came from are kept. */
export function mergeTrees(trees: readonly DirectoryNode[]): DirectoryNode {
  return trees.reduce((lower, upper) => mergeDirectory(lower, upper), plainDirectory())
}

function mergeDirectory(lower: DirectoryNode | undefined, upper: DirectoryNode): DirectoryNode {
  const xattrs = new Map(upper.xattrs)
  const isOpaque = xattrs.delete(OPAQUE_XATTR)
  const children = new Map(isOpaque ? [] : lower?.children)
  for (const [name, node] of upper.children) {
    const below = children.get(name)
    if (isWhiteout(node)) children.delete(name)
    else if (node.type !== 'dir') children.set(name, node)
    else children.set(name, mergeDirectory(below?.type === 'dir' ? below : undefined, node))
  }
  return {...upper, xattrs: xattrs.size > 0 ? xattrs : undefined, children}
}

/** A device 0:0 hides, whether a whiteout became it or the tar has it: overlayfs takes both for one. */
function isWhiteout(node: FileNode): boolean {
  return node.type === 'char' && node.devMajor === 0 && node.devMinor === 0
}
