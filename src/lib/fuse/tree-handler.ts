// The file system of whole trees: one directory per layer at the top, and below it the layer's files, answered from the
// tables of tree-table.ts. Layers never change, so the kernel may keep whatever it is told.

import {constants} from 'node:os'
import {
  FOPEN_KEEP_CACHE,
  FOPEN_PASSTHROUGH,
  type FuseAttributes,
  type FuseRequest,
  OPCODE,
  parseGetXattr,
  parseListXattr,
  parseName,
  parseRead,
  putAttrReply,
  putEntry,
  putOpenReply,
  putStatfs,
  putXattrSize,
  ROOT_NODE,
} from './protocol.ts'
import type {RequestHandler, RequestHost, TableEntry} from './request-handler.ts'
import {
  inodeAttributes,
  rootAttributes,
  stateDirectoryAttributes,
  stateFileAttributes,
} from './tree-attributes.ts'
import {listDirectory, listLayers} from './tree-listing.ts'
import {inodeOfNode, layerIdOf, layerIdOfNode, STATE_DIRECTORY, STATE_FILE} from './tree-nodes.ts'
import {backingOf, type FileRange, type Passthrough} from './tree-passthrough.ts'
import {STATE_DIRECTORY_NAME, type StateFile} from './tree-state.ts'
import * as tables from './tree-table.ts'

const {EINVAL, EISDIR, ENODATA, ENOENT, ENOSYS, ENOTDIR, ERANGE} = constants.errno

/** A layer of the session's table. */
export interface TreeEntry extends TableEntry {
  /** What `encodeTree` made. */
  readonly tree: SharedArrayBuffer
  /** The name of the file in the layer's state directory; undefined for none. */
  readonly stateName: string | undefined
  /** The same for all layers of a session: whether files may be opened for the kernel to read by itself. */
  readonly passthrough: Passthrough | undefined
}

/** A layer as the handler has it. */
export interface ServedLayer {
  readonly id: number
  readonly entry: TreeEntry
  readonly table: tables.TreeTable
  readonly stateName: Buffer | undefined
}

/** An inode of a layer. */
interface Place {
  readonly layer: ServedLayer
  readonly inode: number
}

/** The state file of a layer. Only the main thread has them. */
export type StateFiles = (layer: string) => StateFile | undefined

export interface TreeHandlerOptions {
  /** No layer has extended attributes: the kernel is told not to ask for them, which overlayfs does for every file. */
  readonly bare: boolean
  /** Without these, requests about state files are left to the thread that has them. */
  readonly stateFiles?: StateFiles | undefined
}

