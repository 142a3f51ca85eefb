// The members of an archive, found by reading its headers only; their payloads stay in the file.

import {type FileHandle, open} from 'node:fs/promises'
import {posix} from 'node:path'
import {readFully} from '../blob/file-blob.ts'
import {CodedError, codeOf, messageOf} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {TarScanner} from '../tar/scanner.ts'
import {DEFAULT_TAR_LIMITS, payloadOffsetOf, type TarEntry} from '../tar/tar-entry.ts'

/** Where a member's payload is in the file, bytes. */
export interface Member {
  readonly offset: number
  readonly size: number
}

/** The regular files of an archive, by cleaned name. */
export interface ArchiveMembers {
  /** The file that holds them, and how to call it in messages. */
  readonly file: string
  readonly where: string
  /** Follows links inside the archive; undefined when there is no such file. Throws `corrupt` for links in circles. */
  find(name: string): Member | undefined
}

/** An archive of an image has three members a layer at most, and `ctr` puts hundreds of images in one. */
const MAX_MEMBERS = 200_000
/** Docker's links lead straight to a file; more hops than this are a trap. */
const MAX_LINKS = 8
const READ_SIZE = 64 * 1024

/**
 * Reads the headers of the tar in `file`. Throws `corrupt` for one that is truncated, names a file twice, or names one
 * outside of itself: which of two files is meant differs between readers, and so between a scanner and what runs.
 */
export async function readArchiveMembers(
  file: string,
  where: string,
  options: CallOptions,
): Promise<ArchiveMembers> {
  const members = new Map<string, Member | {readonly link: string}>()
  const add = (entry: TarEntry): void => {
    if (entry.type === 'dir') return
    if (members.has(entry.path)) {
      throw new CodedError('corrupt', `Cannot use ${where}: it holds "${entry.path}" twice`)
    }
    members.set(entry.path, memberOf(entry))
  }
  await using handle = await open(file, 'r')
  await scanHeaders(handle, where, add, options)
  return {
    file,
    where,
    find(name) {
      let found = members.get(posix.normalize(name))
      for (let hops = 0; found && 'link' in found; hops++) {
        if (hops === MAX_LINKS) {
          throw new CodedError('corrupt', `Cannot use ${where}: the links from "${name}" do not end`)
        }
        found = members.get(found.link)
      }
      return found
    },
  }
}

/** The bytes of a small member; throws `corrupt` when it is missing or larger than `limit`. */
export async function readMember(members: ArchiveMembers, name: string, limit: number): Promise<Buffer> {
  const member = members.find(name)
  if (!member) throw new CodedError('corrupt', `Cannot use ${members.where}: it lacks "${name}"`)
  if (member.size > limit) {
    throw new CodedError(
      'corrupt',
      `Cannot read "${name}" in ${members.where}: ${member.size} bytes exceed the limit of ${limit}`,
    )
  }
  await using file = await open(members.file, 'r')
  return await readFully(file, member.offset, member.size, members.where)
}

/** A symbolic link is relative to its directory, a hard link to the archive. Devices have no payload, and no use. */
function memberOf(entry: TarEntry): Member | {readonly link: string} {
  switch (entry.type) {
    case 'symlink':
      return {link: posix.normalize(posix.join(posix.dirname(entry.path), entry.linkName))}
    case 'hardlink':
      return {link: posix.normalize(entry.linkName)}
    default:
      return {offset: payloadOffsetOf(entry), size: entry.size}
  }
}

/** Feeds a scanner with the headers, and with zeros where payloads are: it only counts those. */
async function scanHeaders(
  handle: FileHandle,
  where: string,
  onEntry: (entry: TarEntry) => void,
  {signal}: CallOptions,
): Promise<void> {
  const {size} = await handle.stat()
  let payloadEnd = 0
  const entries: TarEntry[] = []
  const scanner = new TarScanner(entry => entries.push(entry), {
    limits: {...DEFAULT_TAR_LIMITS, entries: MAX_MEMBERS},
  })
  const push = (bytes: Uint8Array): void => {
    naming(where, () => scanner.push(bytes))
    for (const entry of entries.splice(0)) {
      onEntry(entry)
      payloadEnd = payloadOffsetOf(entry) + entry.size
      if (payloadEnd > size) {
        throw new CodedError('corrupt', `Cannot use ${where}: it is truncated, inside "${entry.path}"`)
      }
    }
  }
  const zeros = Buffer.alloc(1024 * 1024)
  for (let offset = 0; offset < size; ) {
    signal?.throwIfAborted()
    if (offset < payloadEnd) {
      const skipped = Math.min(payloadEnd - offset, zeros.length)
      push(zeros.subarray(0, skipped))
      offset += skipped
    } else {
      const bytes = await readFully(handle, offset, Math.min(READ_SIZE, size - offset), where)
      push(bytes)
      offset += bytes.length
    }
  }
  naming(where, () => scanner.end())
}

/** Runs a step of a scanner, whose errors do not say what it reads. */
function naming(where: string, step: () => unknown): void {
  try {
    step()
  } catch (cause) {
    throw new CodedError(codeOf(cause), `Cannot use ${where}: ${messageOf(cause)}`, {cause})
  }
}
