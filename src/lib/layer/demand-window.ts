// How much to fetch around what a process waits for: files that are used together lie together, so a little on both sides; more
// ahead, the longer somebody reads on in one region, and most where nearly everything is read.

/**
 * Compressed bytes. Of a server that is far, what is waited for comes first, alone, and its neighbours right behind it; when
 * the starts of three images were replayed behind 20 ms and 25 MB/s, half as much around it made readers wait as long, and
 * twice as much longer, because what one brings keeps the next one waiting. Of one that is near, a request costs more than
 * its bytes, and what nobody reads costs processor time.
 */
const FAR = {awaited: 64 << 10, ahead: 256 << 10, behind: 128 << 10}
const NEAR = {awaited: 1 << 20, ahead: 128 << 10, behind: 0}
const MAX_AHEAD = 4 << 20
/** A read that starts this close to where the last window ended goes on from there; larger windows are less exact. */
const SLACK = 64 << 10

/** Compressed bytes. */
export interface Surroundings {
  /** Of the request that is waited for, at most, where less would do. */
  readonly awaited: number
  /** To fetch from there on, what is waited for included, and before it. */
  readonly ahead: number
  readonly behind: number
}

export interface DemandWindow {
  /** What to fetch around the streams from `offset` to `end` of the blob. */
  next(
    offset: number,
    end: number,
    reader: {readonly isDense: boolean; readonly isNear: boolean},
  ): Surroundings
}

export function createDemandWindow(): DemandWindow {
  let ahead = 0
  let expected = Number.NEGATIVE_INFINITY
  return {
    next: (offset, end, {isDense, isNear}) => {
      const least = isNear ? NEAR : FAR
      const goesOn = Math.abs(offset - expected) <= Math.max(SLACK, ahead / 2)
      ahead = isDense ? MAX_AHEAD : goesOn ? Math.min(ahead * 2, MAX_AHEAD) : least.ahead
      expected = Math.max(end, offset + ahead)
      return {awaited: Math.min(least.awaited, ahead), ahead, behind: least.behind}
    },
  }
}