export function createTreeHandler(
  host: RequestHost,
  {bare, stateFiles}: TreeHandlerOptions,
): RequestHandler<TreeEntry> {
  const layers = new Map<number, ServedLayer>()

  const placeOf = ({nodeId}: FuseRequest): Place | undefined => {
    const layer = layers.get(layerIdOfNode(nodeId))
    const inode = inodeOfNode(nodeId)
    if (!layer) return undefined
    return inode < layer.table.inodes || inode >= STATE_DIRECTORY ? {layer, inode} : undefined
  }

  /** The attributes of an inode; undefined for a state file when another thread knows them. */
  const attributesOf = ({layer, inode}: Place): FuseAttributes | undefined => {
    if (inode === STATE_DIRECTORY) return stateDirectoryAttributes(layer.id)
    if (inode !== STATE_FILE) return inodeAttributes(layer.id, layer.table, inode)
    const state = stateFiles?.(layer.entry.device.name)
    state?.refresh()
    return state && stateFileAttributes(layer.id, state)
  }

  const replyEntry = (request: FuseRequest, place: Place) => {
    const attributes = attributesOf(place)
    if (!attributes) return host.defer(request)
    const size = putEntry(host.body, 0, attributes)
    if (place.inode === STATE_FILE) forgetAttributes(host.body, ENTRY_ATTRIBUTES_VALID)
    host.reply(request, size)
  }

  const replyNoEntry = (request: FuseRequest) => {
    // A name that is not there is remembered as long as one that is: an entry without a node.
    host.reply(request, putEntry(host.body, 0, NO_ENTRY))
  }

  /** At the top names come and go, so none is remembered as missing. */
  const lookupLayer = (request: FuseRequest, name: string) => {
    const layer = layers.get(layerIdOf(name))
    if (layer?.entry.device.name === name) replyEntry(request, {layer, inode: 0})
    else host.defer(request)
  }

  const lookup = (request: FuseRequest) => {
    const name = parseName(request)
    if (request.nodeId === ROOT_NODE) return lookupLayer(request, name.toString('latin1'))
    const place = placeOf(request)
    if (!place) return host.defer(request)
    const {layer, inode} = place
    if (inode === STATE_DIRECTORY) {
      return layer.stateName?.equals(name)
        ? replyEntry(request, {layer, inode: STATE_FILE})
        : host.replyError(request, ENOENT)
    }
    if (inode === STATE_FILE || !tables.isDirectory(layer.table, inode)) {
      return host.replyError(request, ENOTDIR)
    }
    if (inode === 0 && layer.stateName && name.equals(STATE_DIRECTORY_NAME)) {
      return replyEntry(request, {layer, inode: STATE_DIRECTORY})
    }
    const child = tables.findChild(layer.table, inode, name)
    if (child === tables.NOT_FOUND) replyNoEntry(request)
    else replyEntry(request, {layer, inode: child})
  }

  const getAttributes = (request: FuseRequest) => {
    const place = placeOf(request)
    const attributes =
      request.nodeId === ROOT_NODE ? rootAttributes(layers.keys()) : place && attributesOf(place)
    if (!attributes) return host.defer(request)
    const size = putAttrReply(host.body, 0, attributes)
    if (!place || place.inode === STATE_FILE) forgetAttributes(host.body, 0)
    host.reply(request, size)
  }

  const read = (request: FuseRequest) => {
    const place = placeOf(request)
    if (!place) return host.defer(request)
    const {layer, inode} = place
    const {offset, size} = parseRead(request)
    if (inode === STATE_FILE) {
      const state = stateFiles?.(layer.entry.device.name)
      return state ? replyBytes(request, state.bytes.subarray(offset, offset + size)) : host.defer(request)
    }
    if (inode === STATE_DIRECTORY || !tables.isFile(layer.table, inode)) {
      return host.replyError(request, EISDIR)
    }
    const range = rangeOf(place)
    const length = Math.min(size, range.size - offset)
    if (length <= 0) return host.reply(request, 0)
    host.replyData(request, range.device, range.offset + offset, length)
  }

  const open = (request: FuseRequest) => {
    const place = placeOf(request)
    if (!place) return host.defer(request)
    const {passthrough} = place.layer.entry
    // The kernel takes this for all files: never ask again, and keep what is cached.
    if (!passthrough) return host.replyError(request, ENOSYS)
    const backing = isInTable(place) ? backingOf(passthrough, place.inode, rangeOf(place)) : 0
    const flags = backing > 0 ? FOPEN_PASSTHROUGH : FOPEN_KEEP_CACHE
    host.reply(request, putOpenReply(host.body, 0, flags, backing))
  }

  const list = (request: FuseRequest) => {
    const {offset, size} = parseRead(request)
    const listing = {host, offset, size, plus: request.opcode === OPCODE.readdirplus}
    if (request.nodeId === ROOT_NODE) return host.reply(request, listLayers(listing, layers))
    const place = placeOf(request)
    if (!place) return host.defer(request)
    // The state directory is for those who know what is in it.
    if (place.inode >= STATE_DIRECTORY) return host.reply(request, 0)
    host.reply(request, listDirectory(listing, place.layer, place.inode))
  }

  const replyBytes = (request: FuseRequest, bytes: Uint8Array) => {
    host.body.set(bytes)
    host.reply(request, bytes.length)
  }

  /** Replies to a request that says how much room it has for a value; 0 asks how much it needs. */
  const replySized = (request: FuseRequest, value: Uint8Array, room: number) => {
    if (room === 0) host.reply(request, putXattrSize(host.body, 0, value.length))
    else if (room < value.length) host.replyError(request, ERANGE)
    else replyBytes(request, value)
  }

  const getXattr = (request: FuseRequest) => {
    const place = placeOf(request)
    if (!place && request.nodeId !== ROOT_NODE) return host.defer(request)
    const {size, name} = parseGetXattr(request)
    const value = isInTable(place) ? tables.xattrOf(place.layer.table, place.inode, name) : undefined
    if (value) replySized(request, value, size)
    else host.replyError(request, ENODATA)
  }

  const listXattrs = (request: FuseRequest) => {
    const place = placeOf(request)
    if (!place && request.nodeId !== ROOT_NODE) return host.defer(request)
    // No names are an empty list: ENODATA would keep overlayfs from copying the file up.
    const names = isInTable(place) ? tables.xattrNamesOf(place.layer.table, place.inode) : new Uint8Array(0)
    replySized(request, names, parseListXattr(request).size)
  }

  const readLink = (request: FuseRequest) => {
    const place = placeOf(request)
    if (!place) return host.defer(request)
    if (isInTable(place)) replyBytes(request, tables.linkTargetOf(place.layer.table, place.inode))
    else host.replyError(request, EINVAL)
  }

  return {
    put: entry => {
      const {device, tree, stateName} = entry
      const id = layerIdOf(device.name)
      layers.set(id, {
        id,
        entry,
        table: tables.openTreeTable(tree),
        stateName: stateName === undefined ? undefined : Buffer.from(stateName),
      })
    },
    delete: name => void layers.delete(layerIdOf(name)),
    handle: request => {
      switch (request.opcode) {
        case OPCODE.lookup:
          return lookup(request)
        case OPCODE.getattr:
          return getAttributes(request)
        case OPCODE.read:
          return read(request)
        case OPCODE.open:
          return open(request)
        case OPCODE.readdirplus:
        case OPCODE.readdir:
          return list(request)
        case OPCODE.getxattr:
          return bare ? host.replyError(request, ENOSYS) : getXattr(request)
        case OPCODE.listxattr:
          return listXattrs(request)
        case OPCODE.readlink:
          return readLink(request)
        case OPCODE.statfs:
          return host.reply(request, putStatfs(host.body, 0, {blocks: 0, files: 0}))
        case OPCODE.release:
        case OPCODE.releasedir:
        case OPCODE.destroy:
          return host.reply(request, 0)
        case OPCODE.forget:
        case OPCODE.batchForget:
          // Inode numbers come from tables: there is no count to keep.
          return
        default:
          // For OPENDIR this means: never ask again, and keep what is cached. For all that writes, that it cannot be.
          return host.replyError(request, ENOSYS)
      }
    },
  }
}

/** False for the session's root and for state directories and files. */
function isInTable(place: Place | undefined): place is Place {
  return place !== undefined && place.inode < STATE_DIRECTORY
}

/** Where a file's data are. */
function rangeOf({layer, inode}: Place): FileRange {
  return {
    device: layer.entry.device,
    offset: tables.sizeOf(layer.table, inode, tables.FIRST),
    size: tables.sizeOf(layer.table, inode, tables.SIZE),
  }
}

/** Where `attr_valid` is in struct fuse_entry_out. */
const ENTRY_ATTRIBUTES_VALID = 24

/** Makes the kernel ask again for the attributes of something that changes. */
function forgetAttributes(body: Buffer, at: number): void {
  body.writeBigUInt64LE(0n, at)
}

const NO_ENTRY: FuseAttributes = {
  nodeId: 0,
  size: 0,
  mode: 0,
  links: 0,
  uid: 0,
  gid: 0,
  devMajor: 0,
  devMinor: 0,
  mtimeSeconds: 0,
  mtimeNanoseconds: 0,
}
