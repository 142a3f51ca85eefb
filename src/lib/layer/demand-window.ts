// How much to fetch with what a process waits for: little where it jumps about, more the longer it reads on in order.

/** Compressed bytes. */
const MIN_WINDOW = 128 << 10
const MAX_WINDOW = 4 << 20
/** A read that starts this close behind the last fetch goes on from there. */
const SLACK = 64 << 10

export interface DemandWindow {
  /** The size of the request to make for the streams from `offset` to `end` of the blob, at least. */
  next(offset: number, end: number): number
}

export function createDemandWindow(): DemandWindow {
  let size = MIN_WINDOW
  let expected = Number.NEGATIVE_INFINITY
  return {
    next: (offset, end) => {
      const isSequential = offset >= expected - SLACK && offset <= expected + SLACK
      size = isSequential ? Math.min(size * 2, MAX_WINDOW) : MIN_WINDOW
      expected = Math.max(end, offset + size)
      return size
    },
  }
}
