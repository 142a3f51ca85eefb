// Writes archives of images: plain members in the order they are given, the same bytes for the same members.

import {type FileHandle, open} from 'node:fs/promises'
import {readFully} from '../io/file-blob.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {encodeHeaderBlock} from '../tar/header.ts'
import {encodePaxHeader} from '../tar/pax.ts'
import {BLOCK_SIZE, blockAligned} from '../tar/tar-entry.ts'

/** A member of an archive: bytes, or a whole file of known size. */
export type MemberToWrite =
  | {readonly name: string; readonly bytes: Uint8Array}
  | {readonly name: string; readonly file: string; readonly size: number}

const CHUNK_SIZE = 1024 * 1024
/** What the 11 octal digits of a ustar size field hold; larger members say their size in a PAX record. */
const MAX_USTAR_SIZE = 8 ** 11 - 1
/** POSIX ends an archive with two zero blocks. */
const END_OF_ARCHIVE = new Uint8Array(2 * BLOCK_SIZE)

/** Writes a tar of `members` at the current position of `output`, which stays open. Names are ASCII, under 100 bytes. */
export async function writeTar(
  members: Iterable<MemberToWrite> | AsyncIterable<MemberToWrite>,
  output: FileHandle,
  options: CallOptions,
): Promise<void> {
  for await (const member of members) {
    const size = 'bytes' in member ? member.bytes.length : member.size
    await output.writeFile(encodeHeader(member.name, size))
    if ('bytes' in member) await output.writeFile(member.bytes)
    else await copyFile(member.file, size, output, options)
    await output.writeFile(new Uint8Array(blockAligned(size) - size))
  }
  await output.writeFile(END_OF_ARCHIVE)
}

function encodeHeader(name: string, size: number): Uint8Array {
  const header = {name, typeflag: '0', mode: 0o644}
  if (size <= MAX_USTAR_SIZE) return encodeHeaderBlock({...header, size})
  const pax = encodePaxHeader(new Map([['size', Buffer.from(String(size))]]))
  return Buffer.concat([pax, encodeHeaderBlock({...header, size: 0})])
}

async function copyFile(
  path: string,
  size: number,
  output: FileHandle,
  {signal}: CallOptions,
): Promise<void> {
  await using input = await open(path, 'r')
  for (let offset = 0; offset < size; offset += CHUNK_SIZE) {
    signal?.throwIfAborted()
    await output.writeFile(await readFully(input, offset, Math.min(CHUNK_SIZE, size - offset), `"${path}"`))
  }
}
