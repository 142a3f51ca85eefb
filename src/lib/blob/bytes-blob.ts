// A blob that is in memory.

import {CodedError} from '../errors/coded-error.ts'
import type {OpenBlob} from '../oci/content-store.ts'

/** Opens bytes that have been verified already; `where` names them in messages. */
export function openBytesBlob(bytes: Uint8Array, where: string): OpenBlob {
  return {
    size: bytes.length,
    async read(offset, length) {
      if (!(offset >= 0 && length >= 0 && offset + length <= bytes.length)) {
        throw new CodedError(
          'invalid-argument',
          `Cannot read ${length} bytes at ${offset} of ${where}: it has ${bytes.length}`,
        )
      }
      return bytes.subarray(offset, offset + length)
    },
    async *stream() {
      yield bytes
    },
    [Symbol.asyncDispose]: async () => undefined,
  }
}
