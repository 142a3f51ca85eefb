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
import {type NamedEntry, type PlacedEntry, type PlaceNode, pathOf} from './layer-places.ts'

/** What a layer says of one file, in its tar or its TOC. */
export interface LayerEntry extends NamedEntry, Omit<TreeNode, 'type' | 'dataOffset'> {}

/**
 * The tree of one layer from its placed entries, as a runtime leaves it; the root is nobody's to describe. `dataOffsetOf`
 * says where the data of a regular file start, for those that have any. Directories that the layer does not describe are
 * as the topmost of `lower` (lowest first) that has them says, because overlayfs shows the upper layer's attributes of a
 * directory.
 */
export function treeOfLayer<Entry extends LayerEntry>(
  entries: Iterable<PlacedEntry<Entry>>,
  dataOffsetOf: (entry: Entry) => number,
  lower: readonly DirectoryNode[] = [],
): DirectoryNode {
  let root = impliedDirectory(lower, [])
  /** The directories that are or were there; a later entry makes another of one, with the same children. */
  const directories = new Map<PlaceNode, DirectoryNode>()
  const directoryAt = (place: PlaceNode): DirectoryNode => {
    const known = place.parent ? directories.get(place) : root
    return known ?? put(place, impliedDirectory(lower, pathOf(place).split('/')))
  }
  const put = <Node extends FileNode>(place: PlaceNode, node: Node): Node => {
    directoryAt(place.parent!).children.set(place.name, node)
    if (node.type === 'dir') directories.set(place, node)
    return node
  }
  for (const {entry, role, node: place, target} of entries) {
    if (role === 'opaque') {
      const directory = opaqueDirectory(directoryAt(place))
      if (place.parent) put(place, directory)
      else root = directory
    } else if (role === 'whiteout') {
      if (place.kind === 'whiteout') put(place, whiteoutNode())
    } else if (target) put(place, directoryAt(target.parent!).children.get(target.name)!)
    else if (entry.type !== 'dir') put(place, fileOf(entry, entry.size > 0 ? dataOffsetOf(entry) : 0))
    else put(place, directoryOf(entry, directories.get(place)))
  }
  return root
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

/** A directory that is described again keeps what is in it, and attributes that it is not given anew. */
function directoryOf(entry: LayerEntry, existing: DirectoryNode | undefined): DirectoryNode {
  const {children = new Map(), xattrs: before} = existing ?? {}
  const attributes = attributesOf(entry)
  const xattrs = before ? new Map([...before, ...(attributes.xattrs ?? [])]) : attributes.xattrs
  return {...attributes, type: 'dir', size: 0, dataOffset: 0, children, xattrs}
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
  const {mode, uid, gid, mtimeSeconds, mtimeNanoseconds, devMajor, devMinor, linkName} = entry
  const xattrs = withoutTrusted(entry.xattrs)
  return {mode: mode & 0o7777, uid, gid, mtimeSeconds, mtimeNanoseconds, devMajor, devMinor, linkName, xattrs}
}

/** containerd sets none of these: overlayfs would take a layer's word for what lower layers have, and where. */
const TRUSTED = 'trusted.'

function withoutTrusted(xattrs: LayerEntry['xattrs']): LayerEntry['xattrs'] {
  if (!xattrs || ![...xattrs.keys()].some(name => name.startsWith(TRUSTED))) return xattrs
  const rest = [...xattrs].filter(([name]) => !name.startsWith(TRUSTED))
  return rest.length > 0 ? new Map(rest) : undefined
}
