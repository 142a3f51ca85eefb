// Inode numbers of a store's file system. They follow from paths alone, because the kernel keeps them while the daemon
// restarts; which path a number means must be learnt again.

import {createHash} from 'node:crypto'
import {ROOT_NODE} from '../fuse/protocol.ts'
import type {StorePath} from './store-tree.ts'

/** Paths that are remembered at most; the kernel looks the others up again. */
const MAX_PATHS = 100_000

export interface StoreNodes {
  /** The number of a path, which is remembered. */
  idOf(path: StorePath): number
  /** The path of a number; undefined for one that nobody has asked for since the start. */
  pathOf(nodeId: number): StorePath | undefined
}

export function createStoreNodes(): StoreNodes {
  const paths = new Map<number, StorePath>([[ROOT_NODE, []]])
  return {
    idOf: path => {
      const nodeId = hash(path)
      if (paths.has(nodeId)) return nodeId
      paths.set(nodeId, path)
      if (paths.size > MAX_PATHS) {
        for (const oldest of paths.keys()) {
          if (oldest === ROOT_NODE) continue
          paths.delete(oldest)
          break
        }
      }
      return nodeId
    },
    pathOf: nodeId => paths.get(nodeId),
  }
}

/** 52 bits of the path's SHA-256, above the root's number. */
function hash(path: StorePath): number {
  if (path.length === 0) return ROOT_NODE
  const digest = createHash('sha256').update(path.join('/')).digest()
  return 2 + digest.readUIntBE(0, 6) * 16 + (digest[6]! >> 4)
}
