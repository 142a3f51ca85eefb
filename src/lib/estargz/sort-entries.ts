// The order of a layer's files: those that a workload needs first, in the order in which it needs them, then the rest as
// they were (eStargz spec, "Prioritized Files and Landmark Files").

import {CodedError} from '../errors/coded-error.ts'
import {cleanPath} from '../tar/path.ts'
import type {TarEntry} from '../tar/tar-entry.ts'
import {isLandmark, TOC_NAME} from './landmark.ts'

export interface SortedEntries {
  /** Prioritised files with what must stand before each: parent directories, targets of hard links. */
  readonly prioritized: readonly TarEntry[]
  /** All others, in the order of the source. */
  readonly rest: readonly TarEntry[]
  /** Prioritised paths that the layer does not have, as they were given. */
  readonly missing: readonly string[]
  /** How many of the prioritised paths the layer has. */
  readonly found: number
}

/**
 * Sorts the entries of one layer. Of several entries with one path the last is kept, in its place; landmarks and a TOC
 * of an earlier conversion are dropped. Parents that the layer does not have are no error: they are another layer's.
 */
export function sortEntries(
  entries: readonly TarEntry[],
  prioritizedPaths: readonly string[],
): SortedEntries {
  const byPath = keepLast(entries)
  const picked = new Set<TarEntry>()
  const missing: string[] = []
  let found = 0
  for (const name of new Set(prioritizedPaths)) {
    const path = cleanPath(name)
    if (path !== undefined && byPath.has(path)) {
      pick(path, byPath, picked)
      found++
    } else {
      missing.push(name)
    }
  }
  const rest = [...byPath.values()].filter(entry => !picked.has(entry))
  return {prioritized: [...picked], rest, missing, found}
}

/** The path of a hard link's target; the scanner has refused targets outside of the layer. */
export function linkTargetOf(entry: TarEntry): string {
  return cleanPath(entry.linkName) ?? ''
}

/** Entries by path, in the order in which the kept ones stand. */
function keepLast(entries: readonly TarEntry[]): Map<string, TarEntry> {
  const byPath = new Map<string, TarEntry>()
  const linked = new Map<string, TarEntry>()
  for (const entry of entries) {
    if (isLandmark(entry.path) || entry.path === TOC_NAME) continue
    if (byPath.delete(entry.path)) refuseReplacedTarget(entry, linked)
    byPath.set(entry.path, entry)
    if (entry.type === 'hardlink') linked.set(linkTargetOf(entry), entry)
  }
  return byPath
}

/**
 * A file that is replaced after another name was linked to it lives on under that name. With the first of the two
 * dropped the link would get the second's contents, silently; so such a layer is refused. No builder makes them.
 */
function refuseReplacedTarget(entry: TarEntry, linked: ReadonlyMap<string, TarEntry>): void {
  const link = linked.get(entry.path)
  if (!link || entry.type === 'dir') return
  throw new CodedError(
    'unsupported',
    `Cannot reorder the layer: ${JSON.stringify(entry.name)} is replaced after ${JSON.stringify(link.name)} was linked to it`,
  )
}

/** Adds what `path` needs, then itself; whatever is there already stays where it is. */
function pick(path: string, byPath: ReadonlyMap<string, TarEntry>, picked: Set<TarEntry>): void {
  // Links to links are followed to the end first, without recursion, because a hostile chain can be long or a loop.
  const chain = new Set<TarEntry>()
  for (let entry = byPath.get(path); entry && !chain.has(entry) && !picked.has(entry); ) {
    chain.add(entry)
    entry = entry.type === 'hardlink' ? byPath.get(linkTargetOf(entry)) : undefined
  }
  for (const entry of [...chain].reverse()) {
    for (const parent of parentsOf(entry.path)) {
      const directory = byPath.get(parent)
      if (directory) picked.add(directory)
    }
    picked.add(entry)
  }
}

/** All directories above a path, from the root (empty) down. */
function* parentsOf(path: string): Iterable<string> {
  yield ''
  for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1))
    yield path.slice(0, slash)
}
