// What a tar archive says about one file, and the limits on what we believe of it.

/** The kinds of file that a layer holds, in the words of the eStargz TOC. */
export type TarEntryType = 'reg' | 'dir' | 'symlink' | 'hardlink' | 'char' | 'block' | 'fifo'

/** One archive member. Offsets and sizes are bytes of the decompressed tar stream. */
export interface TarEntry {
  readonly type: TarEntryType
  /** As in the archive, e.g. `./d/`; bytes that are not UTF-8 are escaped (`io/byte-text.ts`). */
  readonly name: string
  /** `name` cleaned to a relative path without `.`, `..` and slashes at the ends; empty for the root. */
  readonly path: string
  /** Target of a symlink, or of a hard link (then a path of the same archive); else empty. */
  readonly linkName: string
  /** Permission, set-id and sticky bits, and whatever else the archive's mode field holds. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly userName: string
  readonly groupName: string
  /** Modification time: whole seconds since the epoch (may be negative), and nanoseconds 0–999999999 after them. */
  readonly mtimeSeconds: number
  readonly mtimeNanoseconds: number
  /** Times of the last access and change, which few archives have. */
  readonly accessTime?: TarTime
  readonly changeTime?: TarTime
  readonly devMajor: number
  readonly devMinor: number
  /** Extended attributes with their exact bytes; undefined when there are none. */
  readonly xattrs: ReadonlyMap<string, Uint8Array> | undefined
  /** All header blocks of this entry, PAX and GNU long-name blocks included. The payload follows them. */
  readonly headerOffset: number
  readonly headerSize: number
  /**
   * The header to write in place of the source's when the entry is taken out of its place: present when global PAX
   * records apply to it, which are folded into its own.
   */
  readonly foldedHeader: Uint8Array | undefined
  /** Payload size; 0 unless `type` is `reg`. */
  readonly size: number
  /** Of a sparse file, whose payload in the archive has only some of its bytes. */
  readonly sparse?: SparsePayload
}

/** How to make a plain file of a sparse one. */
export interface SparsePayload {
  readonly map: SparseMap
  /** All headers of the plain file. */
  readonly header: Uint8Array
}

/** The stretches of a file that have data, in their order; all else is zeros. Bytes. */
export interface SparseMap {
  readonly offsets: readonly number[]
  readonly sizes: readonly number[]
  /** Of the whole file. */
  readonly realSize: number
}

/** Whole seconds since the epoch (may be negative), and nanoseconds 0–999999999 after them. */
export interface TarTime {
  readonly seconds: number
  readonly nanoseconds: number
}

/** Where the payload of an entry starts. */
export function payloadOffsetOf(entry: TarEntry): number {
  return entry.headerOffset + entry.headerSize
}

/** `size` rounded up to whole 512-byte blocks. */
export function blockAligned(size: number): number {
  return Math.ceil(size / BLOCK_SIZE) * BLOCK_SIZE
}

/** Tar is made of blocks of this many bytes (POSIX.1-1988). */
export const BLOCK_SIZE = 512

/** Limits of one archive. Real layers stay far below each; hostile ones meet a clear error instead of our memory. */
export interface TarLimits {
  /** Files in one layer. The largest seen in public registries have about a million; each costs ~400 bytes here. */
  readonly entries: number
  /** Bytes of a path or link target: Linux's PATH_MAX, beyond which nothing can unpack it. */
  readonly pathSize: number
  /** Bytes of one path component: Linux's NAME_MAX. */
  readonly nameSize: number
  /** Directories above a file; unpackers and trees recurse. PATH_MAX alone would allow 2047. */
  readonly depth: number
  /** Bytes of one PAX or GNU extension payload. Go's archive/tar, which reads every image, stops at 1 MiB too. */
  readonly extensionSize: number
  /** Bytes of one extended attribute's value: Linux's XATTR_SIZE_MAX. */
  readonly xattrSize: number
}

export const DEFAULT_TAR_LIMITS: TarLimits = {
  entries: 4_000_000,
  pathSize: 4096,
  nameSize: 255,
  depth: 1024,
  extensionSize: 1 << 20,
  xattrSize: 65_536,
}
