// The port between layer formats, which decide what is compressed, and the code that compresses and hashes in bulk.

/** The decompressed source layer: an open file descriptor, or bytes in memory. `size` is in bytes. */
export interface Spool {
  readonly size: number
  readonly storage: number | Uint8Array
}

/** Bytes that are written from start to end, and then read anywhere. Whoever makes one closes it. */
export interface SpoolWriter {
  /** The bytes may be reused when it resolves. Throws `unavailable` when the disk is full. */
  write(bytes: Uint8Array): Promise<void>
  finish(): Promise<Spool>
  close(): Promise<void>
}

/**
 * Many byte strings, described without copying them. String `i` is the concatenation of `counts[i]` consecutive
 * pieces; piece `j` is `sizes[j]` bytes at `offsets[j]` of the spool, or, where `offsets[j]` is negative, at
 * `-1 - offsets[j]` of `literals`.
 */
export interface PieceLists {
  readonly literals: Uint8Array
  readonly offsets: Float64Array
  readonly sizes: Float64Array
  readonly counts: Uint32Array
}

export interface CompressedMembers {
  /** The compressed members, one after the other. */
  readonly bytes: Uint8Array
  /** Their sizes in bytes, in the order of the lists. */
  readonly sizes: Uint32Array
}

/** How one member is framed: an RFC 1952 gzip member, or an RFC 8878 zstd frame. */
export type MemberKind = 'gzip' | 'zstd'

/** Streams of a lazily read layer and the chunks in them; offsets and sizes are bytes. */
export interface StreamPlaces {
  /** Four numbers for each stream: where in the bytes it starts and ends, how much of its output is wanted, how many chunks it has. */
  readonly streams: Float64Array
  /** Three for each chunk, in the order of the streams: where in the output it starts, its size, where in the file it goes. */
  readonly chunks: Float64Array
  /** SHA-256 of each chunk, 32 bytes after 32 bytes; undefined when nothing is verified. */
  readonly hashes: Uint8Array | undefined
}

/** A SHA-256 whose updates run off the main thread, one after the other, in the order of the calls. */
export interface StreamDigester {
  /** Resolves when the bytes have been hashed and may be reused. */
  update(bytes: Uint8Array): Promise<void>
  /** Hashes pieces in order, as if concatenated. */
  updatePieces(spool: Spool, pieces: PieceLists): Promise<void>
  /** The 32 hash bytes; ends the digester. */
  digest(): Promise<Uint8Array>
}

/**
 * Bulk compression and hashing. Calls run in parallel on a thread pool; the bytes they make are a function of their
 * arguments alone. A gzip member has MTIME 0, XFL 0, OS 255, no name; a zstd frame carries its content size.
 */
export interface BulkCodec {
  /** `native` (libdeflate, libzstd) or `node` (node:zlib): they may produce different, equally valid bytes. */
  readonly name: 'native' | 'node'
  /** Compresses each list to one member. Levels are 0–12 for gzip, 1–22 for zstd; callers batch a few MiB a call. */
  compressMembers(
    kind: MemberKind,
    level: number,
    spool: Spool,
    members: PieceLists,
  ): Promise<CompressedMembers>
  /** The SHA-256 of each list, 32 bytes after 32 bytes. */
  hashPieces(spool: Spool, lists: PieceLists): Promise<Uint8Array>
  /** The CRC-64/GO-ISO of each list, 8 bytes after 8 bytes, each big-endian; that of nothing is 0. */
  checksumPieces(spool: Spool, lists: PieceLists): Promise<Uint8Array>
  /** All bytes of the lists, one after the other: at most 2 GiB. */
  readPieces(spool: Spool, lists: PieceLists): Promise<Uint8Array>
  createDigester(): StreamDigester
  /**
   * Decompresses streams, verifies their chunks and writes those to the open file `fd`, in one call. Resolves to a 1 for
   * each stream of which all has been written; whatever is not plain (damage, several members, a full disk) gets a 0,
   * and is for the caller to look at more closely. Undefined where there is no faster way than that.
   */
  readonly unpackStreams?:
    | ((kind: MemberKind, bytes: Uint8Array, places: StreamPlaces, fd: number) => Promise<Uint8Array>)
    | undefined
  /** One member, known to inflate to exactly `size` bytes; throws `corrupt`. Used for chunks and TOCs. */
  inflateMember(kind: MemberKind, bytes: Uint8Array, size: number): Promise<Uint8Array>
}
