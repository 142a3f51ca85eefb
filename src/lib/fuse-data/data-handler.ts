// The file system of the lazy data files: one flat directory, one read-only file per device.

import {createHash} from 'node:crypto'
import {constants} from 'node:os'
import {
  type FuseAttributes,
  type FuseRequest,
  OPCODE,
  parseName,
  parseRead,
  putAttrReply,
  putDirentPlus,
  putEntry,
  putOpenReply,
  putStatfs,
  ROOT_NODE,
} from '../fuse/protocol.ts'
import type {RequestHandler, RequestHost, SharedDevice, TableEntry} from '../fuse/request-handler.ts'

const {ENOSYS} = constants.errno

/**
 * The inode number of a device's file. It depends on nothing but the name, so that the inodes which the kernel knows mean
 * the same after a restart: 52 bits of the name's SHA-256, above the root's number.
 */
export function nodeIdOf(name: string): number {
  const digest = createHash('sha256').update(name).digest()
  return 2 + digest.readUIntBE(0, 6) * 16 + (digest[6]! >> 4)
}

export function createDataHandler(host: RequestHost): RequestHandler {
  const devices = new Map<number, SharedDevice>()

  const lookup = (request: FuseRequest): void => {
    const device = devices.get(nodeIdOf(parseName(request).toString('latin1')))
    if (device) host.reply(request, putEntry(host.body, 0, fileAttributes(device)))
    else host.replyUnknown(request)
  }

  const getAttributes = (request: FuseRequest): void => {
    const {nodeId} = request
    const device = devices.get(nodeId)
    if (nodeId === ROOT_NODE) host.reply(request, putAttrReply(host.body, 0, ROOT_ATTRIBUTES))
    else if (device) host.reply(request, putAttrReply(host.body, 0, fileAttributes(device)))
    else host.replyUnknown(request)
  }

  const read = (request: FuseRequest): void => {
    const device = devices.get(request.nodeId)
    const {offset, size} = parseRead(request)
    if (device) host.replyData(request, device, offset, size)
    else host.replyUnknown(request)
  }

  const list = (request: FuseRequest): void => {
    const {offset, size} = parseRead(request)
    const end = Math.min(size, host.body.length)
    let used = 0
    for (const [index, device] of [...devices.values()].entries()) {
      if (index < offset) continue
      const attributes = fileAttributes(device)
      const {nodeId} = attributes
      const name = Buffer.from(device.name, 'latin1')
      const entry = {nodeId, next: index + 1, type: REGULAR >> 12, name, attributes}
      const written = putDirentPlus(host.body, used, end, entry)
      if (written === 0) break
      used += written
    }
    host.reply(request, used)
  }

  return {
    put: ({device}: TableEntry) => void devices.set(nodeIdOf(device.name), device),
    delete: name => void devices.delete(nodeIdOf(name)),
    handle: request => {
      switch (request.opcode) {
        case OPCODE.read:
          return read(request)
        case OPCODE.lookup:
          return lookup(request)
        case OPCODE.getattr:
          return getAttributes(request)
        case OPCODE.opendir:
          return host.reply(request, putOpenReply(host.body, 0, 0))
        case OPCODE.readdirplus:
          return list(request)
        case OPCODE.statfs:
          return host.reply(request, putStatfs(host.body, 0, {blocks: 0, files: devices.size}))
        case OPCODE.release:
        case OPCODE.releasedir:
        case OPCODE.destroy:
          return host.reply(request, 0)
        case OPCODE.forget:
        case OPCODE.batchForget:
          // Inode numbers come from names: there is no count to keep.
          return
        default:
          // Also to OPEN: the kernel then opens files by itself, and keeps their caches.
          return host.replyError(request, ENOSYS)
      }
    },
  }
}

const DIRECTORY = 0o040000
const REGULAR = 0o100000

const PLAIN = {uid: 0, gid: 0, devMajor: 0, devMinor: 0, mtimeSeconds: 0, mtimeNanoseconds: 0}

/** Only root may look: what is in a private image is nobody else's business. */
const ROOT_ATTRIBUTES: FuseAttributes = {
  ...PLAIN,
  nodeId: ROOT_NODE,
  size: 0,
  mode: DIRECTORY | 0o500,
  links: 2,
}

function fileAttributes({name, size}: SharedDevice): FuseAttributes {
  return {...PLAIN, nodeId: nodeIdOf(name), size, mode: REGULAR | 0o400, links: 1}
}
