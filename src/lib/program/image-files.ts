// Files of an image by their paths, before anything of it is mounted together: layers as overlayfs would show them, as far as
// guessing what a start reads needs it.

import {decodeByteText, encodeByteText} from '../io/byte-text.ts'
import type {TreeNode} from '../vfs/file-tree.ts'

type Node = Pick<TreeNode, 'type' | 'size' | 'dataOffset'>

/** Where names are looked up, such as an `ErofsReader`. Names and targets are bytes. */
export interface NameTree {
  root(): Promise<Node>
  /** `directory` and `link` are what the tree itself has given. */
  find(directory: Node, name: Uint8Array): Promise<Node | undefined>
  target(link: Node): Promise<Uint8Array>
}

/** A layer's tree, and whatever the caller knows it by. */
export interface TreeOf<Layer> {
  readonly layer: Layer
  readonly tree: NameTree
}

/** A regular file: its layer, and where its data are on the layer's device, bytes. */
export interface ImageFile<Layer> {
  readonly layer: Layer
  readonly offset: number
  readonly size: number
  /** Where it was found, without symbolic links. */
  readonly path: string
}

/** As Linux has it, MAXSYMLINKS. */
const MAX_LINKS = 40
const MAX_PARTS = 256

/** A directory, in each of the layers that have it, top first. */
type Directory<Layer> = readonly (TreeOf<Layer> & {readonly node: Node})[]

export class ImageFiles<Layer> {
  readonly #trees: readonly TreeOf<Layer>[]

  /** Top first. */
  constructor(trees: readonly TreeOf<Layer>[]) {
    this.#trees = trees
  }

  /** The regular file that an absolute path leads to. A directory that hides one below is not noticed. */
  async find(path: string): Promise<ImageFile<Layer> | undefined> {
    const root = await Promise.all(this.#trees.map(async tree => ({...tree, node: await tree.tree.root()})))
    let directories: Directory<Layer>[] = [root]
    let names: string[] = []
    const parts = partsOf(path)
    for (let links = 0; parts.length > 0; ) {
      if (parts.length > MAX_PARTS) return undefined
      const part = parts.shift()!
      if (part === '..') {
        if (names.length > 0) [directories, names] = [directories.slice(0, -1), names.slice(0, -1)]
        continue
      }
      const found = await findIn(directories.at(-1)!, part)
      const [top] = found
      if (!top) return undefined
      const {type, size, dataOffset} = top.node
      if (type === 'dir') {
        directories.push(found)
        names.push(part)
      } else if (type === 'symlink') {
        if (++links > MAX_LINKS) return undefined
        const target = decodeByteText(await top.tree.target(top.node))
        if (target.startsWith('/')) [directories, names] = [[root], []]
        parts.unshift(...partsOf(target))
      } else {
        if (type !== 'reg' || parts.length > 0) return undefined
        return {layer: top.layer, offset: dataOffset, size, path: `/${[...names, part].join('/')}`}
      }
    }
    return undefined
  }
}

/** What has a name: in the topmost layer that has it, and for directories in those below, up to one that has something else. */
async function findIn<Layer>(directory: Directory<Layer>, part: string): Promise<Directory<Layer>> {
  const found: (TreeOf<Layer> & {readonly node: Node})[] = []
  for (const {layer, tree, node: parent} of directory) {
    const node = await tree.find(parent, encodeByteText(part))
    if (!node) continue
    if (node.type !== 'dir') return found.length > 0 ? found : [{layer, tree, node}]
    found.push({layer, tree, node})
  }
  return found
}

function partsOf(path: string): string[] {
  return path.split('/').filter(part => part !== '' && part !== '.')
}
