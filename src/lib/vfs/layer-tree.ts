// A layer's entries as a tree that overlayfs can stack: data stay where they are, whiteouts become what overlayfs
// takes for them.

import {CodedError} from '../errors/coded-error.ts'
import {
  type DirectoryNode,
  type FileNode,
  OPAQUE_XATTR,
  opaqueDirectory,
  plainDirectory,
  type TreeNode,
  whiteoutNode,
} from './file-tree.ts'
import type {NamedEntry, PlacedEntry} from './placement.ts'

/**
 * Most directories of a layer that only the names below them tell of: a name may have a thousand, and each takes half a
 * kilobyte.
 */
const MAX_IMPLIED_DIRECTORIES = 500_000

/** What a layer says of one file, in its tar or its TOC. */
export interface LayerEntry extends NamedEntry, Omit<TreeNode, 'type' | 'dataOffset'> {}

/**
 * The tree of one layer; a later entry of a place replaces an earlier one. `dataOffsetOf` says where the data of a
 * regular file start, for those that have any. Directories that the layer does not describe
 * are as the topmost of `lower` (lowest first) that has them says, because overlayfs shows the upper layer's attributes
 * of a directory. Throws `corrupt` for a dangling hard link, `unsupported` for too many directories of that kind.
 */
export function treeOfLayer<Entry extends LayerEntry>(
  entries: Iterable<PlacedEntry<Entry>>,
  dataOffsetOf: (entry: Entry) => number,
  lower: readonly DirectoryNode[] = [],
): DirectoryNode {
  let root = impliedDirectory(lower, [])
  let implied = 0
  const imply = (parts: readonly string[]): DirectoryNode => {
    if (++implied > MAX_IMPLIED_DIRECTORIES) {
      throw new CodedError(
        'unsupported',
        `Cannot use a layer that does not describe more than ${MAX_IMPLIED_DIRECTORIES} of its directories`,
      )
    }
    return impliedDirectory(lower, parts)
  }
  for (const placed of entries) {
    const {path, role, entry} = placed
    if (path === '') {
      if (role === 'node') root = {...directoryOf(entry), children: root.children}
      else if (role === 'opaque') root = opaqueDirectory(root)
      continue
    }
    const {parent, name} = parentOf(root, path, imply)
    const existing = parent.children.get(name)
    const node = role === 'node' ? nodeFor(root, placed, existing, dataOffsetOf) : hiding(role, existing)
    if (node) parent.children.set(name, node)
  }
  return root
}

/** The node of an entry; a directory keeps what is in it already. */
function nodeFor<Entry extends LayerEntry>(
  root: DirectoryNode,
  placed: PlacedEntry<Entry>,
  existing: FileNode | undefined,
  dataOffsetOf: (entry: Entry) => number,
): FileNode {
  const {entry, target} = placed
  if (target !== undefined) return linkTarget(root, target, entry.name)
  if (entry.type !== 'dir') return fileOf(entry, entry.size > 0 ? dataOffsetOf(entry) : 0)
  return {...directoryOf(entry), children: existing?.type === 'dir' ? existing.children : new Map()}
}

/** What a whiteout leaves behind: it speaks of lower layers, so it takes nothing of this one away. */
function hiding(role: 'whiteout' | 'opaque', existing: FileNode | undefined): FileNode | undefined {
  if (role === 'opaque') return opaqueDirectory(existing?.type === 'dir' ? existing : plainDirectory())
  return existing ? undefined : whiteoutNode()
}

/** The directory that holds `path`, made where the layer does not say what it is. */
function parentOf(
  root: DirectoryNode,
  path: string,
  imply: (parts: readonly string[]) => DirectoryNode,
): {parent: DirectoryNode; name: string} {
  const parts = path.split('/')
  const name = parts.pop()!
  let parent = root
  for (const [depth, part] of parts.entries()) {
    let child = parent.children.get(part)
    if (child?.type !== 'dir') {
      child = imply(parts.slice(0, depth + 1))
      parent.children.set(part, child)
    }
    parent = child
  }
  return {parent, name}
}

function impliedDirectory(lower: readonly DirectoryNode[], parts: readonly string[]): DirectoryNode {
  const described = lower.findLast(tree => nodeAt(tree, parts) !== undefined)
  const node = described && nodeAt(described, parts)
  return node?.type === 'dir' ? {...withoutMarks(node), children: new Map()} : plainDirectory()
}

/** An opaque mark is the lower layer's own. */
function withoutMarks(directory: DirectoryNode): DirectoryNode {
  const xattrs = new Map(directory.xattrs)
  xattrs.delete(OPAQUE_XATTR)
  return {...directory, xattrs: xattrs.size > 0 ? xattrs : undefined}
}

function nodeAt(root: DirectoryNode, parts: readonly string[]): FileNode | undefined {
  let node: FileNode | undefined = root
  for (const part of parts) node = node?.type === 'dir' ? node.children.get(part) : undefined
  return node
}

function linkTarget(root: DirectoryNode, target: string, name: string): FileNode {
  const node = nodeAt(root, target.split('/'))
  if (!node || node.type === 'dir') {
    throw new CodedError(
      'corrupt',
      `Cannot link ${JSON.stringify(name)}: its layer has no file ${JSON.stringify(target)}`,
    )
  }
  return node
}

function directoryOf(entry: LayerEntry): DirectoryNode {
  return {...attributesOf(entry), type: 'dir', size: 0, dataOffset: 0, children: new Map()}
}

function fileOf(entry: LayerEntry, dataOffset: number): FileNode {
  if (entry.type === 'dir' || entry.type === 'hardlink') {
    throw new CodedError('internal', `Cannot take ${JSON.stringify(entry.name)} for a file of its own`)
  }
  // Linux gives every symlink this mode, and no way to change it.
  const mode = entry.type === 'symlink' ? 0o777 : entry.mode & 0o7777
  return {...attributesOf(entry), type: entry.type, mode, size: entry.size, dataOffset}
}

function attributesOf(entry: LayerEntry) {
  const {mode, uid, gid, mtimeSeconds, mtimeNanoseconds, devMajor, devMinor, linkName, xattrs} = entry
  return {mode: mode & 0o7777, uid, gid, mtimeSeconds, mtimeNanoseconds, devMajor, devMinor, linkName, xattrs}
}
