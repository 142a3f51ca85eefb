// From a tree of objects to the tables that workers read. An inode's number is its place in breadth-first order of sorted
// names: the kernel keeps numbers while the daemon restarts, so the same tree must always number the same way.

import {CodedError} from '../errors/coded-error.ts'
import {encodeByteText} from '../io/byte-text.ts'
import {type DirectoryNode, type FileNode, type NodeType, OPAQUE_XATTR} from '../vfs/file-tree.ts'
import {MAX_INODES} from './tree-nodes.ts'
import * as at from './tree-table.ts'

/** Which overlayfs reads the marks: the system's, one in a user namespace (mount option `userxattr`), or either. */
export type OpaqueMarks = 'trusted' | 'user' | 'both'

/** Places in the bytes have 32 bits. */
const MAX_BYTES = 2 ** 32 - 1
const MAX_NAME_SIZE = 255
/** PATH_MAX without its NUL. */
const MAX_TARGET_SIZE = 4095
/** XATTR_NAME_MAX, XATTR_SIZE_MAX and XATTR_LIST_MAX of linux/limits.h. */
const MAX_XATTR_NAME_SIZE = 255
const MAX_XATTR_VALUE_SIZE = 65536
const MAX_XATTR_LIST_SIZE = 65536
const MAX_OWNER = 2 ** 32 - 1

const USER_OPAQUE_XATTR = 'user.overlay.opaque'

const TYPES: Readonly<Record<NodeType, number>> = {
  reg: at.TYPE_FILE,
  dir: at.TYPE_DIRECTORY,
  char: 0o020000,
  block: 0o060000,
  fifo: 0o010000,
  symlink: 0o120000,
}

export interface EncodeTreeOptions {
  readonly opaque: OpaqueMarks
  /** Bytes of the device that has the files' data. */
  readonly dataSize: number
}

/** Inodes in their order, and the entries that lead to them. */
interface Numbered {
  readonly nodes: FileNode[]
  readonly links: number[]
  readonly parents: number[]
  /** Of directories: their first entry. */
  readonly first: number[]
  readonly ends: number[]
  readonly targets: number[]
  readonly bytes: ByteSink
}

/**
 * Encodes the tree of one layer. Throws `unsupported` for a tree that Linux could not hold, so that a hostile layer is
 * refused as a whole instead of having directories that cannot be read; `invalid-argument` for files whose data lie beyond
 * the device.
 */
export function encodeTree(root: DirectoryNode, options: EncodeTreeOptions): SharedArrayBuffer {
  const numbered = numberInodes(root)
  const {nodes, ends, targets, bytes} = numbered
  const words = encodeInodes(numbered, options)
  const hasXattrs = nodes.some((_, index) => words[index * at.INODE_WORDS + at.XATTRS] !== 0)
  const {endsAt, targetsAt, bytesAt, size} = at.layOutTable(nodes.length, ends.length, bytes.size)
  const buffer = new SharedArrayBuffer(size)
  new Uint32Array(buffer, 0, at.HEADER_WORDS).set([nodes.length, ends.length, bytes.size, hasXattrs ? 1 : 0])
  new Uint32Array(buffer, 4 * at.HEADER_WORDS, words.length).set(words)
  new Uint32Array(buffer, endsAt, ends.length).set(ends)
  new Uint32Array(buffer, targetsAt, targets.length).set(targets)
  new Uint8Array(buffer, bytesAt).set(bytes.written())
  return buffer
}

/** Every inode once, hard links counted, and the names of all directories. */
function numberInodes(root: DirectoryNode): Numbered {
  const numbers = new Map<FileNode, number>([[root, 0]])
  const numbered: Numbered = {
    nodes: [root],
    links: [2],
    parents: [0],
    first: [],
    ends: [],
    targets: [],
    bytes: byteSink(),
  }
  const {nodes, links, parents, first, ends, targets, bytes} = numbered
  for (let index = 0; index < nodes.length; index++) {
    const node = nodes[index]!
    first.push(ends.length)
    if (node.type !== 'dir') continue
    for (const [name, child] of sortedChildren(node)) {
      let number = numbers.get(child)
      if (number === undefined) {
        number = nodes.length
        if (number === MAX_INODES) refuse(`more than ${MAX_INODES} files`)
        numbers.set(child, number)
        nodes.push(child)
        links.push(child.type === 'dir' ? 1 : 0)
        parents.push(index)
      } else if (child.type === 'dir') {
        refuse('a directory with two names')
      }
      links[number]!++
      // A subdirectory's `..` is a link, too.
      if (child.type === 'dir') links[index]!++
      bytes.append(name)
      ends.push(bytes.size)
      targets.push(number)
    }
  }
  return numbered
}

function sortedChildren(directory: DirectoryNode): (readonly [Uint8Array, FileNode])[] {
  return Array.from(directory.children, ([text, node]) => [nameOf(text), node] as const).sort(
    ([left], [right]) => Buffer.compare(left, right),
  )
}

function nameOf(text: string): Uint8Array {
  const name = encodeByteText(text)
  if (name.length === 0 || name.length > MAX_NAME_SIZE) refuse(`a name of ${name.length} bytes`)
  if (text === '.' || text === '..' || name.includes(0x2f) || name.includes(0)) {
    refuse('a name that no directory can have')
  }
  return name
}

