// Decides everything about a converted layer that does not depend on compressed sizes: which entries it has and in what
// order, which bytes its tar is made of, and where it may be cut. A function of its arguments alone.

import {CodedError} from '../errors/coded-error.ts'
import {chunkBounds, type LayerReads, type ReadRange} from '../prefetch/read-ranges.ts'
import {encodeHeaderBlock} from '../tar/header.ts'
import {cleanPath} from '../tar/path.ts'
import {BLOCK_SIZE, blockAligned, payloadOffsetOf, type TarEntry} from '../tar/tar-entry.ts'
import {EntryOrder} from './entry-order.ts'
import {isLandmark, LANDMARK_CONTENTS, NO_PREFETCH_LANDMARK, PREFETCH_LANDMARK, TOC_NAME} from './landmark.ts'
import {misreadNames} from './misread-names.ts'
import {type SortedEntries, sortEntries} from './sort-entries.ts'
import {createUnitBuilder, type Units} from './units.ts'

export interface PlanOptions {
  /** Paths in the order in which they are needed. */
  readonly prioritizedPaths: readonly string[]
  /** What is read of files, so that chunks can end where that does. */
  readonly reads?: LayerReads | undefined
  /** Largest payload of one chunk, in bytes. */
  readonly chunkSize: number
  /**
   * Keep the tar as it is, to the last byte, so that the DiffID stays: no sorting, no landmarks. The TOC must then be
   * kept outside of the layer. `size` is that of the whole tar.
   */
  readonly lossless?: {readonly size: number} | undefined
}

/** One entry of the converted layer, and which of the plan's units its payload starts. */
export interface PlannedEntry {
  readonly entry: TarEntry
  readonly firstUnit: number
  /** One per chunk: 0 for entries without a payload. */
  readonly unitCount: number
}

export interface ReadUnit {
  readonly unit: number
  readonly atMs: number
}

export interface LayerPlan {
  readonly entries: readonly PlannedEntry[]
  readonly units: Units
  /** Index in `entries` of `.prefetch.landmark`; undefined when nothing is prioritised. */
  readonly prefetchLandmark: number | undefined
  readonly prioritized: Pick<SortedEntries, 'found' | 'missing' | 'unmoved'>
  /** Units of which something is read, and when it is first, milliseconds after the start. */
  readonly readUnits: readonly ReadUnit[]
  /** Names that readers who go by names alone, as stargz-snapshotter does, take for other places than runtimes. */
  readonly misread: readonly string[]
}

/** The reference's default. */
export const DEFAULT_CHUNK_SIZE = 4 << 20
/** A chunk is compressed, fetched and verified whole, in memory. */
export const MAX_CHUNK_SIZE = 128 << 20
/**
 * Headers go into the stream of the payload before them; after this many bytes of headers alone a new stream starts, so
 * that a million links do not make one huge stream at the end of a small chunk.
 */
const MAX_HEADER_RUN = 1 << 20

/** Plans the conversion of a layer with these entries, which must be in the order of the source. */
export function planLayer(entries: readonly TarEntry[], options: PlanOptions): LayerPlan {
  checkChunkSize(options.chunkSize)
  return options.lossless
    ? planLossless(entries, options, options.lossless.size)
    : planSorted(entries, options)
}

function checkChunkSize(chunkSize: number): void {
  if (!Number.isSafeInteger(chunkSize) || chunkSize < 1 || chunkSize > MAX_CHUNK_SIZE) {
    throw new CodedError(
      'invalid-argument',
      `Cannot use a chunk size of ${chunkSize}: it must be from 1 to ${MAX_CHUNK_SIZE} bytes`,
    )
  }
}

function planSorted(entries: readonly TarEntry[], options: PlanOptions): LayerPlan {
  const sorted = sortEntries(entries, options.prioritizedPaths)
  const {prioritized, rest, missing, unmoved, found, misread} = sorted
  const reads = readsOfEntries(sorted.find, options.reads)
  const readUnits: ReadUnit[] = []
  const landmark = found > 0 ? PREFETCH_LANDMARK : NO_PREFETCH_LANDMARK
  const builder = createUnitBuilder()
  const planned: PlannedEntry[] = []
  for (const entry of prioritized) planned.push(addEntry(entry))
  planned.push(addLandmark(landmark))
  for (const entry of rest) planned.push(addEntry(entry))
  return {
    entries: planned,
    units: builder.finish(),
    prefetchLandmark: found > 0 ? prioritized.length : undefined,
    prioritized: {found, missing, unmoved},
    readUnits,
    misread,
  }

  function addEntry(entry: TarEntry): PlannedEntry {
    if (builder.headerRun() + entry.headerSize > MAX_HEADER_RUN) builder.startUnit(0)
    if (entry.foldedHeader) builder.addLiteral(entry.foldedHeader)
    else builder.addSpooled(entry.headerOffset, entry.headerSize)
    const firstUnit = builder.nextUnit()
    const read = reads.get(entry)
    const unitCount = addChunks(entry, {chunkSize: options.chunkSize, read, readUnits}, builder)
    const end = payloadOffsetOf(entry) + entry.size
    builder.addSpooled(end, blockAligned(entry.size) - entry.size)
    return {entry, firstUnit, unitCount}
  }

  /** A landmark's payload always starts a stream: what must be prefetched ends there. */
  function addLandmark(name: string): PlannedEntry {
    const header = encodeHeaderBlock({name, typeflag: '0', size: 1})
    builder.addLiteral(header)
    const firstUnit = builder.nextUnit()
    builder.startUnit(1, {ownStream: true})
    const payload = new Uint8Array(BLOCK_SIZE)
    payload[0] = LANDMARK_CONTENTS
    builder.addLiteral(payload)
    return {entry: landmarkEntry(name, header), firstUnit, unitCount: 1}
  }
}

