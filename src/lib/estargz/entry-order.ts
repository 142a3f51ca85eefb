// What of a layer must stand before what, so that it unpacks to the same in another order: a property of places, not of
// names. All is linear in the layer, whatever it is made of.

import {hasCode} from '../errors/coded-error.ts'
import {cleanPath} from '../tar/path.ts'
import type {TarEntry} from '../tar/tar-entry.ts'
import {LayerPlaces, type PlacedEntry, type PlaceNode, pathOf} from '../vfs/layer-places.ts'
import {meetingNames, type PlacedItem} from './meeting-names.ts'

type Node = PlaceNode<TarEntry>
type Placed = PlacedEntry<TarEntry>

/** An entry, and what it made or said something of. The root's entry, which runtimes ignore, made nothing. */
interface Item {
  readonly entry: TarEntry
  readonly node: Node | undefined
}

/** The entries of a layer, without what only describes it, and the order that they need. */
export class EntryOrder {
  readonly #entries: readonly TarEntry[]
  readonly #places = new LayerPlaces<TarEntry>()
  /** Entries of which more is to be known than what they made: few in most layers. */
  readonly #odd = new Map<TarEntry, Placed>()
  /** What each made or said something of. */
  readonly #nodes: (Node | undefined)[] = []
  /** Whiteouts and AUFS's files, by the tar's name for them. */
  readonly #marks = new Map<string, Item>()
  /** Whiteouts, by the path that they hide. */
  readonly #whiteouts = new Map<string, Item>()
  readonly #opaque = new Map<Node, Item>()
  /** Directories that are described more than once. */
  readonly #descriptions = new Map<Node, Descriptions>()
  /** Directories on the way of names that lead through symbolic links. */
  readonly #reachedByLinks = new Set<Node>()
  readonly #replacedBy = new Map<Node, Node>()
  /** By what took their places, at once or after others that did. */
  readonly #replacedWhiteouts = new Map<Node, Node>()
  #root: TarEntry | undefined
  #isUnpackable = true
  #hasRepeated = false
  #isPlain = true
  /** Undefined: all are. */
  #kept: Set<TarEntry> | undefined
  /** What must stay behind others that still need what it replaces. */
  readonly #fixed = new Set<Node>()
  readonly #movable = new Map<TarEntry, boolean>()
  /** Made when something is picked. */
  #meeting: ReadonlyMap<TarEntry, readonly PlacedItem[]> | undefined

