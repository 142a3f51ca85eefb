// The Range header of a request (RFC 9110, section 14): which bytes of a blob to send.

/** Bytes `start` up to and including `end`. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/**
 * `all` when the header asks for nothing that must be honoured: none, another unit, a malformed one, or more than is
 * reasonable; `none` when it is well-formed and outside of the blob (status 416).
 */
export type RequestedRanges = 'all' | 'none' | readonly ByteRange[]

/** A lazy mount asks for tens of chunks at once. RFC 9110, 14.2 lets a server ignore many small or overlapping ranges. */
const MAX_RANGES = 1000

export function parseRange(header: string | undefined, size: number): RequestedRanges {
  const list = header === undefined ? undefined : /^bytes=(.*)$/i.exec(header)?.[1]
  if (list === undefined) return 'all'
  const texts = list
    .split(',')
    .map(text => text.trim())
    .filter(text => text !== '')
  if (texts.length === 0 || texts.length > MAX_RANGES) return 'all'
  const ranges: ByteRange[] = []
  for (const text of texts) {
    const range = parseOne(text, size)
    if (range === 'malformed') return 'all'
    if (range) ranges.push(range)
  }
  if (ranges.length === 0) return 'none'
  const total = ranges.reduce((sum, {start, end}) => sum + end - start + 1, 0)
  return ranges.length > 1 && total > 2 * size ? 'all' : ranges
}

function parseOne(text: string, size: number): ByteRange | 'malformed' | undefined {
  const match = /^(\d{0,15})-(\d{0,15})$/.exec(text)
  if (!match || (match[1] === '' && match[2] === '')) return 'malformed'
  const [, first, last] = match
  if (first === '') {
    const length = Math.min(Number(last), size)
    return length === 0 ? undefined : {start: size - length, end: size - 1}
  }
  const start = Number(first)
  const end = last === '' ? size - 1 : Math.min(Number(last), size - 1)
  if (last !== '' && Number(last) < start) return 'malformed'
  return start < size ? {start, end} : undefined
}
