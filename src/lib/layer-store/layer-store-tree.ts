// The names of a layer store, as containers/storage looks for them:
//
//   <reference in base64>/<digest>/diff   a link to the layer's files
//                                  info   what is known of it, JSON
//                                  blob   the layer as the registry has it
//                                  use    never there: whoever tries to make it counts as a user, until the
//                                         directory is tried to be removed
//   pool                                  a link to the directory of what is kept of images

import type {StoreNode, StorePath, StoreTree} from '../fuse-store/store-tree.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {isDigest} from '../oci/digest.ts'
import {encodeInfo} from './info.ts'
import type {LayerStore, ServedLayer} from './layer-store.ts'
import {encodeReferenceName, parseReferenceName} from './reference-name.ts'
import type {StoredLayerName} from './stored-layer.ts'

const DIRECTORY: StoreNode = {kind: 'directory'}
const FILES = ['diff', 'info', 'blob']

/** `pool` is where the link of this name leads. */
export function createLayerStoreTree(store: LayerStore, pool: string): StoreTree {
  /** undefined for a layer that cannot be served: whoever asks then pulls it as a whole, and the store has said why. */
  async function serve(path: StorePath, call: CallOptions): Promise<ServedLayer | undefined> {
    const name = layerNameOf(path)
    try {
      return name && (await store.serve(name, call))
    } catch {
      return undefined
    }
  }

  async function lookAtFile(path: StorePath, call: CallOptions): Promise<StoreNode | undefined> {
    const name = path[2]!
    if (!FILES.includes(name)) return undefined
    const served = await serve(path, call)
    if (!served) return undefined
    if (name === 'diff') return {kind: 'link', target: served.directory}
    const size = name === 'info' ? encodeInfo(served.layer).length : served.blob.size
    return {kind: 'file', size, mode: name === 'info' ? 0o444 : 0o400}
  }

  return {
    look: async (path, call) => {
      const [reference = '', digest] = path
      if (path.length === 0) return DIRECTORY
      if (path.length === 1 && reference === 'pool') return {kind: 'link', target: pool}
      if (parseReferenceName(reference) === undefined) return undefined
      if (path.length === 1) return DIRECTORY
      if (path.length === 2) return isDigest(digest) ? DIRECTORY : undefined
      return path.length === 3 && isDigest(digest) ? lookAtFile(path, call) : undefined
    },
    list: path => {
      const [reference, digest] = path
      const names = store.list().map(layer => [encodeReferenceName(layer.reference), layer.name] as const)
      if (reference === undefined) return ['pool', ...new Set(names.map(([name]) => name))]
      if (digest === undefined) return names.filter(([name]) => name === reference).map(([, name]) => name)
      return FILES
    },
    read: async (path, {offset, size}, call) => {
      const name = layerNameOf(path)
      if (!name) return new Uint8Array(0)
      const {layer, blob} = await store.serve(name, call)
      if (path[2] === 'info') return encodeInfo(layer).subarray(offset, offset + size)
      const length = Math.max(0, Math.min(size, blob.size - offset))
      return length === 0 ? new Uint8Array(0) : blob.read(offset, length, call)
    },
    make: async (path, call) => {
      const name = path[2] === 'use' ? layerNameOf(path) : undefined
      // A layer that cannot be served is not used either.
      if (name) await store.use(name, call).catch(() => {})
    },
    remove: async path => {
      const name = path.length === 2 ? layerNameOf(path) : undefined
      if (name) await store.release(name)
    },
  }
}

function layerNameOf([reference = '', name]: StorePath): StoredLayerName | undefined {
  const text = parseReferenceName(reference)
  return text !== undefined && isDigest(name) ? {reference: text, name} : undefined
}
