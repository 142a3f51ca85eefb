// Which parts of files were read, and when: what a workload does to an image, beside the paths.

/** Part of a file, bytes, and when it was read first, whole milliseconds after the start. */
export interface ReadRange {
  readonly offset: number
  readonly end: number
  readonly atMs: number
}

/** What was read of a layer's files, by their names as a conversion prioritises them. */
export type LayerReads = ReadonlyMap<string, readonly ReadRange[]>

/** Ranges in the order of the file, those that touch or overlap as one, read when the first of them was. */
export function mergeReadRanges(ranges: readonly ReadRange[], gap = 0): ReadRange[] {
  const merged: ReadRange[] = []
  for (const range of [...ranges].sort((a, b) => a.offset - b.offset)) {
    const last = merged.at(-1)
    if (last && range.offset <= last.end + gap) {
      merged[merged.length - 1] = {
        offset: last.offset,
        end: Math.max(last.end, range.end),
        atMs: Math.min(last.atMs, range.atMs),
      }
    } else if (range.end > range.offset) merged.push(range)
  }
  return merged
}

/** What of a file is not worth a boundary of its own, bytes: a chunk costs some hundred, and compresses worse by itself. */
const MIN_PART = 32 << 10
const PAGE = 4096
/**
 * The kernel reads 16 KiB around what it needs, half of it before, and 16 more when that is used; where exactly depends on which
 * page a program needs first. So much around what was read comes with it, bytes: or else now and then a start waits for it.
 */
const AROUND = {before: 8 << 10, after: 16 << 10}

/**
 * Where the chunks of a file of `size` bytes start, from 0 on, and at last `size`: none larger than `chunkSize`, and with
 * boundaries at the edges of what is read, so that what nobody reads need not be fetched.
 */
export function chunkBounds(size: number, chunkSize: number, reads: readonly ReadRange[] = []): number[] {
  const parts = reads.map(({offset, end, atMs}) => {
    const start = Math.max(0, Math.floor(offset / PAGE) * PAGE - AROUND.before)
    return {offset: start, end: Math.max(start + MIN_PART, Math.ceil(end / PAGE) * PAGE + AROUND.after), atMs}
  })
  const edges = mergeReadRanges(parts, MIN_PART - 1).flatMap(({offset, end}) => [offset, end])
  const cuts = edges.filter(cut => cut >= MIN_PART && size - cut >= MIN_PART)
  const bounds = [0]
  for (const cut of [...cuts, size]) {
    while (cut - bounds.at(-1)! > chunkSize) bounds.push(bounds.at(-1)! + chunkSize)
    if (cut > bounds.at(-1)!) bounds.push(cut)
  }
  return bounds
}
