// Profiles: record files that also say which parts of each file were read, and when. Whoever reads records, the reference
// too, passes over that, so that a profile serves wherever a record does.
//
// `{"path":"usr/bin/app","manifestDigest":"sha256:…","layerIndex":2,"reads":[[0,4096,12],[65536,131072,40]]}`

import {CodedError} from '../errors/coded-error.ts'
import type {Digest} from '../oci/digest.ts'
import {mergeReadRanges, type ReadRange} from '../prefetch/read-ranges.ts'
import {parseRecord, type RecordEntry} from './record-file.ts'

/** What a workload read of an image of this manifest, or of others, in the order in which it did. */
export interface ImageReads {
  readonly manifestDigest: Digest
  readonly layerIndex: number
}

/** What comes first in a layer: its files, and what is read of them where any entry says that. */
export interface ProfiledFiles {
  readonly paths: readonly string[]
  readonly reads: ReadonlyMap<string, readonly ReadRange[]> | undefined
}

/** The bytes of a profile. */
export function encodeProfile(entries: readonly RecordEntry[]): Uint8Array {
  const lines = entries.map(({path, manifestDigest, layerIndex, reads}) => {
    const ranges = reads?.map(({offset, end, atMs}) => [offset, end, atMs])
    return `${JSON.stringify({path, manifestDigest, layerIndex, reads: ranges})}\n`
  })
  return new TextEncoder().encode(lines.join(''))
}

/** Several profiles, or records, as one: what is read earliest in any of them is first. */
export function mergeProfiles(profiles: readonly (readonly RecordEntry[])[]): readonly RecordEntry[] {
  const [only] = profiles
  if (only && profiles.length === 1) return only
  const merged = new Map<string, {entry: RecordEntry; rank: number}>()
  for (const entries of profiles) {
    let lastMs = 0
    for (const [index, entry] of entries.entries()) {
      const key = `${entry.path}\0${entry.manifestDigest ?? ''}\0${entry.layerIndex ?? ''}`
      // Files that were opened and not read stay behind those before them.
      lastMs = Math.max(lastMs, startOf(entry) ?? lastMs)
      const rank = (startOf(entry) ?? lastMs) + index / entries.length
      const known = merged.get(key)
      merged.set(key, {
        entry: known ? joinEntries(known.entry, entry) : entry,
        rank: Math.min(rank, known?.rank ?? rank),
      })
    }
  }
  return [...merged.values()].sort((a, b) => a.rank - b.rank).map(({entry}) => entry)
}

/**
 * What a profile says of one layer. Entries of the very image count for the layer that they name; those of others, or of
 * none, for every layer that has such a file.
 */
export function profiledFiles(
  entries: readonly RecordEntry[],
  {manifestDigest, layerIndex}: ImageReads,
): ProfiledFiles {
  const isOwn = entries.some(entry => entry.manifestDigest === manifestDigest)
  const chosen = isOwn
    ? entries.filter(entry => entry.manifestDigest === manifestDigest && entry.layerIndex === layerIndex)
    : entries
  const paths = [...new Set(chosen.map(({path}) => path))]
  if (!entries.some(({reads}) => reads)) return {paths, reads: undefined}
  const reads = new Map<string, readonly ReadRange[]>()
  let lastMs = 0
  for (const entry of chosen) {
    lastMs = Math.max(lastMs, startOf(entry) ?? 0)
    // Of a file that only a record names everything may be read.
    const own = entry.reads ?? [{offset: 0, end: Number.MAX_SAFE_INTEGER, atMs: lastMs}]
    if (own.length > 0) reads.set(entry.path, mergeReadRanges([...(reads.get(entry.path) ?? []), ...own]))
  }
  return {paths, reads}
}

/** Parses profiles and records alike; throws `invalid-argument`, which says the line. */
export function parseProfile(bytes: Uint8Array, where: string): readonly RecordEntry[] {
  const entries = parseRecord(bytes, where)
  if (entries.length > 0) return entries
  throw new CodedError('invalid-argument', `Cannot use the profile ${where}: it names no file`)
}

function startOf({reads}: RecordEntry): number | undefined {
  return reads && reads.length > 0 ? Math.min(...reads.map(({atMs}) => atMs)) : undefined
}

function joinEntries(a: RecordEntry, b: RecordEntry): RecordEntry {
  if (!a.reads || !b.reads) {
    const {reads: _, ...whole} = a
    return whole
  }
  return {...a, reads: mergeReadRanges([...a.reads, ...b.reads])}
}
