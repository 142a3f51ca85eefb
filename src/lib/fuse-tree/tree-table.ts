// A layer's tree as tables in one SharedArrayBuffer: what worker threads answer the kernel from, without a copy of it each
// and without an object per file. 52 bytes an inode, 8 an entry, and the bytes of names, targets and attributes once.

/**
 * ```
 * header   8 words    inodes, entries, bytes, whether there are extended attributes, unused
 * inodes   13 words   each, see the fields below; inode 0 is the root
 * ends     1 word     each entry: where its name ends in the bytes; it starts where the one before ends
 * targets  1 word     each entry: the inode that it names
 * bytes               names of all entries in order, then symlinks' targets and lists of extended attributes
 * ```
 * The entries of a directory stand together, sorted by their names' bytes.
 */
export const HEADER_WORDS = 8
export const INODE_WORDS = 13

/** Words of an inode. Sizes, offsets and times have 64 bits, the lower word first. */
export const MODE = 0
export const LINKS = 1
export const UID = 2
export const GID = 3
export const MTIME = 4
export const MTIME_NANOSECONDS = 6
export const SIZE = 7
/** A file's data offset; a directory's first entry and how many; a symlink's target in the bytes and its size; a device's major and minor number. */
export const FIRST = 9
export const COUNT = 10
/** The directory in which an inode was found first; the root's is itself. */
export const PARENT = 11
/** Where the list of extended attributes is in the bytes, plus one; 0 for none. */
export const XATTRS = 12

/** S_IFMT of stat(2), and two of its types. */
export const TYPE_MASK = 0o170000
export const TYPE_DIRECTORY = 0o040000
export const TYPE_FILE = 0o100000

export interface TreeTable {
  readonly inodes: number
  readonly hasXattrs: boolean
  readonly words: Uint32Array
  readonly ends: Uint32Array
  readonly targets: Uint32Array
  readonly bytes: Uint8Array
}

/** What `findChild` says when there is no such name. */
export const NOT_FOUND = -1

/** Where each part of a table of that size starts, bytes, and how large it is. */
export function layOutTable(inodes: number, entries: number, bytes: number) {
  const endsAt = 4 * (HEADER_WORDS + INODE_WORDS * inodes)
  const targetsAt = endsAt + 4 * entries
  const bytesAt = targetsAt + 4 * entries
  return {endsAt, targetsAt, bytesAt, size: bytesAt + bytes}
}

/** The table that `encodeTree` made, as any thread sees it. */
export function openTreeTable(buffer: SharedArrayBuffer): TreeTable {
  const [inodes = 0, entries = 0, size = 0, hasXattrs = 0] = new Uint32Array(buffer, 0, HEADER_WORDS)
  const {endsAt, targetsAt, bytesAt} = layOutTable(inodes, entries, size)
  return {
    inodes,
    hasXattrs: hasXattrs !== 0,
    words: new Uint32Array(buffer, 4 * HEADER_WORDS, INODE_WORDS * inodes),
    ends: new Uint32Array(buffer, endsAt, entries),
    targets: new Uint32Array(buffer, targetsAt, entries),
    bytes: new Uint8Array(buffer, bytesAt, size),
  }
}

/** A word of an inode. */
export function wordOf(table: TreeTable, inode: number, field: number): number {
  return table.words[inode * INODE_WORDS + field]!
}

/** A field of 64 bits that is a size or an offset, so below 2^53. */
export function sizeOf(table: TreeTable, inode: number, field: number): number {
  return wordOf(table, inode, field) + wordOf(table, inode, field + 1) * 2 ** 32
}

/** The time of modification, seconds since the epoch: negative before it. */
export function secondsOf(table: TreeTable, inode: number): number {
  return wordOf(table, inode, MTIME) + (wordOf(table, inode, MTIME + 1) | 0) * 2 ** 32
}

export function isDirectory(table: TreeTable, inode: number): boolean {
  return (wordOf(table, inode, MODE) & TYPE_MASK) === TYPE_DIRECTORY
}

export function isFile(table: TreeTable, inode: number): boolean {
  return (wordOf(table, inode, MODE) & TYPE_MASK) === TYPE_FILE
}

/** Where the name of an entry starts in the bytes; `ends` says where it ends. */
export function nameStart(table: TreeTable, entry: number): number {
  return entry === 0 ? 0 : table.ends[entry - 1]!
}

/** The inode that `directory` has under a name, by bisection; NOT_FOUND for none. */
export function findChild(table: TreeTable, directory: number, name: Uint8Array): number {
  let low = wordOf(table, directory, FIRST)
  let high = low + wordOf(table, directory, COUNT)
  while (low < high) {
    const middle = (low + high) >>> 1
    const order = compareName(table, middle, name)
    if (order === 0) return table.targets[middle]!
    if (order < 0) low = middle + 1
    else high = middle
  }
  return NOT_FOUND
}

/** Negative when the entry's name sorts before `name`. */
function compareName(table: TreeTable, entry: number, name: Uint8Array): number {
  const start = nameStart(table, entry)
  const size = table.ends[entry]! - start
  const shared = Math.min(size, name.length)
  for (let at = 0; at < shared; at++) {
    const difference = table.bytes[start + at]! - name[at]!
    if (difference !== 0) return difference
  }
  return size - name.length
}

/** A symlink's target. */
export function linkTargetOf(table: TreeTable, inode: number): Uint8Array {
  const start = wordOf(table, inode, FIRST)
  return table.bytes.subarray(start, start + wordOf(table, inode, COUNT))
}

/** The names of an inode's extended attributes, each with a NUL behind it, as listxattr(2) gives them. */
export function xattrNamesOf(table: TreeTable, inode: number): Uint8Array {
  const names: Uint8Array[] = []
  for (const {name} of xattrsOf(table, inode)) names.push(name, Uint8Array.of(0))
  return Buffer.concat(names)
}

/** The value of an extended attribute; undefined when there is none of that name. */
export function xattrOf(table: TreeTable, inode: number, name: Uint8Array): Uint8Array | undefined {
  for (const xattr of xattrsOf(table, inode)) {
    if (Buffer.compare(xattr.name, name) === 0) return xattr.value
  }
  return undefined
}

/** Lists of extended attributes are made of these, and end with a name of size 0. */
export const XATTR_HEADER_SIZE = 6

function* xattrsOf(table: TreeTable, inode: number): Generator<{name: Uint8Array; value: Uint8Array}> {
  const place = wordOf(table, inode, XATTRS)
  if (place === 0) return
  const {bytes} = table
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  for (let at = place - 1; ; ) {
    const nameSize = view.getUint16(at, true)
    if (nameSize === 0) return
    const nameAt = at + XATTR_HEADER_SIZE
    const valueAt = nameAt + nameSize
    at = valueAt + view.getUint32(nameAt - 4, true)
    yield {name: bytes.subarray(nameAt, valueAt), value: bytes.subarray(valueAt, at)}
  }
}
