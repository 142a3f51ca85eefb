// Places: what the names of a layer's entries come to when a runtime unpacks them one after the other. A symbolic link
// makes two names one place, and a later entry changes what a name means. Conversion, verification, mounting and
// profiling all go by this, and by nothing else. Pure.
//
// The judge is containerd (`archive.Apply`), which unpacks every layer into a directory of its own: parents of a name and
// of a hard link's target are followed within the layer, the last component never is; a link's target is cleaned before
// it is followed; whatever stands at a place is removed first, but for a directory under a directory; the root itself is
// left alone. What lower layers have at a place is unknown here.

import {CodedError} from '../errors/coded-error.ts'
import type {NodeType} from './file-tree.ts'

/** The part of a tar or TOC entry that decides its place. */
export interface NamedEntry {
  readonly type: NodeType | 'hardlink'
  /** As in the archive; byte text. */
  readonly name: string
  readonly linkName: string
}

/** What stands at a place. A new one takes the place of what is removed; a directory stays the same one. */
export interface PlaceNode<Entry extends NamedEntry = NamedEntry> {
  /** Undefined for the root. */
  readonly parent: PlaceNode<Entry> | undefined
  readonly name: string
  readonly kind: 'dir' | 'symlink' | 'file' | 'whiteout'
  /** Who says what it is: of a directory the last entry. Undefined where only the names below tell of a directory. */
  readonly entry: Entry | undefined
  /** Of a symbolic link and its hard links. */
  readonly link: string | undefined
  /** Of a directory. */
  readonly children: ReadonlyMap<string, PlaceNode<Entry>> | undefined
}

/** An entry where it came to stand. */
export interface PlacedEntry<Entry extends NamedEntry = NamedEntry> {
  readonly entry: Entry
  /**
   * `node`: the entry is something. `whiteout`: nothing of the lower layers is at its place. `opaque`: nothing of the lower
   * layers is in the directory.
   */
  readonly role: 'node' | 'whiteout' | 'opaque'
  /** A whiteout's is what the layer itself has there, if it has; that stays, because whiteouts speak of lower layers. */
  readonly node: PlaceNode<Entry>
  /** What was removed from the place; of a directory that is described again, its entry before. */
  readonly replaced: PlaceNode<Entry> | undefined
  readonly describedBefore: Entry | undefined
  /** For a hard link, what it is another name of. */
  readonly target: PlaceNode<Entry> | undefined
  /** The symbolic links on the way to its parent and to its target. */
  readonly through: readonly PlaceNode<Entry>[]
}

/** Most symbolic links followed for one name: containerd's own bound. */
const MAX_LINKS = 255
/**
 * Most components of link targets that are gone through for all names of a layer: a chain of long links costs a
 * millisecond for each name below it. With `lib` being `usr/lib`, two for each.
 */
const MAX_LINK_STEPS = 20_000_000
/** Deepest name accepted: PATH_MAX / 2 components. */
const MAX_DEPTH = 2048
/**
 * Most directories of a layer that only the names below them tell of: a name may have a thousand, and each takes half a
 * kilobyte.
 */
const MAX_IMPLIED_DIRECTORIES = 500_000

const WHITEOUT_PREFIX = '.wh.'
const OPAQUE_MARKER = '.wh..wh..opq'
/** AUFS kept its own files under this prefix; runtimes skip them. */
const AUFS_PREFIX = '.wh..wh.'

/** Files that only describe an eStargz or zstd:chunked layer: no part of the image's tree. */
const DESCRIBING = new Set(['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark'])

interface GrowingNode<Entry extends NamedEntry> extends PlaceNode<Entry> {
  readonly parent: GrowingNode<Entry> | undefined
  entry: Entry | undefined
  link: string | undefined
  readonly children: Map<string, GrowingNode<Entry>> | undefined
}

/** A layer that is unpacked entry by entry, contents and attributes aside. */
export class LayerPlaces<Entry extends NamedEntry> {
  readonly #root: GrowingNode<Entry> = newNode<Entry>(undefined, '', 'dir')
  #linkSteps = 0
  #implied = 0
  /** The directory of the last entry, under the name by which it was found without symbolic links. */
  #lastName = ''
  #lastParent = this.#root

  /** The tree so far. */
  get root(): PlaceNode<Entry> {
    return this.#root
  }

  /** Directories that were made because of the names below them. */
  get impliedCount(): number {
    return this.#implied
  }

