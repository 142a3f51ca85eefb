// Which layer an accessed file comes from: the layers are searched from the top, and whatever hides a lower layer's file
// in the merged tree hides it here too.

import {cleanPath} from '../record/clean-path.ts'
import {type NamedEntry, type PlacedLayer, type PlaceNode, pathOf} from '../vfs/layer-places.ts'

/**
 * A file in a layer. `name` is what a conversion prioritises: the tar's name for it, clean; the path where that name leads
 * elsewhere by the layer's end.
 */
export interface LocatedFile {
  readonly layerIndex: number
  readonly name: string
}

export interface LayerMap {
  /** Where `path` (clean, free of symbolic links) comes from; undefined when it is in no layer. */
  locate(path: string): LocatedFile | undefined
}

/** Indexes the placed entries of each layer, lowest first. */
export function mapLayers(layers: readonly PlacedLayer[]): LayerMap {
  const views = layers.map(({entries, places}) => {
    const opaque = new Set<PlaceNode>()
    for (const {role, node} of entries) if (role === 'opaque') opaque.add(node)
    return {places, opaque}
  })
  return {
    locate: path => {
      for (let layerIndex = views.length - 1; layerIndex >= 0; layerIndex--) {
        const {places, opaque} = views[layerIndex]!
        const {node, isHidden} = walk(places.root, path, opaque)
        if (node?.kind === 'file' && hasContents(node.entry)) return {layerIndex, name: nameOf(node, places)}
        if (isHidden) return undefined
      }
      return undefined
    },
  }
}

/** What a layer has at `path`, and whether it hides what lower layers have there. */
function walk(
  root: PlaceNode,
  path: string,
  opaque: ReadonlySet<PlaceNode>,
): {node: PlaceNode | undefined; isHidden: boolean} {
  let node = root
  let isHidden = opaque.has(root)
  for (const part of path.split('/')) {
    const child = node.children?.get(part)
    if (!child) return {node: undefined, isHidden: isHidden || node.kind !== 'dir'}
    node = child
    isHidden ||= opaque.has(node)
  }
  return {node, isHidden: isHidden || node.kind !== 'dir'}
}

/** A device has none, and no name of its own in a profile. */
function hasContents(entry: NamedEntry | undefined): boolean {
  return entry?.type === 'reg' || entry?.type === 'hardlink'
}

function nameOf(node: PlaceNode, places: PlacedLayer['places']): string {
  const name = node.entry && cleanPath(node.entry.name)
  return name !== undefined && places.find(name) === node ? name : pathOf(node)
}
