// Which chunks of a layer are in its data file: one bit each, in memory that worker threads share.

/** A set of chunk indexes that only grows. Every method may be called from any thread that has the buffer. */
export interface ChunkBitmap {
  /** Pass this to a worker, and wrap it there with `wrapChunkBitmap`. */
  readonly buffer: SharedArrayBuffer
  /** How many chunks the layer has. */
  readonly size: number
  has(index: number): boolean
  /** True when every chunk from `first` to `last`, both included, is there. */
  hasAll(first: number, last: number): boolean
  /** True when the bit was not set before. */
  add(index: number): boolean
  /** How many chunks are there. */
  count(): number
}

export function createChunkBitmap(size: number): ChunkBitmap {
  return wrapChunkBitmap(new SharedArrayBuffer(4 + 4 * Math.ceil(size / 32)), size)
}

/** The bitmap in `buffer`: word 0 counts the bits, the rest hold them. */
export function wrapChunkBitmap(buffer: SharedArrayBuffer, size: number): ChunkBitmap {
  const words = new Int32Array(buffer)
  const has = (index: number) => (Atomics.load(words, 1 + (index >>> 5)) & (1 << (index & 31))) !== 0
  return {
    buffer,
    size,
    has,
    hasAll: (first, last) => {
      for (let index = first; index <= last; index++) if (!has(index)) return false
      return true
    },
    add: index => {
      const bit = 1 << (index & 31)
      const fresh = (Atomics.or(words, 1 + (index >>> 5), bit) & bit) === 0
      if (fresh) Atomics.add(words, 0, 1)
      return fresh
    },
    count: () => Atomics.load(words, 0),
  }
}
