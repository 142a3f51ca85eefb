// A content store in memory, for tests of what is written rather than where.

import {digestOf} from '../../src/lib/blob/sha256.ts'
import {verifyStream} from '../../src/lib/blob/verified-stream.ts'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import type {BlobSource, ContentStore, OpenBlob} from '../../src/lib/oci/content-store.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'

export interface MemoryContent extends ContentStore {
  readonly blobs: ReadonlyMap<Digest, Uint8Array>
}

export function memoryContent(): MemoryContent {
  const blobs = new Map<Digest, Uint8Array>()
  return {
    name: 'memory',
    blobs,
    async info({digest}) {
      const bytes = blobs.get(digest)
      return bytes && {digest, size: bytes.length, labels: {}}
    },
    async open(descriptor): Promise<OpenBlob> {
      const bytes = blobs.get(descriptor.digest)
      if (!bytes) throw new CodedError('not-found', `Cannot find ${descriptor.digest} in memory`)
      return {
        ...memoryBlob(bytes),
        stream: () => verifyStream(cut(bytes, 100_000), descriptor, 'memory'),
        async [Symbol.asyncDispose]() {},
      }
    },
    async write() {
      const parts: Uint8Array[] = []
      return {
        write: async bytes => void parts.push(Uint8Array.from(bytes)),
        async commit({digest, size}) {
          const bytes = Buffer.concat(parts)
          if (digestOf(bytes) !== digest || bytes.length !== size) {
            throw new CodedError(
              'corrupt',
              `Cannot write ${digest}: ${bytes.length} other bytes were written`,
            )
          }
          blobs.set(digest, bytes)
        },
        async [Symbol.asyncDispose]() {},
      }
    },
    async setLabels() {},
  }
}

/** Bytes as a blob. */
export function memoryBlob(bytes: Uint8Array): BlobSource {
  return {
    size: bytes.length,
    async read(offset, length) {
      if (offset < 0 || length < 0 || offset + length > bytes.length) {
        throw new CodedError(
          'invalid-argument',
          `Cannot read ${length} bytes at ${offset} of ${bytes.length}`,
        )
      }
      return bytes.subarray(offset, offset + length)
    },
  }
}

export async function* cut(bytes: Uint8Array, step: number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += step) yield bytes.subarray(at, at + step)
}
