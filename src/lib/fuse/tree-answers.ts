// Answers about what is in a layer. Layers never change, so the kernel may keep whatever it is told, but of state files.

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
  putXattrSize,
} from './protocol.ts'
import type {RequestHost} from './request-handler.ts'
import {
  forgetAttributes,
  inodeAttributes,
  NO_ENTRY,
  stateDirectoryAttributes,
  stateFileAttributes,
} from './tree-attributes.ts'
import type {Place} from './tree-handler.ts'
import {listDirectory} from './tree-listing.ts'
import {STATE_DIRECTORY, STATE_FILE} from './tree-nodes.ts'
import {backingOf, type FileRange} from './tree-passthrough.ts'
import {STATE_DIRECTORY_NAME, type StateFile} from './tree-state.ts'
import * as tables from './tree-table.ts'

const {EINVAL, EISDIR, ENODATA, ENOENT, ENOSYS, ENOTDIR, ERANGE} = constants.errno

/** The state file of a layer. Only the main thread has them. */
export type StateFiles = (layer: string) => StateFile | undefined

/** Where `attr_valid` is in struct fuse_entry_out. */
const ENTRY_ATTRIBUTES_VALID = 24

/** Returns what answers a request about a place by one call of the host. */
export function createTreeAnswers(host: RequestHost, stateFiles: StateFiles | undefined) {
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

  const lookup = (request: FuseRequest, {layer, inode}: Place) => {
    const name = parseName(request)
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
    if (child !== tables.NOT_FOUND) return replyEntry(request, {layer, inode: child})
    // A name that is not there is remembered as long as one that is: an entry without a node.
    host.reply(request, putEntry(host.body, 0, NO_ENTRY))
  }

  const getAttributes = (request: FuseRequest, place: Place) => {
    const attributes = attributesOf(place)
    if (!attributes) return host.defer(request)
    const size = putAttrReply(host.body, 0, attributes)
    if (place.inode === STATE_FILE) forgetAttributes(host.body, 0)
    host.reply(request, size)
  }

  const read = (request: FuseRequest, place: Place) => {
    const {layer, inode} = place
    const {offset, size} = parseRead(request)
    if (inode === STATE_FILE) {
      const state = stateFiles?.(layer.entry.device.name)
      return state ? replyBytes(request, state.bytes.subarray(offset, offset + size)) : host.defer(request)
    }
    if (!isInTable(place) || !tables.isFile(layer.table, inode)) return host.replyError(request, EISDIR)
    const range = rangeOf(place)
    const length = Math.min(size, range.size - offset)
    if (length <= 0) return host.reply(request, 0)
    host.replyData(request, range.device, range.offset + offset, length)
  }

  const open = (request: FuseRequest, place: Place) => {
    const {passthrough} = place.layer.entry
    // The kernel takes this for all files: never ask again, and keep what is cached.
    if (!passthrough) return host.replyError(request, ENOSYS)
    const backing = isInTable(place) ? backingOf(passthrough, place.inode, rangeOf(place)) : 0
    const flags = backing > 0 ? FOPEN_PASSTHROUGH : FOPEN_KEEP_CACHE
    host.reply(request, putOpenReply(host.body, 0, flags, backing))
  }

  const list = (request: FuseRequest, place: Place) => {
    // The state directory is for those who know what is in it.
    if (!isInTable(place)) return host.reply(request, 0)
    const plus = request.opcode === OPCODE.readdirplus
    host.reply(request, listDirectory({host, ...parseRead(request), plus}, place.layer, place.inode))
  }

  const getXattr = (request: FuseRequest, place: Place) => {
    const {size, name} = parseGetXattr(request)
    const value = isInTable(place) ? tables.xattrOf(place.layer.table, place.inode, name) : undefined
    if (value) replySized(request, value, size)
    else host.replyError(request, ENODATA)
  }

  const listXattrs = (request: FuseRequest, place: Place) => {
    // No names are an empty list: ENODATA would keep overlayfs from copying the file up.
    const names = isInTable(place) ? tables.xattrNamesOf(place.layer.table, place.inode) : new Uint8Array(0)
    replySized(request, names, parseListXattr(request).size)
  }

  const readLink = (request: FuseRequest, place: Place) => {
    if (isInTable(place)) replyBytes(request, tables.linkTargetOf(place.layer.table, place.inode))
    else host.replyError(request, EINVAL)
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

  return (request: FuseRequest, place: Place) => {
    switch (request.opcode) {
      case OPCODE.lookup:
        return lookup(request, place)
      case OPCODE.getattr:
        return getAttributes(request, place)
      case OPCODE.read:
        return read(request, place)
      case OPCODE.open:
        return open(request, place)
      case OPCODE.readdir:
      case OPCODE.readdirplus:
        return list(request, place)
      case OPCODE.getxattr:
        return getXattr(request, place)
      case OPCODE.listxattr:
        return listXattrs(request, place)
      case OPCODE.readlink:
        return readLink(request, place)
      default:
        return host.replyError(request, ENOSYS)
    }
  }
}

/** False for state directories and files. */
function isInTable({inode}: Place): boolean {
  return inode < STATE_DIRECTORY
}

/** Where a file's data are. */
function rangeOf({layer, inode}: Place): FileRange {
  return {
    device: layer.entry.device,
    offset: tables.sizeOf(layer.table, inode, tables.FIRST),
    size: tables.sizeOf(layer.table, inode, tables.SIZE),
  }
}
