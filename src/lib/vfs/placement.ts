// Where the entries of a layer lie in the image's tree: names cleaned, symbolic links among their parents followed
// as an unpacking runtime follows them, whiteouts told apart. Pure; extraction, mounting and profiling all go by it.

import {CodedError} from '../errors/coded-error.ts'
import type {NodeType} from './file-tree.ts'

/** The part of a tar or TOC entry that decides its place. */
export interface NamedEntry {
  readonly type: NodeType | 'hardlink'
  /** As in the archive; byte text. */
  readonly name: string
  readonly linkName: string
}

/** An entry with its place. `path` is clean, relative, and runs through directories only; the root itself is ''. */
export interface PlacedEntry<Entry extends NamedEntry = NamedEntry> {
  readonly entry: Entry
  readonly path: string
  /**
   * `node`: something at `path`. `whiteout`: nothing of the lower layers at `path`. `opaque`: nothing of the lower
   * layers in the directory `path`.
   */
  readonly role: 'node' | 'whiteout' | 'opaque'
  /** For a hard link, the place of its target. */
  readonly target?: string
}

/** Most symbolic links followed for one name: MAXSYMLINKS of Linux. */
const MAX_LINKS = 40
/**
 * Most components of link targets that are gone through for all names of a layer: a chain of long links costs a
 * millisecond for each name below it. With `lib` being `usr/lib`, two for each.
 */
const MAX_LINK_STEPS = 20_000_000
/** Deepest name accepted: PATH_MAX / 2 components. */
const MAX_DEPTH = 2048

const WHITEOUT_PREFIX = '.wh.'
const OPAQUE_MARKER = '.wh..wh..opq'
/** AUFS kept its own files under this prefix; runtimes skip them. */
const AUFS_PREFIX = '.wh..wh.'

/** Files that only describe an eStargz or zstd:chunked layer: no part of the image's tree. */
const DESCRIBING = new Set(['stargz.index.json', '.prefetch.landmark', '.no.prefetch.landmark'])

/** Only symbolic links and the way to them; whatever is not here is a directory for all that placing needs. */
interface LinkNode {
  readonly link?: string
  readonly children: Map<string, LinkNode>
}

/** Places layers one after the other, from the lowest. */
export interface Placer {
  /** Throws `corrupt` for a name that cannot lie in the tree, `unsupported` for links that take too long to follow. */
  placeLayer<Entry extends NamedEntry>(entries: Iterable<Entry>): PlacedEntry<Entry>[]
}

/** A placer for one image. */
export function createPlacer(): Placer {
  const root: LinkNode = {children: new Map()}
  return {
    placeLayer: entries => {
      const placed = []
      const links = {root, steps: 0}
      for (const entry of entries) {
        const place = placeEntry(links, entry)
        if (place === undefined) continue
        remember(root, place)
        placed.push(place)
      }
      return placed
    },
  }
}

/** The links of an image, and how many components of their targets placing a layer has gone through. */
interface Links {
  readonly root: LinkNode
  steps: number
}

function placeEntry<Entry extends NamedEntry>(links: Links, entry: Entry): PlacedEntry<Entry> | undefined {
  const parts = partsOf(entry.name)
  if (parts.length === 1 && DESCRIBING.has(parts[0]!)) return undefined
  const base = parts.pop()
  if (base === undefined) return {entry, path: '', role: 'node'}
  const parent = resolve(links, parts, entry.name)
  const at = (name: string) => [...parent, name].join('/')
  if (base === OPAQUE_MARKER) return {entry, path: parent.join('/'), role: 'opaque'}
  if (base.startsWith(AUFS_PREFIX)) return undefined
  if (base.startsWith(WHITEOUT_PREFIX)) {
    const hidden = base.slice(WHITEOUT_PREFIX.length)
    if (hidden === '' || hidden === '.' || hidden === '..') throw misplaced(entry.name, 'it hides no name')
    return {entry, path: at(hidden), role: 'whiteout'}
  }
  if (entry.type !== 'hardlink') return {entry, path: at(base), role: 'node'}
  return {entry, path: at(base), role: 'node', target: placeTarget(links, entry)}
}

/** A hard link names its target as the tar names entries: the last component is not followed. */
function placeTarget(links: Links, entry: NamedEntry): string {
  const parts = partsOf(entry.linkName)
  const base = parts.pop()
  if (base === undefined) throw misplaced(entry.name, 'it is a hard link to the root')
  return [...resolve(links, parts, entry.linkName), base].join('/')
}

/** The components of a name as if the root were `/`: `..` cannot lead out. */
function partsOf(name: string): string[] {
  if (name.includes('\0')) throw misplaced(name, 'it has a NUL')
  const parts: string[] = []
  for (const part of name.split('/')) {
    if (part === '..') parts.pop()
    else if (part !== '' && part !== '.') parts.push(part)
  }
  if (parts.length > MAX_DEPTH) throw misplaced(name, `it is more than ${MAX_DEPTH} directories deep`)
  return parts
}

/** Follows symbolic links in all of `parts`, within the root. */
function resolve(links: Links, parts: readonly string[], name: string): string[] {
  const {root} = links
  const pending = [...parts].reverse()
  let resolved: string[] = []
  let trail: Array<LinkNode | undefined> = [root]
  let followed = 0
  while (pending.length > 0) {
    const part = pending.pop()!
    if (part === '' || part === '.') continue
    if (part === '..') {
      resolved.pop()
      if (trail.length > 1) trail.pop()
      continue
    }
    const node = trail.at(-1)?.children.get(part)
    if (node?.link === undefined) {
      resolved.push(part)
      trail.push(node)
      continue
    }
    if (++followed > MAX_LINKS) throw misplaced(name, 'the symbolic links on the way form a loop')
    if (node.link.startsWith('/')) {
      resolved = []
      trail = [root]
    }
    const target = node.link.split('/')
    links.steps += target.length
    if (links.steps > MAX_LINK_STEPS) {
      throw new CodedError('unsupported', 'Cannot place a layer: its symbolic links take too long to follow')
    }
    pending.push(...target.reverse())
  }
  return resolved
}

/** Keeps the tree of links as the entry leaves it. */
function remember(root: LinkNode, placed: PlacedEntry): void {
  const parts = placed.path === '' ? [] : placed.path.split('/')
  const base = parts.pop()
  if (base === undefined) return
  const isLink = placed.role === 'node' && placed.entry.type === 'symlink'
  let node: LinkNode | undefined = root
  for (const part of parts) {
    let child: LinkNode | undefined = node.children.get(part)
    if (child === undefined) {
      if (!isLink) return
      child = {children: new Map()}
      node.children.set(part, child)
    }
    node = child
  }
  const existing = node.children.get(base)
  if (isLink) node.children.set(base, {link: placed.entry.linkName, children: new Map()})
  else if (placed.role === 'opaque') existing?.children.clear()
  else if (placed.role === 'whiteout' || placed.entry.type !== 'dir' || existing?.link !== undefined) {
    node.children.delete(base)
  }
}

function misplaced(name: string, problem: string): CodedError {
  return new CodedError(
    'corrupt',
    `Cannot place ${JSON.stringify(name.slice(0, 200))} of a layer: ${problem}`,
  )
}