/** Headers and whatever else is between two payloads stay as they are. */
function planLossless(
  entries: readonly TarEntry[],
  {chunkSize, reads: wanted}: PlanOptions,
  size: number,
): LayerPlan {
  const reads = wanted ? readsOfEntries(findIn(entries), wanted) : NO_READS
  const readUnits: ReadUnit[] = []
  const builder = createUnitBuilder()
  const planned: PlannedEntry[] = []
  let end = 0
  for (const entry of entries) {
    if (isLandmark(entry.path) || entry.path === TOC_NAME) {
      throw new CodedError(
        'failed-precondition',
        `Cannot keep the DiffID: the layer has a ${entry.path} already`,
      )
    }
    if (builder.headerRun() + entry.headerSize > MAX_HEADER_RUN) builder.startUnit(0)
    builder.addSpooled(end, payloadOffsetOf(entry) - end)
    const firstUnit = builder.nextUnit()
    planned.push({
      entry,
      firstUnit,
      unitCount: addChunks(entry, {chunkSize, read: reads.get(entry), readUnits}, builder),
    })
    end = payloadOffsetOf(entry) + entry.size
  }
  builder.addSpooled(end, size - end)
  return {
    entries: planned,
    units: builder.finish(),
    prefetchLandmark: undefined,
    prioritized: {found: 0, missing: [], unmoved: []},
    readUnits,
    misread: misreadNames(entries),
  }
}

/** Starts a unit for each chunk of the payload; returns how many. */
function addChunks(
  entry: TarEntry,
  {
    chunkSize,
    read,
    readUnits,
  }: {chunkSize: number; read: readonly ReadRange[] | undefined; readUnits: ReadUnit[]},
  builder: ReturnType<typeof createUnitBuilder>,
): number {
  const bounds = chunkBounds(entry.size, chunkSize, read)
  for (const [index, end] of bounds.entries()) {
    if (index === 0) continue
    const offset = bounds[index - 1]!
    const times = (read ?? []).filter(range => range.offset < end && range.end > offset)
    if (times.length > 0) {
      readUnits.push({unit: builder.nextUnit(), atMs: Math.min(...times.map(({atMs}) => atMs))})
    }
    builder.startUnit(end - offset)
    builder.addSpooled(payloadOffsetOf(entry) + offset, end - offset)
  }
  return bounds.length - 1
}

const NO_READS: ReadonlyMap<TarEntry, readonly ReadRange[]> = new Map()
/** Hard links to hard links are followed so far. */
const MAX_LINKS = 16

/** What is read of each entry that has contents. */
function readsOfEntries(
  find: (path: string) => TarEntry | undefined,
  reads: LayerReads | undefined,
): ReadonlyMap<TarEntry, readonly ReadRange[]> {
  if (!reads) return NO_READS
  const found = new Map<TarEntry, ReadRange[]>()
  for (const [name, ranges] of reads) {
    let entry = find(name)
    for (let links = 0; entry?.type === 'hardlink' && links < MAX_LINKS; links++) {
      entry = find(cleanPath(entry.linkName) ?? '')
    }
    if (entry?.type === 'reg') found.set(entry, [...(found.get(entry) ?? []), ...ranges])
  }
  return found
}

function findIn(entries: readonly TarEntry[]): (path: string) => TarEntry | undefined {
  const order = new EntryOrder(entries)
  return path => order.find(path)
}

function landmarkEntry(name: string, header: Uint8Array): TarEntry {
  return {
    type: 'reg',
    name,
    path: name,
    linkName: '',
    mode: 0,
    uid: 0,
    gid: 0,
    userName: '',
    groupName: '',
    mtimeSeconds: 0,
    mtimeNanoseconds: 0,
    devMajor: 0,
    devMinor: 0,
    xattrs: undefined,
    headerOffset: 0,
    headerSize: header.length,
    foldedHeader: header,
    size: 1,
  }
}
