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
} from '../fuse/protocol.ts'
import type {RequestHost} from '../fuse/request-handler.ts'
import type {Place} from './served-layer.ts'
import {
  forgetAttributes,
  inodeAttributes,
  NO_ENTRY,
  stateDirectoryAttributes,
  stateFileAttributes,
} from './tree-attributes.ts'
import {listDirectory, listStateDirectory} from './tree-listing.ts'
import {STATE_DIRECTORY, STATE_FILE} from './tree-nodes.ts'
import {backingOf, type FileRange} from './tree-passthrough.ts'
import {STATE_DIRECTORY_NAME, type StateFile} from './tree-state.ts'
import * as tables from './tree-table.ts'

const {EINVAL, EISDIR, ENODATA, ENOENT, ENOSYS, ENOTDIR, ERANGE} = constants.errno

/** The state file of a layer. Only the main thread has them. */
export type StateFiles = (layer: string) => StateFile | undefined

/** Where `attr_valid` is in struct fuse_entry_out. */
const ENTRY_ATTRIBUTES_VALID = 24

export class TreeAnswers {
  readonly #host: RequestHost
  readonly #stateFiles: StateFiles | undefined

  constructor(host: RequestHost, stateFiles: StateFiles | undefined) {
    this.#host = host
    this.#stateFiles = stateFiles
  }

  /** Answers a request about a place by one call of the host. */
  answer(request: FuseRequest, place: Place) {
    switch (request.opcode) {
      case OPCODE.lookup:
        return this.#lookup(request, place)
      case OPCODE.getattr:
        return this.#getAttributes(request, place)
      case OPCODE.read:
        return this.#read(request, place)
      case OPCODE.open:
        return this.#open(request, place)
      case OPCODE.readdir:
      case OPCODE.readdirplus:
        return this.#list(request, place)
      case OPCODE.getxattr:
        return this.#getXattr(request, place)
      case OPCODE.listxattr:
        return this.#listXattrs(request, place)
      case OPCODE.readlink:
        return this.#readLink(request, place)
      default:
        return this.#host.replyError(request, ENOSYS)
    }
  }

  /** The attributes of an inode; undefined for a state file when another thread knows them. */
  #attributesOf({layer, inode}: Place): FuseAttributes | undefined {
    if (inode === STATE_DIRECTORY) return stateDirectoryAttributes(layer.id)
    if (inode !== STATE_FILE) return inodeAttributes(layer.id, layer.table, inode)
    const state = this.#stateFiles?.(layer.entry.device.name)
    state?.refresh()
    return state && stateFileAttributes(layer.id, state)
  }

  #replyEntry(request: FuseRequest, place: Place) {
    const attributes = this.#attributesOf(place)
    if (!attributes) return this.#host.defer(request)
    const size = putEntry(this.#host.body, 0, attributes)
    if (place.inode === STATE_FILE) forgetAttributes(this.#host.body, ENTRY_ATTRIBUTES_VALID)
    this.#host.reply(request, size)
  }

  #lookup(request: FuseRequest, {layer, inode}: Place) {
    const name = parseName(request)
    if (inode === STATE_DIRECTORY) {
      return layer.stateName?.equals(name)
        ? this.#replyEntry(request, {layer, inode: STATE_FILE})
        : this.#host.replyError(request, ENOENT)
    }
    if (inode === STATE_FILE || !tables.isDirectory(layer.table, inode)) {
      return this.#host.replyError(request, ENOTDIR)
    }
    if (inode === 0 && layer.stateName && name.equals(STATE_DIRECTORY_NAME)) {
      return this.#replyEntry(request, {layer, inode: STATE_DIRECTORY})
    }
    const child = tables.findChild(layer.table, inode, name)
    if (child !== tables.NOT_FOUND) return this.#replyEntry(request, {layer, inode: child})
    // A name that is not there is remembered as long as one that is: an entry without a node.
    this.#host.reply(request, putEntry(this.#host.body, 0, NO_ENTRY))
  }

  #getAttributes(request: FuseRequest, place: Place) {
    const attributes = this.#attributesOf(place)
    if (!attributes) return this.#host.defer(request)
    const size = putAttrReply(this.#host.body, 0, attributes)
    if (place.inode === STATE_FILE) forgetAttributes(this.#host.body, 0)
    this.#host.reply(request, size)
  }

  #read(request: FuseRequest, place: Place) {
    const {layer, inode} = place
    const {offset, size} = parseRead(request)
    if (inode === STATE_FILE) {
      const state = this.#stateFiles?.(layer.entry.device.name)
      return state
        ? this.#replyBytes(request, state.bytes.subarray(offset, offset + size))
        : this.#host.defer(request)
    }
    if (!isInTable(place) || !tables.isFile(layer.table, inode)) return this.#host.replyError(request, EISDIR)
    const range = rangeOf(place)
    const length = Math.min(size, range.size - offset)
    if (length <= 0) return this.#host.reply(request, 0)
    this.#host.replyData(request, range.device, range.offset + offset, length)
  }

  #open(request: FuseRequest, place: Place) {
    const {passthrough} = place.layer.entry
    // The kernel takes this for all files: never ask again, and keep what is cached.
    if (!passthrough) return this.#host.replyError(request, ENOSYS)
    const backing = isInTable(place) ? backingOf(passthrough, place.inode, rangeOf(place)) : 0
    const flags = backing > 0 ? FOPEN_PASSTHROUGH : FOPEN_KEEP_CACHE
    this.#host.reply(request, putOpenReply(this.#host.body, 0, flags, backing))
  }

  #list(request: FuseRequest, place: Place) {
    const plus = request.opcode === OPCODE.readdirplus
    const listing = {host: this.#host, ...parseRead(request), plus}
    this.#host.reply(
      request,
      isInTable(place)
        ? listDirectory(listing, place.layer, place.inode)
        : listStateDirectory(listing, place.layer),
    )
  }

  #getXattr(request: FuseRequest, place: Place) {
    const {size, name} = parseGetXattr(request)
    const value = isInTable(place) ? tables.xattrOf(place.layer.table, place.inode, name) : undefined
    if (value) this.#replySized(request, value, size)
    else this.#host.replyError(request, ENODATA)
  }

  #listXattrs(request: FuseRequest, place: Place) {
    // No names are an empty list: ENODATA would keep overlayfs from copying the file up.
    const names = isInTable(place) ? tables.xattrNamesOf(place.layer.table, place.inode) : new Uint8Array(0)
    this.#replySized(request, names, parseListXattr(request).size)
  }

  #readLink(request: FuseRequest, place: Place) {
    if (isInTable(place)) this.#replyBytes(request, tables.linkTargetOf(place.layer.table, place.inode))
    else this.#host.replyError(request, EINVAL)
  }

  #replyBytes(request: FuseRequest, bytes: Uint8Array) {
    this.#host.body.set(bytes)
    this.#host.reply(request, bytes.length)
  }

  /** Replies to a request that says how much room it has for a value; 0 asks how much it needs. */
  #replySized(request: FuseRequest, value: Uint8Array, room: number) {
    if (room === 0) this.#host.reply(request, putXattrSize(this.#host.body, 0, value.length))
    else if (room < value.length) this.#host.replyError(request, ERANGE)
    else this.#replyBytes(request, value)
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
