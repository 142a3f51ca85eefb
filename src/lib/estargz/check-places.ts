// Checks of what a layer unpacks to, by the places that its names lead to: whether runtimes can unpack it, and whether they
// come to what a TOC describes.

import {describeError, hasCode} from '../errors/coded-error.ts'
import {baseName} from '../tar/path.ts'
import type {TarEntry} from '../tar/tar-entry.ts'
import {LayerPlaces, type NamedEntry, type PlacedEntry, type PlaceNode, pathOf} from '../vfs/layer-places.ts'
import type {Finding} from './finding.ts'

/** The prefix of files that delete (OCI image-spec, layer.md "Whiteouts"). */
const WHITEOUT = '.wh.'

/** Finds what containerd cannot unpack: hard links before or without their target, files below files, loops of links. */
export function checkPlaces(entries: readonly TarEntry[]): Finding[] {
  const findings: Finding[] = []
  placeAll(entries, {
    onUnplaced: ({path}, message) => {
      findings.push({kind: baseName(path).startsWith(WHITEOUT) ? 'whiteout' : 'unpack', path, message})
    },
    onPlaced: ({entry, role, node}) => {
      if (role !== 'whiteout' || node.entry === entry) return
      const message = `Whiteout ${JSON.stringify(entry.path)} hides what the layer itself has before it: runtimes differ in what they leave`
      findings.push({kind: 'whiteout', path: entry.path, message})
    },
  })
  return findings
}

/** An entry of a TOC, with what describes its file. */
export interface DescribedEntry<File> extends NamedEntry {
  readonly file: File
}

/**
 * Compares what the entries of a TOC and those of a tar come to, where the two do not follow each other one for one.
 * `differenceOf` says how a file differs from what describes it.
 */
export function compareUnpacked<File>(
  described: Iterable<DescribedEntry<File>>,
  entries: readonly TarEntry[],
  differenceOf: (file: File, entry: TarEntry) => string | undefined,
): Finding[] {
  const toc = placeAll(described)
  const tar = placeAll(entries)
  const findings: Finding[] = []
  const pending: [PlaceNode<DescribedEntry<File>> | undefined, PlaceNode<TarEntry> | undefined][] = [
    [toc.places.root, tar.places.root],
  ]
  for (let pair = pending.pop(); pair; pair = pending.pop()) {
    const [inToc, inTar] = pair
    const path = pathOf(inTar ?? inToc!)
    const problem = problemOf(
      inToc && {kind: inToc.kind, origin: toc.originOf(inToc)?.file},
      inTar && {kind: inTar.kind, origin: tar.originOf(inTar)},
      differenceOf,
    )
    if (problem) findings.push({kind: 'tree', path, message: `${JSON.stringify(path)} ${problem}`})
    const names = new Set([...(inToc?.children?.keys() ?? []), ...(inTar?.children?.keys() ?? [])])
    for (const name of names) pending.push([inToc?.children?.get(name), inTar?.children?.get(name)])
  }
  return findings
}

interface Found<Origin> {
  readonly kind: PlaceNode['kind']
  /** Undefined for a directory that nothing describes. */
  readonly origin: Origin | undefined
}

function problemOf<File>(
  inToc: Found<File> | undefined,
  inTar: Found<TarEntry> | undefined,
  differenceOf: (file: File, entry: TarEntry) => string | undefined,
): string | undefined {
  if (!inTar) return 'is mounted from the TOC, but not unpacked from the tar'
  if (!inToc) return 'is unpacked from the tar, but not mounted from the TOC'
  if (inToc.kind !== inTar.kind)
    return 'is another kind of file unpacked from the tar than mounted from the TOC'
  if (!inToc.origin || !inTar.origin) {
    return inToc.origin || inTar.origin ? 'is described in only one of tar and TOC' : undefined
  }
  return differenceOf(inToc.origin, inTar.origin)
}

interface Listener<Entry extends NamedEntry> {
  onPlaced?(placed: PlacedEntry<Entry>): void
  onUnplaced?(entry: Entry, message: string): void
}

function placeAll<Entry extends NamedEntry>(entries: Iterable<Entry>, listener: Listener<Entry> = {}) {
  const places = new LayerPlaces<Entry>()
  const origins = new Map<PlaceNode<Entry>, Entry>()
  const originOf = (node: PlaceNode<Entry>) => origins.get(node) ?? node.entry
  for (const entry of entries) {
    try {
      const placed = places.place(entry)
      if (!placed) continue
      const origin = placed.target && originOf(placed.target)
      if (origin) origins.set(placed.node, origin)
      listener.onPlaced?.(placed)
    } catch (error) {
      if (!hasCode(error, 'corrupt')) throw error
      listener.onUnplaced?.(entry, describeError(error))
    }
  }
  return {places, originOf}
}