  /**
   * Unpacks one more entry. Undefined for those that are no part of the tree: the root, landmarks, a TOC, AUFS's own files.
   * Throws `corrupt` for an entry that cannot be unpacked, and the tree stays as it was but for directories on its way;
   * `unsupported` for a layer beyond the limits.
   */
  place(entry: Entry): PlacedEntry<Entry> | undefined {
    const parts = partsOf(entry.name)
    const base = parts.pop()
    if (base === undefined || (parts.length === 0 && DESCRIBING.has(base))) return undefined
    const hidden = base.startsWith(WHITEOUT_PREFIX) ? base.slice(WHITEOUT_PREFIX.length) : undefined
    if (hidden === '' || hidden === '.' || hidden === '..') throw misplaced(entry.name, 'it hides no name')
    const through: GrowingNode<Entry>[] = []
    const parent = this.#parentOf(parts, entry.name, through)
    const common = {entry, through, replaced: undefined, describedBefore: undefined, target: undefined}
    if (base === OPAQUE_MARKER) return {...common, role: 'opaque', node: parent}
    if (base.startsWith(AUFS_PREFIX)) return undefined
    if (hidden === undefined) return this.#put(entry, parent, base, through)
    const existing = parent.children!.get(hidden)
    if (existing) return {...common, role: 'whiteout', node: existing}
    const node = newNode(parent, hidden, 'whiteout', entry)
    parent.children!.set(hidden, node)
    return {...common, role: 'whiteout', node}
  }

  /** What is at `path` now, its parents followed; undefined for nothing, and where it cannot be told. */
  find(path: string): PlaceNode<Entry> | undefined {
    const parts = partsOf(path)
    const base = parts.pop()
    if (base === undefined) return this.#root
    try {
      const {node, missing} = this.#resolve(parts, path, [])
      return missing.length > 0 ? undefined : node.children!.get(base)
    } catch (error) {
      if (error instanceof CodedError && error.code === 'corrupt') return undefined
      throw error
    }
  }

  #put(
    entry: Entry,
    parent: GrowingNode<Entry>,
    name: string,
    through: GrowingNode<Entry>[],
  ): PlacedEntry<Entry> {
    const existing = parent.children!.get(name)
    if (entry.type === 'dir' && existing?.kind === 'dir') {
      const describedBefore = existing.entry
      existing.entry = entry
      return {
        entry,
        role: 'node',
        node: existing,
        replaced: undefined,
        describedBefore,
        target: undefined,
        through,
      }
    }
    const target = entry.type === 'hardlink' ? this.#targetOf(entry, existing, through) : undefined
    const kind = target?.kind ?? kindOf(entry.type)
    const node = newNode(parent, name, kind, entry)
    node.link = target ? target.link : kind === 'symlink' ? entry.linkName : undefined
    parent.children!.set(name, node)
    // The directory of the last entry may be below what is gone.
    if (existing) {
      this.#lastName = ''
      this.#lastParent = this.#root
    }
    return {entry, role: 'node', node, replaced: existing, describedBefore: undefined, target, through}
  }

  /** A hard link names its target as the tar names entries; what stands at the link's own place is removed before. */
  #targetOf(
    entry: Entry,
    existing: GrowingNode<Entry> | undefined,
    through: GrowingNode<Entry>[],
  ): GrowingNode<Entry> {
    const parts = partsOf(entry.linkName)
    const base = parts.pop()
    if (base === undefined) throw misplaced(entry.name, 'it is a hard link to the root')
    const way: GrowingNode<Entry>[] = []
    const {node, missing} = this.#resolve(parts, entry.name, way)
    const target = missing.length > 0 ? undefined : node.children!.get(base)
    if (!target || target.kind === 'whiteout') {
      const link = JSON.stringify(entry.linkName.slice(0, 200))
      throw misplaced(entry.name, `it is a hard link to ${link}, which is not there before it`)
    }
    if (target.kind === 'dir') throw misplaced(entry.name, 'it is a hard link to a directory')
    if (existing && [target, ...way].some(above => isAtOrBelow(above, existing))) {
      throw misplaced(entry.name, 'it takes the place of what it is a hard link to')
    }
    through.push(...way)
    return target
  }

  /** The directory `parts` lead to, made where it is missing. */
  #parentOf(parts: string[], name: string, through: GrowingNode<Entry>[]): GrowingNode<Entry> {
    const path = parts.join('/')
    if (path === this.#lastName) return this.#lastParent
    const {node, missing} = this.#resolve(parts, name, through)
    let directory = node
    for (const part of missing) {
      if (++this.#implied > MAX_IMPLIED_DIRECTORIES) {
        throw new CodedError(
          'unsupported',
          `Cannot use a layer that does not describe more than ${MAX_IMPLIED_DIRECTORIES} of its directories`,
        )
      }
      const child = newNode(directory, part, 'dir')
      directory.children!.set(part, child)
      directory = child
    }
    if (through.length === 0) {
      this.#lastName = path
      this.#lastParent = directory
    }
    return directory
  }

  /** Follows symbolic links in all of `parts`, within the root, as far as there is something. */
  #resolve(
    parts: readonly string[],
    name: string,
    through: GrowingNode<Entry>[],
  ): {node: GrowingNode<Entry>; missing: string[]} {
    const pending = [...parts].reverse()
    let node = this.#root
    let missing: string[] = []
    let followed = 0
    while (pending.length > 0) {
      const part = pending.pop()!
      const child = missing.length > 0 ? undefined : node.children!.get(part)
      if (!child || child.kind === 'whiteout') missing.push(part)
      else if (child.kind === 'dir') node = child
      else if (child.kind === 'file') throw misplaced(name, 'it is below a file')
      else {
        if (++followed > MAX_LINKS) throw misplaced(name, 'the symbolic links on the way form a loop')
        through.push(child)
        const {isAbsolute, climbs, parts: target, steps} = cleanTarget(child.link!)
        this.#linkSteps += steps
        if (this.#linkSteps > MAX_LINK_STEPS) {
          throw new CodedError(
            'unsupported',
            'Cannot place a layer: its symbolic links take too long to follow',
          )
        }
        if (isAbsolute) node = this.#root
        for (let count = climbs; count > 0 && node.parent; count--) node = node.parent
        pending.push(...target.reverse())
        missing = []
      }
    }
    return {node, missing}
  }
}

