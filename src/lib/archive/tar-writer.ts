// Writes archives of images: plain members in the order they are given, the same bytes for the same members.

import {once} from 'node:events'
import {createReadStream} from 'node:fs'
import {type Pack, pack} from 'tar-stream'
import {CodedError} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import type {CallOptions} from '../oci/content-store.ts'

/** A member of an archive: bytes, or a whole file of known size. */
export type MemberToWrite =
  | {readonly name: string; readonly bytes: Uint8Array}
  | {readonly name: string; readonly file: string; readonly size: number}

const CHUNK_SIZE = 1024 * 1024

/** Writes a tar of `members` to `output`, which stays open. Names are ASCII, under 100 bytes. */
export async function writeTar(
  members: Iterable<MemberToWrite> | AsyncIterable<MemberToWrite>,
  output: {write(bytes: Uint8Array): Promise<void>},
  options: CallOptions,
): Promise<void> {
  const tar = pack()
  const abort = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, abort.signal]) : abort.signal
  const adding = addMembers(tar, members, signal).catch(error => void tar.destroy(error))
  try {
    for await (const chunk of tar as AsyncIterable<Uint8Array>) await output.write(chunk)
  } finally {
    abort.abort()
    await adding
  }
}

async function addMembers(
  tar: Pack,
  members: Iterable<MemberToWrite> | AsyncIterable<MemberToWrite>,
  signal: AbortSignal,
): Promise<void> {
  for await (const member of members) {
    signal.throwIfAborted()
    const size = 'bytes' in member ? member.bytes.length : member.size
    const header = {name: member.name, size, mode: 0o644, mtime: new Date(0)}
    const written = Promise.withResolvers<void>()
    const entry = tar.entry(header, error => (error ? written.reject(error) : written.resolve()))
    // What fails is heard of where it is waited for.
    entry.on('error', written.reject)
    written.promise.catch(() => {})
    if ('bytes' in member) {
      entry.end(member.bytes)
    } else {
      let left = size
      for await (const chunk of createReadStream(member.file, {highWaterMark: CHUNK_SIZE, signal})) {
        left -= chunk.length
        if (left >= 0 && !entry.write(chunk)) await once(entry, 'drain', {signal})
      }
      if (left !== 0) throw new CodedError('corrupt', `Cannot archive "${member.file}": its size has changed`)
      entry.end(undefined)
    }
    await raceAbort(written.promise, signal)
  }
  tar.finalize()
}