function encodeInodes(numbered: Numbered, {opaque, dataSize}: EncodeTreeOptions): Uint32Array {
  const {nodes, links, parents, first, ends, bytes} = numbered
  const words = new Uint32Array(nodes.length * at.INODE_WORDS)
  const xattrs = xattrPlaces(bytes)
  for (const [index, node] of nodes.entries()) {
    const inode = index * at.INODE_WORDS
    const put64 = (field: number, value: number) => {
      words[inode + field] = value >>> 0
      words[inode + field + 1] = Math.floor(value / 2 ** 32)
    }
    checkOwners(node)
    words[inode + at.MODE] = TYPES[node.type] | (node.mode & 0o7777)
    words[inode + at.LINKS] = links[index]!
    words[inode + at.UID] = node.uid
    words[inode + at.GID] = node.gid
    put64(at.MTIME, node.mtimeSeconds)
    words[inode + at.MTIME_NANOSECONDS] = node.mtimeNanoseconds
    words[inode + at.PARENT] = parents[index]!
    words[inode + at.XATTRS] = xattrs(marked(node, opaque))
    switch (node.type) {
      case 'dir':
        words[inode + at.FIRST] = first[index]!
        words[inode + at.COUNT] = (first[index + 1] ?? ends.length) - first[index]!
        break
      case 'reg':
        checkData(node, dataSize)
        put64(at.SIZE, node.size)
        put64(at.FIRST, node.dataOffset)
        break
      case 'symlink': {
        const target = encodeByteText(node.linkName)
        if (target.length > MAX_TARGET_SIZE) refuse(`a symlink to a path of ${target.length} bytes`)
        put64(at.SIZE, target.length)
        words[inode + at.FIRST] = bytes.size
        words[inode + at.COUNT] = target.length
        bytes.append(target)
        break
      }
      case 'char':
      case 'block':
        checkDevice(node)
        words[inode + at.FIRST] = node.devMajor
        words[inode + at.COUNT] = node.devMinor
    }
  }
  return words
}

/** The extended attributes of a node, with the opaque mark under the names that overlayfs will look for. */
function marked(node: FileNode, opaque: OpaqueMarks): ReadonlyMap<string, Uint8Array> | undefined {
  const mark = node.xattrs?.get(OPAQUE_XATTR)
  if (mark === undefined || opaque === 'trusted') return node.xattrs
  const xattrs = new Map(node.xattrs).set(USER_OPAQUE_XATTR, mark)
  if (opaque === 'user') xattrs.delete(OPAQUE_XATTR)
  return xattrs
}

/** Appends lists of extended attributes to `bytes`, equal ones once (SELinux gives every file one). */
function xattrPlaces(bytes: ByteSink) {
  const places = new Map<string, number>()
  return (xattrs: ReadonlyMap<string, Uint8Array> | undefined): number => {
    if (xattrs === undefined || xattrs.size === 0) return 0
    const list = encodeXattrs(xattrs)
    const key = Buffer.from(list.buffer, list.byteOffset, list.byteLength).toString('latin1')
    const known = places.get(key)
    if (known !== undefined) return known
    const place = bytes.size + 1
    bytes.append(list)
    places.set(key, place)
    return place
  }
}

/** Each: size of the name (16 bits) and of the value (32 bits), name, value. */
function encodeXattrs(xattrs: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const list = byteSink()
  let namesSize = 0
  for (const [text, value] of xattrs) {
    const name = encodeByteText(text)
    namesSize += name.length + 1
    if (name.length === 0 || name.length > MAX_XATTR_NAME_SIZE || name.includes(0)) {
      refuse(`an extended attribute with a name of ${name.length} bytes`)
    }
    if (value.length > MAX_XATTR_VALUE_SIZE) refuse(`an extended attribute of ${value.length} bytes`)
    const header = new DataView(new ArrayBuffer(at.XATTR_HEADER_SIZE))
    header.setUint16(0, name.length, true)
    header.setUint32(2, value.length, true)
    for (const part of [new Uint8Array(header.buffer), name, value]) list.append(part)
  }
  if (namesSize > MAX_XATTR_LIST_SIZE)
    refuse(`${namesSize} bytes of names of extended attributes of one file`)
  list.append(new Uint8Array(2))
  return list.written()
}

/** Linux's device numbers have 12 bits of major and 20 of minor. */
function checkDevice({devMajor, devMinor}: FileNode): void {
  if (devMajor >= 2 ** 12 || devMinor >= 2 ** 20) refuse(`a device ${devMajor}:${devMinor}`)
}

function checkOwners({uid, gid}: FileNode): void {
  for (const owner of [uid, gid]) {
    if (!(owner >= 0 && owner <= MAX_OWNER)) refuse(`a file of user or group ${owner}`)
  }
}

function checkData({size, dataOffset}: FileNode, dataSize: number): void {
  if (size === 0 || (dataOffset >= 0 && size > 0 && dataOffset + size <= dataSize)) return
  throw new CodedError(
    'invalid-argument',
    `Cannot serve ${size} bytes at ${dataOffset}: the data end at ${dataSize}`,
  )
}

interface ByteSink {
  readonly size: number
  append(bytes: Uint8Array): void
  /** What has been appended; valid until the next append. */
  written(): Uint8Array
}

function byteSink(): ByteSink {
  let buffer = new Uint8Array(256)
  let size = 0
  return {
    get size() {
      return size
    },
    append: bytes => {
      if (size + bytes.length > MAX_BYTES) refuse('names and attributes of more than 4 GiB')
      if (size + bytes.length > buffer.length) {
        const larger = new Uint8Array(Math.max(2 * buffer.length, size + bytes.length))
        larger.set(buffer.subarray(0, size))
        buffer = larger
      }
      buffer.set(bytes, size)
      size += bytes.length
    },
    written: () => buffer.subarray(0, size),
  }
}

function refuse(what: string): never {
  throw new CodedError('unsupported', `Cannot serve a layer's files: it has ${what}`)
}
