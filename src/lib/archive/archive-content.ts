// The blobs of an archive as a content store for reading.

import {openFileBlob} from '../blob/file-blob.ts'
import {verifyStream} from '../blob/verified-stream.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions, ContentStore, OpenBlob} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {Member} from './archive-members.ts'

/** A blob is a stretch of the archive, or was made from it. */
export type ArchivedBlob = Member | Uint8Array

export interface ArchiveContent {
  readonly file: string
  /** For messages. */
  readonly name: string
  find(digest: Digest): ArchivedBlob | undefined
}

export function createArchiveContent({file, name, find}: ArchiveContent): ContentStore {
  const readOnly = async (): Promise<never> => {
    throw new CodedError('unsupported', `Cannot write to ${name}: an archive is written as a whole`)
  }
  return {
    name,
    async info({digest}, {signal} = {}) {
      signal?.throwIfAborted()
      const blob = find(digest)
      return blob && {digest, size: sizeOf(blob), labels: {}}
    },
    async open(descriptor, {signal} = {}) {
      signal?.throwIfAborted()
      const blob = find(descriptor.digest)
      if (!blob) throw new CodedError('not-found', `Cannot find ${descriptor.digest} in ${name}`)
      if (sizeOf(blob) !== descriptor.size) {
        throw new CodedError(
          'corrupt',
          `Cannot use ${descriptor.digest} in ${name}: it has ${sizeOf(blob)} bytes instead of ${descriptor.size}`,
        )
      }
      return blob instanceof Uint8Array
        ? bytesBlob(blob, descriptor, name)
        : openFileBlob(file, descriptor, {where: name, offset: blob.offset})
    },
    write: readOnly,
    setLabels: readOnly,
  }
}

function sizeOf(blob: ArchivedBlob): number {
  return blob instanceof Uint8Array ? blob.length : blob.size
}

function bytesBlob(bytes: Uint8Array, descriptor: Descriptor, where: string): OpenBlob {
  async function* chunks({signal}: CallOptions): AsyncGenerator<Uint8Array> {
    signal?.throwIfAborted()
    yield bytes
  }
  return {
    size: bytes.length,
    async read(offset, length, {signal} = {}) {
      signal?.throwIfAborted()
      if (offset < 0 || length < 0 || offset + length > bytes.length) {
        throw new CodedError(
          'invalid-argument',
          `Cannot read ${length} bytes at offset ${offset} of ${descriptor.digest} in ${where}: it has ${bytes.length}`,
        )
      }
      return bytes.slice(offset, offset + length)
    },
    stream: (options = {}) => verifyStream(chunks(options), descriptor, where),
    async [Symbol.asyncDispose]() {},
  }
}
