// The TOC of a planned layer, once its members have places in the blob and its chunks have digests.

import {encodeBase64} from '../io/base64.ts'
import {type Digest, digestFromHash} from '../oci/digest.ts'
import type {TarEntry, TarTime} from '../tar/tar-entry.ts'
import type {LayerPlan, PlannedEntry} from './plan-layer.ts'
import type {TocEntry} from './toc.ts'

/** What compressing and hashing found out, by unit. */
export interface PlacedUnits {
  /** Where in the blob the stream of each unit starts, and where in the stream the unit does. */
  readonly offsets: Float64Array
  readonly innerOffsets: Float64Array
  /** SHA-256 of each unit's payload, 32 bytes after 32 bytes; of no meaning for units without. */
  readonly chunkHashes: Uint8Array
  /** Digests of files of more than one chunk, by their first unit. */
  readonly fileDigests: ReadonlyMap<number, Digest>
}

export const HASH_SIZE = 32
const EMPTY_DIGEST = 'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'

/** The entries of the TOC, made anew each time they are gone through, because a layer may have a million. */
export function tocOfPlan(plan: LayerPlan, chunkSize: number, placed: PlacedUnits): Iterable<TocEntry> {
  return {[Symbol.iterator]: () => generateToc(plan, chunkSize, placed)}
}

function* generateToc(plan: LayerPlan, chunkSize: number, placed: PlacedUnits): Generator<TocEntry> {
  const userNames = new Map<number, string>()
  const groupNames = new Map<number, string>()
  for (const planned of plan.entries) {
    const {entry, firstUnit} = planned
    let chunkOffset = 0
    const first: TocEntry = {
      name: entry.name,
      type: entry.type,
      size: entry.size,
      modtime: formatModtime(entry),
      linkName: entry.linkName,
      mode: entry.mode,
      uid: entry.uid,
      gid: entry.gid,
      userName: nameIfChanged(userNames, entry.uid, entry.userName),
      groupName: nameIfChanged(groupNames, entry.gid, entry.groupName),
      devMajor: isDevice(entry) ? entry.devMajor : 0,
      devMinor: isDevice(entry) ? entry.devMinor : 0,
      ...(entry.xattrs ? {xattrs: encodeXattrs(entry.xattrs)} : {}),
      ...(entry.type === 'reg' ? {digest: fileDigest(planned, placed)} : {}),
    }
    if (planned.unitCount === 0) yield first
    for (let chunk = 0; chunk < planned.unitCount; chunk++) {
      const base: TocEntry = chunk === 0 ? first : {name: entry.name, type: 'chunk'}
      const size = plan.units.chunkSizes[firstUnit + chunk]!
      yield {...base, ...placeOfChunk(planned, {chunk, chunkOffset, size, chunkSize}, placed)}
      chunkOffset += size
    }
  }
}

interface ChunkPlace {
  readonly chunk: number
  readonly chunkOffset: number
  readonly size: number
  /** The largest that a chunk may have. */
  readonly chunkSize: number
}

/** A size stands where a whole chunk was left to write, even at the end of the file, as in the reference's TOCs. */
function placeOfChunk(
  {firstUnit, unitCount}: PlannedEntry,
  {chunk, chunkOffset, size, chunkSize}: ChunkPlace,
  placed: PlacedUnits,
): Partial<TocEntry> {
  return {
    offset: placed.offsets[firstUnit + chunk]!,
    innerOffset: placed.innerOffsets[firstUnit + chunk]!,
    chunkOffset,
    chunkSize: chunk < unitCount - 1 || size === chunkSize ? size : 0,
    chunkDigest: chunkDigest(firstUnit + chunk, placed),
  }
}

function fileDigest({firstUnit, unitCount}: PlannedEntry, placed: PlacedUnits): string {
  if (unitCount === 0) return EMPTY_DIGEST
  return unitCount === 1 ? chunkDigest(firstUnit, placed) : placed.fileDigests.get(firstUnit)!
}

function chunkDigest(unit: number, {chunkHashes}: PlacedUnits): Digest {
  return digestFromHash(chunkHashes.subarray(unit * HASH_SIZE, (unit + 1) * HASH_SIZE))
}

function isDevice({type}: TarEntry): boolean {
  return type === 'char' || type === 'block'
}

/** A user or group name is written where it differs from the last one written for its id. */
function nameIfChanged(names: Map<number, string>, id: number, name: string): string {
  if (name === '' || names.get(id) === name) return ''
  names.set(id, name)
  return name
}

/** Sorted by name, as Go writes maps. */
function encodeXattrs(xattrs: ReadonlyMap<string, Uint8Array>): Record<string, string> {
  const names = [...xattrs.keys()].sort()
  return Object.fromEntries(names.map(name => [name, encodeBase64(xattrs.get(name)!)]))
}

/**
 * The years that RFC 3339 can write. Times outside, which only a broken clock or a joker gives a file, become the nearest:
 * Podman refuses a TOC with any other, and stargz-snapshotter shows none at all.
 */
const FIRST_SECOND = Date.UTC(2000, 0, 1) / 1000 - 63_082_281_600 // 0001-01-01T00:00:00Z
const LAST_SECOND = Date.UTC(9999, 11, 31, 23, 59, 59) / 1000

/** RFC 3339 in UTC, rounded to seconds; empty for the first second of the epoch, as the reference leaves it out. */
export function formatModtime(entry: TarEntry): string {
  return entry.mtimeSeconds === 0 ? '' : formatSeconds(roundedModtime(entry))
}

/** The seconds that a TOC of whole seconds gives. */
export function roundedModtime({mtimeSeconds, mtimeNanoseconds}: TarEntry): number {
  if (mtimeSeconds === 0) return 0
  return nearestTocSecond(mtimeNanoseconds >= 500_000_000 ? mtimeSeconds + 1 : mtimeSeconds)
}

/** RFC 3339 in UTC, exactly: with as many digits of the fraction as there are. */
export function formatTime({seconds, nanoseconds}: TarTime): string {
  const fraction = nanoseconds === 0 ? '' : `.${String(nanoseconds).padStart(9, '0').replace(/0+$/, '')}`
  return formatSeconds(seconds).replace('Z', `${fraction}Z`)
}

const RFC_3339 = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(?:Z|([+-])([01]\d|2[0-3]):([0-5]\d))$/

/**
 * The time that a TOC gives, in any of RFC 3339's forms; that of the epoch where it gives none, undefined for nonsense: a day
 * that its month does not have, or a leap second.
 */
export function parseTocTime(text: string | undefined): TarTime | undefined {
  if (!text) return {seconds: 0, nanoseconds: 0}
  const [, local, fraction = '', sign, hours, minutes] = RFC_3339.exec(text) ?? []
  const milliseconds = local === undefined ? Number.NaN : Date.parse(`${local}Z`)
  // Date.parse takes the 31st of April for the 1st of May.
  if (Number.isNaN(milliseconds) || !new Date(milliseconds).toISOString().startsWith(local!)) return undefined
  const offset = sign === undefined ? 0 : Number(`${sign}1`) * (Number(hours) * 3600 + Number(minutes) * 60)
  return {seconds: milliseconds / 1000 - offset, nanoseconds: Number(fraction.padEnd(9, '0'))}
}

/** The nearest time that a TOC can have, in whole seconds. */
export function nearestTocSecond(seconds: number): number {
  return Math.min(Math.max(seconds, FIRST_SECOND), LAST_SECOND)
}

function formatSeconds(seconds: number): string {
  return new Date(nearestTocSecond(seconds) * 1000).toISOString().replace('.000Z', 'Z')
}
