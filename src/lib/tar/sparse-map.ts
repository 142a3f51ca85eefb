// Where the data of a sparse file are: GNU tar's own format (type `S`), and its three in PAX records, which bsdtar writes too.
//
//   GNU   four pairs of offset and size in the header block at 386, a flag at 482, the file's size at 483; after a set flag
//         blocks of 21 pairs with a flag at 504
//   0.0   records GNU.sparse.offset and GNU.sparse.numbytes, once for each stretch, and GNU.sparse.size
//   0.1   the same in one record, GNU.sparse.map, with the file's name in GNU.sparse.name
//   1.0   GNU.sparse.realsize and GNU.sparse.name; the map stands before the data, in whole blocks: decimal numbers, a line
//         each, of which the first says how many pairs follow
//
// https://www.gnu.org/software/tar/manual/html_section/Sparse-Formats.html

import {CodedError} from '../errors/coded-error.ts'
import {decodeByteText} from '../io/byte-text.ts'
import {type HeaderBlock, parseNumber} from './header.ts'
import {type PaxRecords, parsePaxInteger} from './pax.ts'
import type {SparseMap} from './tar-entry.ts'

/** What stands between headers and data of a sparse file is read block by block, until it is complete. */
export interface SparseMapReader {
  readonly isComplete: boolean
  /** Bytes of blocks taken that count for the member's size, as only the map of format 1.0 does. */
  readonly payloadBytes: number
  take(block: Uint8Array): void
  /** Of a complete map; throws `corrupt` for one that makes no sense. `dataSize` is what the member has of data. */
  map(dataSize: number): SparseMap
}

/** The prefix of the records. */
export const SPARSE_PREFIX = 'GNU.sparse.'
/** The whole file's name, where the member's own is one made up for tars that know no sparse files. */
export const SPARSE_NAME = `${SPARSE_PREFIX}name`

const GNU_HEADER = {pairs: {offset: 386, count: 4}, flag: 482, realSize: {offset: 483, size: 12}}
const GNU_EXTENSION = {pairs: {offset: 0, count: 21}, flag: 504}
/** A number of GNU's format. */
const NUMBER_SIZE = 12
const NEWLINE = 0x0a
/** The types of regular files, which formats in PAX records have. */
const PLAIN_FILES = ['0', '\0', '7']

export interface SparseMapOptions {
  /** For messages. */
  readonly where: string
  /** Largest map, in bytes as it is written. */
  readonly maxMapSize: number
}

/** Begins to read the map of a sparse file; undefined for any other. Throws `corrupt` or `unsupported`. */
export function beginSparseMap(
  block: Uint8Array,
  header: HeaderBlock,
  records: PaxRecords | undefined,
  options: SparseMapOptions,
): SparseMapReader | undefined {
  if (header.typeflag === 'S') return new GnuMapReader(block, options)
  if (!PLAIN_FILES.includes(header.typeflag)) return undefined
  const text = (key: string) => decodeByteText(records?.get(`${SPARSE_PREFIX}${key}`) ?? new Uint8Array(0))
  const version = `${text('major')}.${text('minor')}`
  const list = text('map')
  if (!records || (version === '.' && list === '')) return undefined
  const realSize = records.get(`${SPARSE_PREFIX}size`) ?? records.get(`${SPARSE_PREFIX}realsize`)
  const size = realSize ? parsePaxInteger(realSize, 'GNU.sparse.realsize', options.where) : header.size
  if (version === '1.0') return new LinesMapReader(size, options)
  if (version !== '.' && version !== '0.0' && version !== '0.1') {
    throw new CodedError(
      'unsupported',
      `Cannot use ${options.where}: its format of sparse files is ${version}`,
    )
  }
  const pairs = list === '' ? [] : list.split(',')
  return new PairsMapReader(
    pairs.map(number => parseCount(number, options.where)),
    size,
    options.where,
  )
}

/** A map whose numbers are all there: offset, size, offset, size, … */
class PairsMapReader implements SparseMapReader {
  readonly isComplete: boolean = true
  readonly payloadBytes: number = 0
  readonly #pairs: readonly number[]
  readonly #realSize: number
  readonly #where: string

  constructor(pairs: readonly number[], realSize: number, where: string) {
    this.#pairs = pairs
    this.#realSize = realSize
    this.#where = where
  }

  take(): void {}

