// The entries of directories. An entry's place among its directory's is what reading goes on from, and `.` and `..` come
// first; directories never change, so a place means the same at any time, also after a restart.

import {type FuseAttributes, putDirent, putDirentPlus, ROOT_NODE} from '../fuse/protocol.ts'
import type {RequestHost} from '../fuse/request-handler.ts'
import {encodeByteText} from '../io/byte-text.ts'
import type {ServedLayer} from './served-layer.ts'
import {inodeAttributes} from './tree-attributes.ts'
import {nodeIdOfInode, STATE_DIRECTORY, STATE_FILE} from './tree-nodes.ts'
import {COUNT, FIRST, MODE, nameStart, PARENT, wordOf} from './tree-table.ts'

/** What a READDIR or READDIRPLUS asks for. */
export interface Listing {
  readonly host: Pick<RequestHost, 'body'>
  readonly offset: number
  readonly size: number
  /** With each entry's attributes. */
  readonly plus: boolean
}

const DIRECTORY_TYPE = 0o04
const FILE_TYPE = 0o10
const DOT = encodeByteText('.')
const DOT_DOT = encodeByteText('..')

interface Entry {
  readonly nodeId: number
  readonly type: number
  readonly name: Uint8Array
  /** Not of `.` and `..`, which must not become entries of the kernel. */
  readonly attributes: FuseAttributes | undefined
}

/** Writes the entries of a layer's directory from `offset` on, as many as fit; returns their size. */
export function listDirectory(listing: Listing, {id, table}: ServedLayer, directory: number): number {
  const first = wordOf(table, directory, FIRST)
  const parent = directory === 0 ? ROOT_NODE : nodeIdOfInode(id, wordOf(table, directory, PARENT))
  return putEntries(listing, wordOf(table, directory, COUNT), {
    self: nodeIdOfInode(id, directory),
    parent,
    entryAt: index => {
      const entry = first + index
      const inode = table.targets[entry]!
      return {
        nodeId: nodeIdOfInode(id, inode),
        type: wordOf(table, inode, MODE) >> 12,
        name: table.bytes.subarray(nameStart(table, entry), table.ends[entry]),
        attributes: listing.plus ? inodeAttributes(id, table, inode) : undefined,
      }
    },
  })
}

/** Writes the entries of a layer's state directory, which is itself in no listing. */
export function listStateDirectory(listing: Listing, {id, stateName}: ServedLayer): number {
  return putEntries(listing, stateName ? 1 : 0, {
    self: nodeIdOfInode(id, STATE_DIRECTORY),
    parent: nodeIdOfInode(id, 0),
    entryAt: () => ({
      nodeId: nodeIdOfInode(id, STATE_FILE),
      type: FILE_TYPE,
      name: stateName!,
      // They change: who wants them asks.
      attributes: undefined,
    }),
  })
}

/** Writes the session's root directory: a directory for every layer. */
export function listLayers(listing: Listing, layers: ReadonlyMap<number, ServedLayer>): number {
  const sorted = [...layers.values()].sort((left, right) => left.id - right.id)
  return putEntries(listing, sorted.length, {
    self: ROOT_NODE,
    parent: ROOT_NODE,
    entryAt: index => {
      const {id, entry, table} = sorted[index]!
      return {
        nodeId: nodeIdOfInode(id, 0),
        type: DIRECTORY_TYPE,
        name: Buffer.from(entry.device.name, 'latin1'),
        attributes: inodeAttributes(id, table, 0),
      }
    },
  })
}

function putEntries(
  {host: {body}, offset, size, plus}: Listing,
  count: number,
  {self, parent, entryAt}: {self: number; parent: number; entryAt: (index: number) => Entry},
): number {
  const end = Math.min(size, body.length)
  let used = 0
  for (let place = offset; place < count + 2; place++) {
    const entry = place < 2 ? dots(place, self, parent) : entryAt(place - 2)
    const next = place + 1
    const written = plus
      ? putDirentPlus(body, used, end, {...entry, next})
      : putDirent(body, used, end, {...entry, next})
    if (written === 0) break
    used += written
  }
  return used
}

function dots(place: number, self: number, parent: number): Entry {
  return {
    nodeId: place === 0 ? self : parent,
    type: DIRECTORY_TYPE,
    name: place === 0 ? DOT : DOT_DOT,
    attributes: undefined,
  }
}
