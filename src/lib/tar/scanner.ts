// A push-style tar scanner: feed it the stream in pieces of any size, it reports the entries and where their bytes are.
// It holds one header at a time and never a payload.
//
// It reads what Go's archive/tar reads, because that is what unpacks every image, with two differences: global PAX
// records are applied (POSIX; GNU tar and libarchive do too), and a name that climbs out of the root is refused. Like Go and
// GNU tar it takes the end of the stream at an entry's end for the end of the archive when the two zero blocks are missing,
// and ignores whatever follows them.

import {CodedError} from '../errors/coded-error.ts'
import {decodeByteText} from '../io/byte-text.ts'
import {type EntryHeaders, entryFromHeaders, type HeaderExtensions, recordsFor} from './entry-from-headers.ts'
import {isZeroBlock, parseHeaderBlock, untilNul} from './header.ts'
import {type PaxRecords, parsePaxInteger, parsePaxRecords} from './pax.ts'
import {beginSparseMap, type SparseMapReader} from './sparse-map.ts'
import {BLOCK_SIZE, blockAligned, DEFAULT_TAR_LIMITS, type TarEntry, type TarLimits} from './tar-entry.ts'

export interface TarScannerOptions {
  readonly limits?: TarLimits
  /** Reports sparse files, which the caller makes plain ones of; without it they are `unsupported`. */
  readonly takesSparse?: boolean
}

export interface TarSummary {
  readonly entries: number
  /** Bytes of the stream up to the end of the last entry's padding. */
  readonly entriesSize: number
  /** Bytes of the whole stream, with end-of-archive blocks and whatever followed them. */
  readonly size: number
}

/** The parts of an archive in which a scanner can be. */
type State = 'header' | 'extension' | 'sparse-map' | 'payload' | 'after-zero-block' | 'ended'

export class TarScanner {
  readonly #onEntry: (entry: TarEntry) => void
  readonly #limits: TarLimits
  readonly #takesSparse: boolean
  #state: State = 'header'
  /** Position of the next byte that `push` will get. */
  #position = 0
  #entries = 0
  #entriesSize = 0
  /** The block, or blocks, that are being collected. */
  #collected = new Uint8Array(BLOCK_SIZE)
  #collectedSize = 0
  #wantedSize = BLOCK_SIZE
  #payloadLeft = 0
  #extensionFlag = ''
  #extensionSize = 0
  /** Where the first header block of the next entry is. */
  #headerOffset = 0
  #globalRecords: PaxRecords = new Map()
  #extensions: HeaderExtensions = {}
  /** A sparse file whose map goes on after its header. */
  #sparse: {readonly headers: EntryHeaders; readonly reader: SparseMapReader} | undefined

  /** `onEntry` is called as soon as an entry's headers are complete, before its payload. */
  constructor(onEntry: (entry: TarEntry) => void, options: TarScannerOptions = {}) {
    this.#onEntry = onEntry
    this.#limits = options.limits ?? DEFAULT_TAR_LIMITS
    this.#takesSparse = options.takesSparse ?? false
  }

