// A prefetch plan: which bytes of a layer's blob a start reads, and when, as an annotation of the layer's descriptor that
// containerd hands to the snapshotter as a label. docs/formats.md specifies it.

import {CodedError} from '../errors/coded-error.ts'
import {readVarint, unzigzag, writeVarint, zigzag} from './varint.ts'

/** Part of a layer's blob: where it starts and ends, bytes, and when it is read first, milliseconds after the start. */
export interface PlannedRange {
  readonly offset: number
  readonly end: number
  readonly atMs: number
}

/** In the order in which they are read; none overlaps another. */
export type PrefetchPlan = readonly PlannedRange[]

/** Under containerd's prefix for what it passes to snapshotters. */
export const PREFETCH_PLAN = 'containerd.io/snapshot/ctr-remote/prefetch.plan'

/** What containerd accepts of a label, key and value together, bytes. */
const MAX_LABEL_SIZE = 4096
const VERSION = '1.'
const MAX_BYTES = Math.floor(((MAX_LABEL_SIZE - PREFETCH_PLAN.length - VERSION.length) * 3) / 4)
/** A start that takes longer than a day is none. */
const MAX_MS = 86_400_000

/**
 * How ranges are joined until a plan fits: those with a gap of at most so many bytes, where the later one is read at most so
 * long after the earlier one. The first is always done: a request costs more than the bytes in between.
 */
const JOINS = [
  {gap: 4 << 10, ms: 100},
  {gap: 16 << 10, ms: 200},
  {gap: 64 << 10, ms: 1000},
  {gap: 256 << 10, ms: 10_000},
  {gap: 1 << 20, ms: MAX_MS},
]

/** The annotation's value for ranges in any order. What does not fit is joined; what is read last is left out then. */
export function encodePrefetchPlan(ranges: readonly PlannedRange[]): string {
  let bytes: number[] = []
  for (const join of JOINS) {
    bytes = bytesOf(joinRanges(ranges, join), MAX_BYTES + 1)
    if (bytes.length <= MAX_BYTES) break
  }
  if (bytes.length > MAX_BYTES) bytes = bytesOf(joinRanges(ranges, JOINS.at(-1)!), MAX_BYTES)
  return VERSION + Buffer.from(bytes).toString('base64url')
}

/** Throws `corrupt` for what is no plan, `unsupported` for one of a later version. */
export function parsePrefetchPlan(text: string): PrefetchPlan {
  if (!text.startsWith(VERSION)) {
    const isLater = /^\d{1,9}\./.test(text)
    throw new CodedError(
      isLater ? 'unsupported' : 'corrupt',
      `Cannot use the prefetch plan: ${isLater ? 'it is of another version' : 'it has no version'}`,
    )
  }
  const encoded = text.slice(VERSION.length)
  if (encoded.length > MAX_LABEL_SIZE || !/^[\w-]*$/.test(encoded)) throw malformed('it is no base64url')
  const bytes = Buffer.from(encoded, 'base64url')
  const plan: PlannedRange[] = []
  let [at, end, atMs] = [0, 0, 0]
  while (at < bytes.length) {
    const numbers: number[] = []
    for (let part = 0; part < 3; part++) {
      const {value, next} = readVarint(bytes, at) ?? {}
      if (value === undefined || next === undefined) throw malformed('a number of it does not end')
      numbers.push(value)
      at = next
    }
    atMs += numbers[0]!
    const offset = end + unzigzag(numbers[1]!)
    end = offset + numbers[2]!
    if (atMs > MAX_MS || offset < 0 || end <= offset || !Number.isSafeInteger(end)) {
      throw malformed('a range of it is none')
    }
    plan.push({offset, end, atMs})
  }
  requireApart(plan)
  return plan
}

function bytesOf(plan: PrefetchPlan, limit: number): number[] {
  const bytes: number[] = []
  let [end, atMs] = [0, 0]
  for (const range of plan) {
    const ms = Math.min(MAX_MS, Math.round(range.atMs))
    const next = [ms - atMs, zigzag(range.offset - end), range.end - range.offset].flatMap(writeVarint)
    if (bytes.length + next.length > limit) break
    bytes.push(...next)
    ;[end, atMs] = [range.end, ms]
  }
  return bytes
}

/** Joined where that is cheap, then by time. */
function joinRanges(
  ranges: readonly PlannedRange[],
  {gap, ms}: {readonly gap: number; readonly ms: number},
): PrefetchPlan {
  const joined: PlannedRange[] = []
  for (const range of [...ranges].sort((a, b) => a.offset - b.offset)) {
    const last = joined.at(-1)
    const overlaps = last !== undefined && range.offset < last.end
    const isNear =
      last !== undefined && range.offset - last.end <= gap && Math.abs(range.atMs - last.atMs) <= ms
    if (overlaps || isNear) {
      joined[joined.length - 1] = {
        offset: last.offset,
        end: Math.max(last.end, range.end),
        atMs: Math.min(last.atMs, range.atMs),
      }
    } else joined.push(range)
  }
  return joined.sort((a, b) => a.atMs - b.atMs || a.offset - b.offset)
}

function requireApart(plan: PrefetchPlan): void {
  let end = 0
  for (const range of [...plan].sort((a, b) => a.offset - b.offset)) {
    if (range.offset < end) throw malformed('ranges of it overlap')
    end = range.end
  }
}

function malformed(problem: string): CodedError {
  return new CodedError('corrupt', `Cannot use the prefetch plan: ${problem}`)
}
