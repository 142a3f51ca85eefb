// A layer's tree of files, whatever made it and whatever serves it: plain data.

export type NodeType = 'dir' | 'reg' | 'symlink' | 'char' | 'block' | 'fifo'

/** One inode. Hard links are several names of the same object. */
export interface TreeNode {
  readonly type: NodeType
  /** Permission, set-id and sticky bits, without the file type. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Since the epoch; seconds may be negative, nanoseconds are 0–999999999. */
  readonly mtimeSeconds: number
  readonly mtimeNanoseconds: number
  readonly devMajor: number
  readonly devMinor: number
  /** Bytes of a regular file's data, and where in the tree's data they start; 0 otherwise. */
  readonly size: number
  readonly dataOffset: number
  /** A symlink's target; byte text. */
  readonly linkName: string
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined
}

/** A directory; `children` are by name (byte text), without `.` and `..`. */
export interface DirectoryNode extends TreeNode {
  readonly type: 'dir'
  readonly children: Map<string, FileNode>
}

export type FileNode = DirectoryNode | (TreeNode & {readonly type: Exclude<NodeType, 'dir'>})

/** How overlayfs is told about what a layer hides. */
export const OPAQUE_XATTR = 'trusted.overlay.opaque'

const EPOCH = {mtimeSeconds: 0, mtimeNanoseconds: 0}

/** A directory that nothing describes: root's, mode 0755, as every unpacker makes missing parents. */
export function plainDirectory(): DirectoryNode {
  return {
    ...EPOCH,
    ...NO_DATA,
    type: 'dir',
    mode: 0o755,
    uid: 0,
    gid: 0,
    xattrs: undefined,
    children: new Map(),
  }
}

/** What overlayfs takes for "nothing here, whatever is below": a character device 0:0. */
export function whiteoutNode(): FileNode {
  return {...EPOCH, ...NO_DATA, type: 'char', mode: 0, uid: 0, gid: 0, xattrs: undefined}
}

const NO_DATA = {devMajor: 0, devMinor: 0, size: 0, dataOffset: 0, linkName: ''}

/** `directory` marked as hiding what lower layers have in it. */
export function opaqueDirectory(directory: DirectoryNode): DirectoryNode {
  return {...directory, xattrs: new Map([...(directory.xattrs ?? []), [OPAQUE_XATTR, Uint8Array.of(0x79)]])}
}
