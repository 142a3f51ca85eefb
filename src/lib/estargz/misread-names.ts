// Names that readers who take names for places, as stargz-snapshotter does, lead elsewhere than runtimes do.

import {hasCode} from '../errors/coded-error.ts'
import {cleanPath} from '../tar/path.ts'
import type {TarEntry} from '../tar/tar-entry.ts'
import {LayerPlaces, type PlaceNode} from '../vfs/layer-places.ts'

/** Most names of a layer that are named to people. */
const MAX_NAMES = 20

/**
 * Some of the names in a layer with these entries by which such a reader finds another file, or none: of one name it takes
 * the last entry, and for a hard link what has the target's name.
 */
export function misreadNames(entries: readonly TarEntry[]): string[] {
  const places = new LayerPlaces<TarEntry>()
  /** Every file, and of hard links what they are another name of. */
  const files = new Map<TarEntry, TarEntry | undefined>()
  let isPlain = true
  for (const entry of entries) {
    try {
      const placed = places.place(entry)
      if (placed?.role !== 'node') continue
      const {replaced, through, target} = placed
      files.set(entry, target?.entry)
      if (replaced || through.length > 0) isPlain = false
    } catch (error) {
      // Nobody can say what a layer shows that no runtime can unpack.
      if (hasCode(error, 'corrupt')) return []
      throw error
    }
  }
  return isPlain ? [] : namesThatDiffer(files, places.root)
}

function namesThatDiffer(
  files: ReadonlyMap<TarEntry, TarEntry | undefined>,
  root: PlaceNode<TarEntry>,
): string[] {
  const byName = new Map([...files.keys()].map(entry => [entry.path, entry]))
  const names: string[] = []
  for (const [path, entry] of byName) {
    if (names.length === MAX_NAMES) break
    const target = files.get(entry)
    const isOtherFile = target !== undefined && byName.get(cleanPath(entry.linkName) ?? '') !== target
    if (entryAt(root, path) !== entry || isOtherFile) names.push(entry.name)
  }
  return names
}

/** The entry at a path, no link followed. */
function entryAt(root: PlaceNode<TarEntry>, path: string): TarEntry | undefined {
  let node: PlaceNode<TarEntry> | undefined = root
  for (const part of path.split('/')) node = node?.children?.get(part)
  return node?.entry
}
