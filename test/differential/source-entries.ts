// The entries of a source, sparse files among them, and their contents.

import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import {TarScanner} from '../../src/lib/tar/scanner.ts'
import {payloadOffsetOf, type TarEntry} from '../../src/lib/tar/tar-entry.ts'

export function sourceEntries(tar: Uint8Array): TarEntry[] {
  const entries: TarEntry[] = []
  const scanner = new TarScanner(entry => entries.push(entry), {takesSparse: true})
  scanner.push(tar)
  scanner.end()
  return entries
}

/** Of the file as it is when it is unpacked. */
export function contentsDigest(entry: TarEntry, tar: Uint8Array): Digest {
  const start = payloadOffsetOf(entry)
  if (!entry.sparse) return digestOf(tar.subarray(start, start + entry.size))
  const {offsets, sizes, realSize} = entry.sparse.map
  const contents = new Uint8Array(realSize)
  let at = start
  for (const [index, size] of sizes.entries()) {
    contents.set(tar.subarray(at, at + size), offsets[index]!)
    at += size
  }
  return digestOf(contents)
}