  constructor(entries: readonly TarEntry[]) {
    this.#entries = entries
    for (const entry of entries) this.#nodes.push(this.#place(entry))
    const mayDrop = this.#hasRepeated || this.#replacedBy.size > 0 || this.#descriptions.size > 0
    if (mayDrop && this.#isUnpackable) this.#keepWhatIsNeeded()
  }

  /** Whether the layer unpacks to something else without the entry; always, where no runtime can unpack the layer. */
  isKept(entry: TarEntry): boolean {
    return this.#kept?.has(entry) ?? true
  }

  /** The entry of what `path` leads to when all is unpacked. */
  find(path: string): TarEntry | undefined {
    return this.#itemAt(path)?.entry
  }

  /**
   * Adds what is at `path` to `picked`, after all that must stand before it; whatever is there already stays where it is.
   * False when the layer would unpack to something else then, or nothing is known to be there.
   */
  pick(path: string, picked: Set<TarEntry>): boolean {
    const item = this.#itemAt(path)
    if (!item || !this.#isUnpackable || !this.#isMovable(item)) return false
    visitAfterDependencies(item, {
      isDone: ({entry}) => picked.has(entry),
      dependenciesOf: each => this.#before(each),
      finish: ({entry}) => picked.add(entry),
    })
    return true
  }

  /** Whether all names are places, and each is taken once. */
  get isPlain(): boolean {
    return this.#isPlain
  }

  #place(entry: TarEntry): Node | undefined {
    if (entry.path === '') {
      this.#hasRepeated ||= this.#root !== undefined
      this.#root = entry
      return undefined
    }
    try {
      const placed = this.#places.place(entry)
      if (placed) this.#note(placed)
      else this.#marks.set(entry.path, {entry, node: undefined})
      return placed?.node
    } catch (error) {
      if (!hasCode(error, 'corrupt')) throw error
      this.#isUnpackable = false
      this.#marks.set(entry.path, {entry, node: undefined})
      return undefined
    }
  }

  #note(placed: Placed): void {
    const {entry, node, role, replaced, describedBefore, target, through} = placed
    const isOdd = role !== 'node' || replaced || describedBefore || target || through.length > 0
    if (isOdd) this.#odd.set(entry, placed)
    if (replaced || through.length > 0) this.#isPlain = false
    if (through.length > 0)
      for (const directory of directoriesAbove(node)) this.#reachedByLinks.add(directory)
    const item = {entry, node}
    if (replaced) this.#replacedBy.set(replaced, node)
    const whiteout =
      replaced?.kind === 'whiteout' ? replaced : replaced && this.#replacedWhiteouts.get(replaced)
    if (whiteout) this.#replacedWhiteouts.set(node, whiteout)
    if (role !== 'node') this.#noteMark(item, role)
    if (!describedBefore) return
    const known = this.#descriptions.get(node)
    this.#descriptions.set(node, {
      first: known?.first ?? describedBefore,
      isLastEnough:
        (known?.isLastEnough ?? true) && through.length === 0 && hasAttributesOf(entry, describedBefore),
    })
  }

  /** Only the first of several that say the same counts. */
  #noteMark(item: PlacedItem, role: 'whiteout' | 'opaque'): void {
    const {entry, node} = item
    const isRepeated =
      role === 'opaque' ? this.#opaque.has(node) : node.kind === 'whiteout' && node.entry !== entry
    this.#hasRepeated ||= isRepeated
    if (isRepeated) return
    this.#marks.set(entry.path, item)
    if (role === 'opaque') this.#opaque.set(node, item)
    else this.#whiteouts.set(pathOf(node), item)
  }

  *#placedItems(): Generator<PlacedItem> {
    for (const [index, entry] of this.#entries.entries()) {
      const node = this.#nodes[index]
      if (node && this.isKept(entry) && this.#odd.get(entry)?.role !== 'opaque') yield {entry, node}
    }
  }

  #itemAt(path: string): Item | undefined {
    const clean = cleanPath(path)
    if (clean === undefined) return undefined
    if (clean === '') return this.#root && {entry: this.#root, node: undefined}
    const node = this.#places.find(clean)
    if (node?.entry && node.kind !== 'whiteout') return {entry: node.entry, node}
    return this.#marks.get(clean)
  }

  /** Keeps what is there in the end, what that needed on its way, and whatever speaks of lower layers. */
  #keepWhatIsNeeded(): void {
    this.#kept = new Set(this.#root ? [this.#root] : [])
    const pending: Item[] = [...this.#marks.values()].filter(item => this.#isMarkLive(item))
    pending.push(...itemsBelow(this.#places.root))
    for (let item = pending.pop(); item; item = pending.pop()) {
      if (this.#kept.has(item.entry)) continue
      this.#kept.add(item.entry)
      for (const remover of this.#fixWhatReplaces(item.node)) pending.push(remover)
      for (const needed of this.#needs(item)) pending.push(needed)
    }
  }

  /** Whether the directory that a whiteout or another mark speaks of is still there. */
  #isMarkLive({entry, node}: Item): boolean {
    if (!node) return true
    return isLive(this.#odd.get(entry)!.role === 'opaque' ? node : node.parent!)
  }

  /**
   * What takes the place of something that is still needed stays behind all of it. Gives out what takes away a directory: it is
   * needed, too, since a directory that comes there later would have what is in the first one.
   */
  *#fixWhatReplaces(node: Node | undefined): Generator<Item> {
    for (let at = node; at; at = at.parent) {
      if (at.kind === 'whiteout') continue
      const remover = at.kind === 'dir' && this.#replacedBy.get(at)
      if (remover) yield* itemOf(remover)
      for (let by = this.#replacedBy.get(at); by && !this.#fixed.has(by); by = this.#replacedBy.get(by)) {
        this.#fixed.add(by)
      }
    }
  }

  /** Without these an entry would come to stand elsewhere, or nowhere: targets, directories, links on the way. */
  *#needs({entry, node}: Item): Generator<Item> {
    const odd = this.#odd.get(entry)
    if (odd?.target) yield* itemOf(odd.target)
    if (this.#root && entry !== this.#root) yield {entry: this.#root, node: undefined}
    if (!node) return
    for (const directory of directoriesAbove(node)) yield* this.#descriptionsOf(directory, entry)
    if (odd?.role === 'opaque') yield* this.#descriptionsOf(node, entry)
    for (const link of odd?.through ?? []) yield* itemOf(link)
    if (odd?.describedBefore && !this.#isLastEnough(node)) {
      yield {entry: odd.describedBefore, node}
    }
  }

  /** The description of a directory that stands for all, if there was one before `entry`. */
  *#descriptionsOf(directory: Node, entry: TarEntry): Generator<Item> {
    if (!this.#wasDescribed(directory, entry)) return
    const several = this.#descriptions.get(directory)
    const description = several && !this.#isLastEnough(directory) ? several.first : directory.entry!
    yield {entry: description, node: directory}
  }

  /**
   * Whether a directory is the same with only the last of its descriptions. The first is needed, too, where it takes the place of
   * something, before names that are below; and before a name that leads into it through a symbolic link: GNU tar sets the
   * mode of a directory that it had to make last of all.
   */
  #isLastEnough(directory: Node): boolean {
    const {first, isLastEnough} = this.#descriptions.get(directory)!
    return isLastEnough && !this.#odd.get(first)?.replaced && !this.#reachedByLinks.has(directory)
  }

  #wasDescribed(directory: Node, entry: TarEntry): boolean {
    const first = this.#descriptions.get(directory)?.first ?? directory.entry
    return first !== undefined && first.headerOffset < entry.headerOffset
  }

  /** What must stand before an entry. */
  *#before(item: Item): Generator<Item> {
    yield* this.#needs(item)
    const {entry, node} = item
    if (!node) return
    const whiteout = this.#replacedWhiteouts.get(node)
    if (whiteout) yield* itemOf(whiteout)
    for (const directory of directoriesAbove(node)) {
      if (directory.entry) continue
      for (const mark of [this.#whiteouts.get(pathOf(directory)), this.#opaque.get(directory)]) {
        if (mark && mark.entry.headerOffset < entry.headerOffset) yield mark
      }
    }
    this.#meeting ??= this.#meetingNames()
    yield* this.#meeting.get(entry) ?? []
  }

  #meetingNames(): ReadonlyMap<TarEntry, readonly PlacedItem[]> {
    if (this.#places.impliedCount === 0) return new Map()
    return meetingNames(
      () => this.#placedItems(),
      ({node, entry}) => directoriesAbove(node).filter(each => !this.#wasDescribed(each, entry)),
    )
  }

  #isMovable(item: Item): boolean {
    const movable = this.#movable
    visitAfterDependencies(item, {
      isDone: ({entry}) => movable.has(entry),
      dependenciesOf: each => this.#before(each),
      finish: ({entry, node}, dependencies) => {
        const isFree =
          !(node && this.#fixed.has(node)) && dependencies.every(each => movable.get(each.entry) !== false)
        movable.set(entry, isFree)
      },
    })
    return movable.get(item.entry)!
  }
}

interface Descriptions {
  readonly first: TarEntry
  /** Whether the last lacks none of the others' attributes. */
  readonly isLastEnough: boolean
}

function hasAttributesOf(entry: TarEntry, other: TarEntry): boolean {
  return [...(other.xattrs?.keys() ?? [])].every(name => entry.xattrs?.has(name))
}

function* itemOf(node: Node): Generator<Item> {
  if (node.entry) yield {entry: node.entry, node}
}

/** All directories above, from the topmost down, without the root. */
function directoriesAbove(node: Node): Node[] {
  const above: Node[] = []
  for (let at = node.parent; at?.parent; at = at.parent) above.push(at)
  return above.reverse()
}

function* itemsBelow(root: Node): Generator<Item> {
  const pending = [root]
  for (let node = pending.pop(); node; node = pending.pop()) {
    yield* itemOf(node)
    if (node.children) for (const child of node.children.values()) pending.push(child)
  }
}

function isLive(node: Node): boolean {
  for (let at = node; at.parent; at = at.parent) if (at.parent.children!.get(at.name) !== at) return false
  return true
}

interface Visit {
  isDone(item: Item): boolean
  dependenciesOf(item: Item): Iterable<Item>
  finish(item: Item, dependencies: readonly Item[]): void
}

/** Without recursion: a hostile chain can be longer than a stack. */
function visitAfterDependencies(start: Item, {isDone, dependenciesOf, finish}: Visit): void {
  if (isDone(start)) return
  const under = new Set([start.entry])
  const stack = [{item: start, dependencies: [...dependenciesOf(start)], next: 0}]
  for (let top = stack.at(-1); top; top = stack.at(-1)) {
    const dependency = top.dependencies[top.next++]
    if (!dependency) {
      finish(top.item, top.dependencies)
      stack.pop()
    } else if (!isDone(dependency) && !under.has(dependency.entry)) {
      under.add(dependency.entry)
      stack.push({item: dependency, dependencies: [...dependenciesOf(dependency)], next: 0})
    }
  }
}
