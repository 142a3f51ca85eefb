// A blob whose end is in memory: opening a layer reads only there, so it needs no further requests.

import type {BlobSource, CallOptions} from '../oci/content-store.ts'

export interface TailBlob extends BlobSource {
  /** The blob's end as far as it has been read. */
  tail(): Uint8Array
  /** The blob itself, without what is in memory. */
  readonly whole: BlobSource
}

/** `blob` with its last bytes, `tail`. Reads that start before them fetch what is missing, and are remembered. */
export function withTail(blob: BlobSource, tail: Uint8Array): TailBlob {
  let known = tail

  async function read(offset: number, length: number, options: CallOptions = {}): Promise<Uint8Array> {
    const start = blob.size - known.length
    if (offset + length <= start) return blob.read(offset, length, options)
    if (offset < start) {
      const missing = await blob.read(offset, start - offset, options)
      // Meanwhile another read may have got further.
      if (blob.size - known.length > offset)
        known = Buffer.concat([missing, known.subarray(-tailSize(start))])
    }
    const at = offset - (blob.size - known.length)
    return known.subarray(at, at + length)
  }

  const tailSize = (start: number) => blob.size - start
  return {size: blob.size, read, tail: () => known, whole: blob}
}