/** A layer that has been unpacked. */
export interface PlacedLayer<Entry extends NamedEntry = NamedEntry> {
  readonly entries: readonly PlacedEntry<Entry>[]
  readonly places: LayerPlaces<Entry>
}

/** Places all entries of a layer; throws as `LayerPlaces` does for the first that has no place. */
export function placeLayer<Entry extends NamedEntry>(entries: Iterable<Entry>): PlacedLayer<Entry> {
  const places = new LayerPlaces<Entry>()
  const placed: PlacedEntry<Entry>[] = []
  for (const entry of entries) {
    const place = places.place(entry)
    if (place) placed.push(place)
  }
  return {entries: placed, places}
}

/** The path of a place: clean, relative, through directories only; empty for the root. */
export function pathOf(node: PlaceNode): string {
  const parts: string[] = []
  for (let at: PlaceNode | undefined = node; at?.parent; at = at.parent) parts.push(at.name)
  return parts.reverse().join('/')
}

function isAtOrBelow(node: PlaceNode, top: PlaceNode): boolean {
  for (let at: PlaceNode | undefined = node; at; at = at.parent) if (at === top) return true
  return false
}

function newNode<Entry extends NamedEntry>(
  parent: GrowingNode<Entry> | undefined,
  name: string,
  kind: PlaceNode['kind'],
  entry?: Entry,
): GrowingNode<Entry> {
  return {parent, name, kind, entry, link: undefined, children: kind === 'dir' ? new Map() : undefined}
}

function kindOf(type: NamedEntry['type']): PlaceNode['kind'] {
  return type === 'dir' || type === 'symlink' ? type : 'file'
}

/** The components of a name as if the root were `/`: `..` cannot lead out. */
function partsOf(name: string): string[] {
  if (name.includes('\0')) throw misplaced(name, 'it has a NUL')
  const {parts} = cleanTarget(name)
  if (parts.length > MAX_DEPTH) throw misplaced(name, `it is more than ${MAX_DEPTH} directories deep`)
  return parts
}

/** `..` goes with the name before it; `climbs` are those that no name is left for. */
function cleanTarget(target: string) {
  const parts: string[] = []
  let climbs = 0
  const all = target.split('/')
  for (const part of all) {
    if (part === '..') {
      if (parts.pop() === undefined) climbs++
    } else if (part !== '' && part !== '.') parts.push(part)
  }
  return {isAbsolute: target.startsWith('/'), climbs, parts, steps: all.length}
}

function misplaced(name: string, problem: string): CodedError {
  return new CodedError(
    'corrupt',
    `Cannot place ${JSON.stringify(name.slice(0, 200))} of a layer: ${problem}`,
  )
}
