// Names that may be one place in an image although they are two in their layer: lower layers have symbolic links, too.
// containerd's overlayfs never follows those, runtimes that unpack all layers into one directory do, so the order of such
// names stays. A directory that the layer describes is none of the links below it; of others nobody knows.

import type {TarEntry} from '../tar/tar-entry.ts'
import type {PlaceNode} from '../vfs/layer-places.ts'

/** An entry, and what it made or said something of. */
export interface PlacedItem {
  readonly entry: TarEntry
  readonly node: PlaceNode<TarEntry>
}

/** Those of one last component. */
interface Group {
  /** The open directories nearest above them; undefined for none. */
  readonly areas: Set<PlaceNode<TarEntry> | undefined>
  /** The last entry for which the layer leaves open where it comes to stand; those before it keep their order. */
  lastOpen: TarEntry | undefined
  last: PlacedItem | undefined
  /** The last one that is no directory, and the last that takes this name for one. */
  lastLeaf: PlacedItem | undefined
  lastBelow: PlacedItem | undefined
}

/**
 * For an entry that may meet others, those that it must not be moved before. One of each kind will do, because they have
 * theirs. `openAbove` are the directories above that were not described when the entry's turn came.
 */
export function meetingNames(
  items: () => Iterable<PlacedItem>,
  openAbove: (item: PlacedItem) => readonly PlaceNode<TarEntry>[],
): ReadonlyMap<TarEntry, readonly PlacedItem[]> {
  const mayMeet = repeatedNames(items(), openAbove)
  const groups = new Map<string, Group>()
  /** Undefined for a name that is used once, which meets none: most are, and a layer has hundreds of thousands. */
  const groupOf = (name: string): Group | undefined => {
    if (!mayMeet.has(name)) return undefined
    const group = groups.get(name) ?? {
      areas: new Set(),
      lastOpen: undefined,
      last: undefined,
      lastLeaf: undefined,
      lastBelow: undefined,
    }
    groups.set(name, group)
    return group
  }
  for (const item of items()) {
    const group = groupOf(item.node.name)
    if (!group) continue
    const open = openAbove(item)
    if (open.length > 0) group.lastOpen = item.entry
    // Below one and the same open directory, and through described ones from there, names are places.
    group.areas.add(open.at(-1))
  }
  for (const group of groups.values()) if (group.areas.size < 2) group.lastOpen = undefined
  const meeting = new Map<TarEntry, PlacedItem[]>()
  const entered = new Set<PlaceNode>()
  for (const item of items()) {
    const {node, entry} = item
    const group = groupOf(node.name)
    const open = openAbove(item)
    const before: (PlacedItem | undefined)[] = []
    if (group?.lastOpen) before.push(group.last)
    if (group && node.kind !== 'dir') before.push(group.lastBelow)
    // Once for each directory: what comes into it later finds what the first has left there.
    for (const directory of open.filter(each => !entered.has(each))) {
      entered.add(directory)
      const sameName = groupOf(directory.name)
      if (!sameName) continue
      before.push(sameName.lastLeaf)
      sameName.lastBelow = item
    }
    const met = before.filter(each => each !== undefined)
    if (met.length > 0) meeting.set(entry, met)
    if (!group) continue
    // Behind the last open one, the others need not keep their order among themselves.
    if (group.lastOpen && (group.last?.entry !== group.lastOpen || open.length > 0)) group.last = item
    if (node.kind !== 'dir') group.lastLeaf = item
  }
  return meeting
}

/** The last components that more than one item, or directory that is open above one, has. */
function repeatedNames(
  items: Iterable<PlacedItem>,
  openAbove: (item: PlacedItem) => readonly PlaceNode<TarEntry>[],
): ReadonlySet<string> {
  const seen = new Set<string>()
  const repeated = new Set<string>()
  const entered = new Set<PlaceNode>()
  const note = (name: string) => (seen.has(name) ? repeated : seen).add(name)
  for (const item of items) {
    note(item.node.name)
    for (const directory of openAbove(item)) {
      if (entered.has(directory)) continue
      entered.add(directory)
      note(directory.name)
    }
  }
  return repeated
}
