// Skippable frames (RFC 8878 section 3.1.2): what a zstd decompressor passes over, so that a TOC can follow a tar.
//
//   50 2a 4d 18  magic number, little-endian      u32, little-endian: size of what follows

/** Bytes before the payload. */
export const SKIPPABLE_HEADER_SIZE = 8

/** The header of a skippable frame of `size` bytes. */
export function encodeSkippableHeader(size: number): Uint8Array {
  const header = Uint8Array.of(0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0)
  new DataView(header.buffer).setUint32(4, size, true)
  return header
}
