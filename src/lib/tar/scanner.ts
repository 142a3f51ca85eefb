// A push-style tar scanner: feed it the stream in pieces of any size, it reports the entries and where their bytes are.
// It holds one header at a time and never a payload.
//
// It reads what Go's archive/tar reads, because that is what unpacks every image, with three differences: global PAX
// records are applied (POSIX; GNU tar and libarchive do too), sparse files are refused instead of expanded, and a name
// that climbs out of the root is refused. Like Go and GNU tar it takes the end of the stream at an entry's end for the
// end of the archive when the two zero blocks are missing, and ignores whatever follows them.

import {CodedError} from '../errors/coded-error.ts'
import {decodeByteText} from '../io/byte-text.ts'
import {entryFromHeaders, type HeaderExtensions} from './entry-from-headers.ts'
import {isZeroBlock, parseHeaderBlock, untilNul} from './header.ts'
import {parsePaxRecords} from './pax.ts'
import {BLOCK_SIZE, blockAligned, DEFAULT_TAR_LIMITS, type TarEntry, type TarLimits} from './tar-entry.ts'

export interface TarScanner {
  /** Feeds the next bytes. Throws `corrupt` or `unsupported` for an archive that cannot be used. */
  push(bytes: Uint8Array): void
  /** The stream has ended: throws `corrupt` if it ended inside an entry. */
  end(): TarSummary
}

export interface TarSummary {
  readonly entries: number
  /** Bytes of the stream up to the end of the last entry's padding. */
  readonly entriesSize: number
  /** Bytes of the whole stream, with end-of-archive blocks and whatever followed them. */
  readonly size: number
}

/** The parts of an archive in which a scanner can be. */
type State = 'header' | 'extension' | 'payload' | 'after-zero-block' | 'ended'

/** Creates a scanner; `onEntry` is called as soon as an entry's headers are complete, before its payload. */
export function createTarScanner(
  onEntry: (entry: TarEntry) => void,
  limits: TarLimits = DEFAULT_TAR_LIMITS,
): TarScanner {
  let state: State = 'header'
  /** Position of the next byte that `push` will get, and of the block that is being collected. */
  let position = 0
  let entries = 0
  let entriesSize = 0
  let collected = new Uint8Array(BLOCK_SIZE)
  let collectedSize = 0
  let wantedSize = BLOCK_SIZE
  let payloadLeft = 0
  let extensionFlag = ''
  let extensionSize = 0
  /** Where the first header block of the next entry is. */
  let headerOffset = 0
  let globalRecords: ReadonlyMap<string, Uint8Array> = new Map()
  let extensions: HeaderExtensions = {}

  const where = () => `the tar header at byte ${position - wantedSize}`

  function collect(size: number): void {
    wantedSize = size
    collectedSize = 0
    if (collected.length < size) collected = new Uint8Array(size)
  }

  function onHeaderBlock(block: Uint8Array): void {
    if (isZeroBlock(block)) {
      if (Object.keys(extensions).length > 0)
        throw broken(where(), 'it is empty, after headers for a next entry')
      state = 'after-zero-block'
      collect(BLOCK_SIZE)
      return
    }
    const header = parseHeaderBlock(block, where())
    switch (header.typeflag) {
      case 'x':
      case 'g':
      case 'L':
      case 'K':
        startExtension(header.typeflag, header.size)
        return
      default: {
        const entry = entryFromHeaders(
          {block, header, headerOffset, headerSize: position - headerOffset, extensions, globalRecords},
          {limits, where: where()},
        )
        startPayload(entry)
      }
    }
  }

  function startExtension(typeflag: string, size: number): void {
    if (size < 0 || size > limits.extensionSize) {
      throw new CodedError(
        'unsupported',
        `Cannot read ${where()}: its extended header of ${size} bytes exceeds the limit of ${limits.extensionSize}`,
      )
    }
    extensionFlag = typeflag
    if (size === 0) {
      onExtension(new Uint8Array(0))
      return
    }
    state = 'extension'
    // The padding is collected with it, so that the next block starts where this one ends.
    extensionSize = size
    collect(blockAligned(size))
  }

  function onExtension(payload: Uint8Array): void {
    switch (extensionFlag) {
      case 'g':
        globalRecords = mergeGlobalRecords(globalRecords, parsePaxRecords(payload, where()))
        // It belongs to all entries that follow: only what comes after it is the next entry's own.
        if (Object.keys(extensions).length === 0) headerOffset = position
        break
      case 'L':
        extensions = {...extensions, longName: decodeByteText(untilNul(payload))}
        break
      case 'K':
        extensions = {...extensions, longLinkName: decodeByteText(untilNul(payload))}
        break
      default:
        extensions = {...extensions, records: parsePaxRecords(payload, where())}
    }
    state = 'header'
    collect(BLOCK_SIZE)
  }

  function startPayload(entry: TarEntry): void {
    if (++entries > limits.entries) {
      throw new CodedError('unsupported', `Cannot read tar: it has more than ${limits.entries} entries`)
    }
    onEntry(entry)
    extensions = {}
    payloadLeft = blockAligned(entry.size)
    headerOffset = position + payloadLeft
    entriesSize = headerOffset
    state = payloadLeft > 0 ? 'payload' : 'header'
    collect(BLOCK_SIZE)
  }

  function onBlock(block: Uint8Array): void {
    if (state === 'header') onHeaderBlock(block)
    else if (state === 'extension') onExtension(block.subarray(0, extensionSize))
    else if (isZeroBlock(block)) state = 'ended'
    else throw broken(where(), 'it follows a single zero block')
  }

  /** Takes bytes for the block that is being collected; returns how many it took. */
  function takeBlockBytes(bytes: Uint8Array): number {
    const taken = Math.min(bytes.length, wantedSize - collectedSize)
    const isWhole = taken === wantedSize
    if (!isWhole) collected.set(bytes.subarray(0, taken), collectedSize)
    collectedSize += taken
    position += taken
    if (collectedSize === wantedSize) {
      onBlock(isWhole ? bytes.subarray(0, taken) : collected.subarray(0, wantedSize))
    }
    return taken
  }

  function push(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (state === 'ended') {
        position += bytes.length - at
        return
      }
      if (state === 'payload') {
        const skipped = Math.min(payloadLeft, bytes.length - at)
        payloadLeft -= skipped
        position += skipped
        at += skipped
        if (payloadLeft === 0) state = 'header'
      } else {
        at += takeBlockBytes(bytes.subarray(at))
      }
    }
  }

  function end(): TarSummary {
    const isInsideBlock =
      state !== 'ended' && state !== 'payload' && collectedSize > 0 && collectedSize < wantedSize
    const isInsideEntry = state === 'payload' || state === 'extension' || Object.keys(extensions).length > 0
    if (isInsideBlock || isInsideEntry) {
      throw new CodedError('corrupt', `Cannot read tar: it ends inside an entry, at byte ${position}`)
    }
    return {entries, entriesSize, size: position}
  }

  return {push, end}
}

/** POSIX: a later global record replaces an earlier one of its key; an empty value takes it back. */
function mergeGlobalRecords(
  older: ReadonlyMap<string, Uint8Array>,
  newer: ReadonlyMap<string, Uint8Array>,
): ReadonlyMap<string, Uint8Array> {
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
