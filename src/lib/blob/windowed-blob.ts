// A blob read in large windows, for readers that ask for many small ranges one after the other: a request to a registry
// costs the same for a kilobyte as for a megabyte.

import type {BlobSource, CallOptions} from '../oci/content-store.ts'

/** Bytes of a window. */
const WINDOW_SIZE = 4 << 20
/** Windows kept: one that is being used up, those that are read ahead, and some for reads out of order. */
const MAX_WINDOWS = 6

/**
 * `blob`, read window by window. Reads near each other share a window, also while it is under way. An abort of one read
 * fails those that wait for the same window, so use it where all reads have one signal.
 */
export function windowedBlob(blob: BlobSource): BlobSource {
  /** By index, least recently used first. */
  const windows = new Map<number, Promise<Uint8Array>>()

  function windowAt(index: number, options: CallOptions): Promise<Uint8Array> {
    const known = windows.get(index)
    const offset = index * WINDOW_SIZE
    const window = known ?? blob.read(offset, Math.min(WINDOW_SIZE, blob.size - offset), options)
    windows.delete(index)
    windows.set(index, window)
    // A failed read is tried again by whoever asks next.
    window.catch(() => windows.delete(index))
    const [oldest] = windows.keys()
    if (windows.size > MAX_WINDOWS && oldest !== undefined) windows.delete(oldest)
    return window
  }

  async function read(offset: number, length: number, options: CallOptions = {}): Promise<Uint8Array> {
    if (length > WINDOW_SIZE || offset < 0 || length < 0 || offset + length > blob.size) {
      return blob.read(offset, length, options)
    }
    const first = Math.floor(offset / WINDOW_SIZE)
    const last = Math.floor((offset + Math.max(1, length) - 1) / WINDOW_SIZE)
    if (length === 0) return new Uint8Array(0)
    const skip = offset - first * WINDOW_SIZE
    if (first === last) return (await windowAt(first, options)).subarray(skip, skip + length)
    const [head, tail] = await Promise.all([windowAt(first, options), windowAt(last, options)])
    const bytes = new Uint8Array(length)
    bytes.set(head.subarray(skip))
    bytes.set(tail.subarray(0, length - (head.length - skip)), head.length - skip)
    return bytes
  }

  return {size: blob.size, read}
}