  /** Feeds the next bytes. Throws `corrupt` or `unsupported` for an archive that cannot be used. */
  push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#state === 'ended') {
        this.#position += bytes.length - at
        return
      }
      if (this.#state === 'payload') at += this.#skipPayload(bytes.length - at)
      else at += this.#takeBlockBytes(bytes.subarray(at))
    }
  }

  /** The stream has ended: throws `corrupt` if it ended inside an entry. */
  end(): TarSummary {
    const isBetween =
      this.#state === 'header' || this.#state === 'after-zero-block' || this.#state === 'ended'
    const isInsideBlock =
      this.#state !== 'ended' && this.#collectedSize > 0 && this.#collectedSize < this.#wantedSize
    if (!isBetween || isInsideBlock || this.#hasExtensions()) {
      throw new CodedError('corrupt', `Cannot read tar: it ends inside an entry, at byte ${this.#position}`)
    }
    return {entries: this.#entries, entriesSize: this.#entriesSize, size: this.#position}
  }

  #skipPayload(available: number): number {
    const skipped = Math.min(this.#payloadLeft, available)
    this.#payloadLeft -= skipped
    this.#position += skipped
    if (this.#payloadLeft === 0) this.#state = 'header'
    return skipped
  }

  /** Takes bytes for the block that is being collected; returns how many it took. */
  #takeBlockBytes(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, this.#wantedSize - this.#collectedSize)
    const isWhole = taken === this.#wantedSize
    if (!isWhole) this.#collected.set(bytes.subarray(0, taken), this.#collectedSize)
    this.#collectedSize += taken
    this.#position += taken
    if (this.#collectedSize === this.#wantedSize) {
      this.#onBlock(isWhole ? bytes.subarray(0, taken) : this.#collected.subarray(0, this.#wantedSize))
    }
    return taken
  }

  #onBlock(block: Uint8Array): void {
    if (this.#state === 'header') this.#onHeaderBlock(block)
    else if (this.#state === 'extension') this.#onExtension(block.subarray(0, this.#extensionSize))
    else if (this.#state === 'sparse-map') this.#onSparseBlock(block)
    else if (isZeroBlock(block)) this.#state = 'ended'
    else throw broken(this.#where(), 'it follows a single zero block')
  }

  #onHeaderBlock(block: Uint8Array): void {
    if (isZeroBlock(block)) {
      if (this.#hasExtensions()) throw broken(this.#where(), 'it is empty, after headers for a next entry')
      this.#state = 'after-zero-block'
      this.#collect(BLOCK_SIZE)
      return
    }
    const header = parseHeaderBlock(block, this.#where())
    switch (header.typeflag) {
      case 'x':
      case 'g':
      case 'L':
      case 'K':
        this.#startExtension(header.typeflag, header.size)
        return
      default:
        this.#onFileHeader({
          block,
          header,
          headerOffset: this.#headerOffset,
          headerSize: this.#position - this.#headerOffset,
          extensions: this.#extensions,
          globalRecords: this.#globalRecords,
        })
    }
  }

  #onFileHeader(headers: EntryHeaders): void {
    const {block, header} = headers
    // Nearly every entry has neither, and a map of all records is nothing to make for each.
    const mayBeSparse =
      header.typeflag === 'S' || this.#extensions.records !== undefined || this.#globalRecords.size > 0
    const options = {where: this.#where(), maxMapSize: this.#limits.extensionSize}
    const reader = mayBeSparse && beginSparseMap(block, header, recordsFor(headers), options)
    if (!reader) {
      this.#startPayload(entryFromHeaders(headers, this.#entryOptions()))
      return
    }
    if (!this.#takesSparse) {
      throw new CodedError(
        'unsupported',
        `Cannot use ${this.#where()}: it is a sparse file, which cannot be here`,
      )
    }
    // The block may be a view of bytes that are gone when the map is complete.
    this.#sparse = {headers: {...headers, block: Uint8Array.from(block)}, reader}
    this.#continueSparse()
  }

  #onSparseBlock(block: Uint8Array): void {
    this.#sparse!.reader.take(block)
    this.#continueSparse()
  }

  /** Reads on while the map is not complete; the entry's headers end where it does. */
  #continueSparse(): void {
    const {headers, reader} = this.#sparse!
    if (!reader.isComplete) {
      this.#state = 'sparse-map'
      this.#collect(BLOCK_SIZE)
      return
    }
    this.#sparse = undefined
    const ownSize = recordsFor(headers).get('size')
    const storedSize = ownSize?.length ? parsePaxInteger(ownSize, 'size', this.#where()) : headers.header.size
    const dataSize = storedSize - reader.payloadBytes
    if (dataSize < 0) throw broken(this.#where(), 'its map is larger than its contents')
    const headerSize = this.#position - headers.headerOffset
    const entry = entryFromHeaders(
      {...headers, headerSize, sparseMap: reader.map(dataSize)},
      this.#entryOptions(),
    )
    this.#startPayload(entry, dataSize)
  }

  #startExtension(typeflag: string, size: number): void {
    if (size < 0 || size > this.#limits.extensionSize) {
      throw new CodedError(
        'unsupported',
        `Cannot read ${this.#where()}: its extended header of ${size} bytes exceeds the limit of ${this.#limits.extensionSize}`,
      )
    }
    this.#extensionFlag = typeflag
    if (size === 0) {
      this.#onExtension(new Uint8Array(0))
      return
    }
    this.#state = 'extension'
    // The padding is collected with it, so that the next block starts where this one ends.
    this.#extensionSize = size
    this.#collect(blockAligned(size))
  }

  #onExtension(payload: Uint8Array): void {
    switch (this.#extensionFlag) {
      case 'g':
        this.#globalRecords = mergeGlobalRecords(this.#globalRecords, parsePaxRecords(payload, this.#where()))
        // It belongs to all entries that follow: only what comes after it is the next entry's own.
        if (!this.#hasExtensions()) this.#headerOffset = this.#position
        break
      case 'L':
        this.#extensions = {...this.#extensions, longName: decodeByteText(untilNul(payload))}
        break
      case 'K':
        this.#extensions = {...this.#extensions, longLinkName: decodeByteText(untilNul(payload))}
        break
      default:
        this.#extensions = {...this.#extensions, records: parsePaxRecords(payload, this.#where())}
    }
    this.#state = 'header'
    this.#collect(BLOCK_SIZE)
  }

  /** `storedSize` is what the archive has of the payload. */
  #startPayload(entry: TarEntry, storedSize = entry.size): void {
    if (++this.#entries > this.#limits.entries) {
      throw new CodedError('unsupported', `Cannot read tar: it has more than ${this.#limits.entries} entries`)
    }
    this.#onEntry(entry)
    this.#extensions = {}
    this.#payloadLeft = blockAligned(storedSize)
    this.#headerOffset = this.#position + this.#payloadLeft
    this.#entriesSize = this.#headerOffset
    this.#state = this.#payloadLeft > 0 ? 'payload' : 'header'
    this.#collect(BLOCK_SIZE)
  }

  #collect(size: number): void {
    this.#wantedSize = size
    this.#collectedSize = 0
    if (this.#collected.length < size) this.#collected = new Uint8Array(size)
  }

  #hasExtensions(): boolean {
    return Object.keys(this.#extensions).length > 0
  }

  #entryOptions(): {readonly limits: TarLimits; readonly where: string} {
    return {limits: this.#limits, where: this.#where()}
  }

  #where(): string {
    return `the tar header at byte ${this.#position - this.#wantedSize}`
  }
}

/** POSIX: a later global record replaces an earlier one of its key; an empty value takes it back. */
function mergeGlobalRecords(older: PaxRecords, newer: PaxRecords): PaxRecords {
  const merged = new Map(older)
  for (const [key, value] of newer) {
    if (value.length > 0) merged.set(key, value)
    else merged.delete(key)
  }
  return merged
}

function broken(where: string, problem: string): CodedError {
  return new CodedError('corrupt', `Cannot read ${where}: ${problem}`)
}
