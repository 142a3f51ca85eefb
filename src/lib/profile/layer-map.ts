// Which layer an accessed file comes from: the layers are searched from the top, and whatever hides a lower layer's file
// in the merged tree hides it here too.

import {cleanPath} from '../record/clean-path.ts'
import type {PlacedEntry} from '../vfs/placement.ts'

/** A file in a layer: `name` is the tar's, clean, which is what a conversion prioritises. */
export interface LocatedFile {
  readonly layerIndex: number
  readonly name: string
}

export interface LayerMap {
  /** Where `path` (clean, free of symbolic links) comes from; undefined when it is in no layer. */
  locate(path: string): LocatedFile | undefined
}

interface LayerView {
  /** Place -> name in the tar, of everything that has content. */
  readonly files: Map<string, string>
  /** Places where this layer has anything but a directory: nothing of the lower layers can be below them. */
  readonly leaves: Set<string>
  readonly whiteouts: Set<string>
  readonly opaque: Set<string>
}

/** Indexes the placed entries of each layer, lowest first. */
export function mapLayers(layers: readonly (readonly PlacedEntry[])[]): LayerMap {
  const views = layers.map(viewLayer)
  return {
    locate: path => {
      const ancestors = ancestorsOf(path)
      for (let layerIndex = views.length - 1; layerIndex >= 0; layerIndex--) {
        const view = views[layerIndex]!
        const name = view.files.get(path)
        if (name !== undefined) return {layerIndex, name}
        if (hides(view, path) || ancestors.some(parent => hides(view, parent) || view.opaque.has(parent))) {
          return undefined
        }
      }
      return undefined
    },
  }
}

function hides(view: LayerView, path: string): boolean {
  return view.leaves.has(path) || view.whiteouts.has(path)
}

function viewLayer(entries: readonly PlacedEntry[]): LayerView {
  const view: LayerView = {files: new Map(), leaves: new Set(), whiteouts: new Set(), opaque: new Set()}
  for (const {entry, path, role} of entries) {
    if (role === 'opaque') view.opaque.add(path)
    else if (role === 'whiteout') view.whiteouts.add(path)
    else {
      // An entry replaces an earlier one of the same place.
      view.files.delete(path)
      if (entry.type === 'dir') view.leaves.delete(path)
      else view.leaves.add(path)
      const name = cleanPath(entry.name)
      if (name !== undefined && (entry.type === 'reg' || entry.type === 'hardlink'))
        view.files.set(path, name)
    }
  }
  return view
}

/** `a`, `a/b` of `a/b/c`, and the root, ''. */
function ancestorsOf(path: string): string[] {
  const ancestors = ['']
  for (let slash = path.indexOf('/'); slash >= 0; slash = path.indexOf('/', slash + 1)) {
    ancestors.push(path.slice(0, slash))
  }
  return ancestors
}
