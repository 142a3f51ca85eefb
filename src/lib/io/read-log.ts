// What is read of a device: noted by whichever thread answers a read, told to whoever asks.

import {type ChunkBitmap, createChunkBitmap, wrapChunkBitmap} from './chunk-bitmap.ts'

/** The memory of a log, which worker threads share. */
export interface ReadLogMemory {
  /** Blocks of the device. */
  readonly blockCount: number
  /** One 64-bit number. */
  readonly hits: SharedArrayBuffer
  readonly touched: SharedArrayBuffer
}

/** Every method may be called from any thread. */
export interface ReadLog {
  readonly memory: ReadLogMemory
  /** Notes a read of the blocks from `first` to `last`; a hit is one that needed nothing to be fetched. */
  note(first: number, last: number, hit: boolean): void
  /** How many reads were hits. */
  hits(): number
  /** Whether a block was ever read. */
  isTouched(block: number): boolean
  /** How many blocks were ever read. */
  touched(): number
}

export function createReadLog(blockCount: number): ReadLog {
  const hits = new SharedArrayBuffer(BigInt64Array.BYTES_PER_ELEMENT)
  return openReadLog({blockCount, hits, touched: createChunkBitmap(blockCount).buffer})
}

export function openReadLog(memory: ReadLogMemory): ReadLog {
  const hits = new BigInt64Array(memory.hits)
  const touched: ChunkBitmap = wrapChunkBitmap(memory.touched, memory.blockCount)
  return {
    memory,
    note: (first, last, hit) => {
      if (hit) Atomics.add(hits, 0, 1n)
      for (let block = first; block <= last; block++) if (!touched.has(block)) touched.add(block)
    },
    hits: () => Number(Atomics.load(hits, 0)),
    isTouched: block => touched.has(block),
    touched: () => touched.count(),
  }
}
