// The order of a layer's files: those that a workload needs first, in the order in which it needs them, then the rest as
// they were (eStargz spec, "Prioritized Files and Landmark Files"). Whatever the order, the layer unpacks to the same.

import type {TarEntry} from '../tar/tar-entry.ts'
import {EntryOrder} from './entry-order.ts'
import {isDescribing} from './landmark.ts'
import {misreadNames} from './misread-names.ts'

export interface SortedEntries {
  /** Prioritised files with what must stand before each: parent directories, targets of hard links. */
  readonly prioritized: readonly TarEntry[]
  /** All others, in the order of the source. */
  readonly rest: readonly TarEntry[]
  /** Prioritised paths that the layer does not have when all is unpacked, as they were given. */
  readonly missing: readonly string[]
  /** Prioritised paths whose files stay where they are, because the layer would unpack to something else. */
  readonly unmoved: readonly string[]
  /** How many of the prioritised paths were moved. */
  readonly found: number
  /** See `misreadNames`. */
  readonly misread: readonly string[]
  /** The entry of what a path leads to when all is unpacked. */
  readonly find: (path: string) => TarEntry | undefined
}

/**
 * Sorts the entries of one layer. What a later entry replaces is dropped, unless something else needs it; so are landmarks
 * and a TOC of an earlier conversion. Parents that the layer does not have are no error: they are another layer's.
 */
export function sortEntries(
  entries: readonly TarEntry[],
  prioritizedPaths: readonly string[],
): SortedEntries {
  const own = entries.filter(({path}) => !isDescribing(path))
  const order = new EntryOrder(own)
  const picked = new Set<TarEntry>()
  const missing: string[] = []
  const unmoved: string[] = []
  let found = 0
  for (const path of new Set(prioritizedPaths)) {
    if (!order.find(path)) missing.push(path)
    else if (order.pick(path, picked)) found++
    else unmoved.push(path)
  }
  const rest = own.filter(entry => order.isKept(entry) && !picked.has(entry))
  const prioritized = [...picked]
  const misread = order.isPlain ? [] : misreadNames([...prioritized, ...rest])
  return {prioritized, rest, missing, unmoved, found, misread, find: path => order.find(path)}
}