  map(dataSize: number): SparseMap {
    return checkedMap(this.#pairs, this.#realSize, {dataSize, where: this.#where})
  }
}

class GnuMapReader implements SparseMapReader {
  isComplete: boolean
  readonly payloadBytes = 0
  readonly #pairs: number[] = []
  readonly #realSize: number
  readonly #options: SparseMapOptions
  #size = 0

  constructor(block: Uint8Array, options: SparseMapOptions) {
    const {offset, size} = GNU_HEADER.realSize
    this.#options = options
    this.#realSize = parseNumber(block.subarray(offset, offset + size), 'real size', options.where)
    this.isComplete = this.#addPairs(block, GNU_HEADER)
  }

  take(block: Uint8Array): void {
    this.#size += block.length
    checkMapSize(this.#size, this.#options)
    this.isComplete = this.#addPairs(block, GNU_EXTENSION)
  }

  map(dataSize: number): SparseMap {
    return checkedMap(this.#pairs, this.#realSize, {dataSize, where: this.#options.where})
  }

  /** The first pair that is empty ends the map; returns whether no further block follows. */
  #addPairs(block: Uint8Array, {pairs, flag}: typeof GNU_EXTENSION): boolean {
    for (let pair = 0; pair < pairs.count; pair++) {
      const at = pairs.offset + pair * 2 * NUMBER_SIZE
      if (block[at] === 0) break
      for (const start of [at, at + NUMBER_SIZE]) {
        this.#pairs.push(
          parseNumber(block.subarray(start, start + NUMBER_SIZE), 'sparse', this.#options.where),
        )
      }
    }
    return block[flag] === 0
  }
}

class LinesMapReader implements SparseMapReader {
  isComplete = false
  payloadBytes = 0
  readonly #realSize: number
  readonly #options: SparseMapOptions
  readonly #blocks: Uint8Array[] = []
  #lines = 0
  #wantedLines = 1

  constructor(realSize: number, options: SparseMapOptions) {
    this.#realSize = realSize
    this.#options = options
  }

  take(block: Uint8Array): void {
    this.payloadBytes += block.length
    checkMapSize(this.payloadBytes, this.#options)
    this.#blocks.push(Uint8Array.from(block))
    for (const byte of block) if (byte === NEWLINE) this.#lines++
    if (this.#lines > 0 && this.#wantedLines === 1) {
      this.#wantedLines = 1 + 2 * parseCount(this.#textLines()[0]!, this.#options.where)
    }
    this.isComplete = this.#lines >= this.#wantedLines
  }

  map(dataSize: number): SparseMap {
    const {where} = this.#options
    const numbers = this.#textLines().slice(1, this.#wantedLines)
    const pairs = numbers.map(number => parseCount(number, where))
    return checkedMap(pairs, this.#realSize, {dataSize, where})
  }

  #textLines(): string[] {
    return Buffer.concat(this.#blocks).toString('latin1').split('\n')
  }
}

function checkMapSize(size: number, {maxMapSize, where}: SparseMapOptions): void {
  if (size <= maxMapSize) return
  throw new CodedError(
    'unsupported',
    `Cannot read ${where}: its map of a sparse file exceeds ${maxMapSize} bytes`,
  )
}

function parseCount(text: string, where: string): number {
  const number = Number(text)
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(number)) {
    throw wrong(where, `has ${JSON.stringify(text.slice(0, 40))} for a number`)
  }
  return number
}

/** Stretches follow each other within the file, and have the member's data, no more and no less. */
function checkedMap(
  pairs: readonly number[],
  realSize: number,
  {dataSize, where}: {readonly dataSize: number; readonly where: string},
): SparseMap {
  if (pairs.length % 2 !== 0) throw wrong(where, 'has an offset without a size')
  const offsets = pairs.filter((_, index) => index % 2 === 0)
  const sizes = pairs.filter((_, index) => index % 2 === 1)
  let end = 0
  let total = 0
  for (const [index, offset] of offsets.entries()) {
    const size = sizes[index]!
    if (offset < end || size < 0 || offset + size > realSize) throw wrong(where, 'does not fit the file')
    end = offset + size
    total += size
  }
  if (total !== dataSize) throw wrong(where, `has ${total} bytes of data, its member ${dataSize}`)
  return {offsets, sizes, realSize}
}

function wrong(where: string, problem: string): CodedError {
  return new CodedError('corrupt', `Cannot read ${where}: its map of a sparse file ${problem}`)
}
