// The file system of whole trees: one directory per layer at the top, and below it the layer's files, answered from the
// tables of tree-table.ts.

import {constants} from 'node:os'
import {
  type FuseRequest,
  OPCODE,
  parseListXattr,
  parseName,
  parseRead,
  putAttrReply,
  putEntry,
  putStatfs,
  putXattrSize,
  ROOT_NODE,
} from '../fuse/protocol.ts'
import type {RequestHandler, RequestHost} from '../fuse/request-handler.ts'
import type {Place, ServedLayer, TreeEntry} from './served-layer.ts'
import {type StateFiles, TreeAnswers} from './tree-answers.ts'
import {forgetAttributes, inodeAttributes, rootAttributes} from './tree-attributes.ts'
import {listLayers} from './tree-listing.ts'
import {inodeOfNode, layerIdOf, layerIdOfNode, STATE_DIRECTORY} from './tree-nodes.ts'
import {openTreeTable} from './tree-table.ts'

const {ENODATA, ENOSYS} = constants.errno

export interface TreeHandlerOptions {
  /** No layer has extended attributes: the kernel is told not to ask for them, which overlayfs does for every file. */
  readonly bare: boolean
  /** Without these, requests about state files are left to the thread that has them. */
  readonly stateFiles?: StateFiles | undefined
}

/** What is answered from a layer's table. Nothing that writes comes to a read-only mount. */
const IMPLEMENTED: ReadonlySet<number> = new Set([
  OPCODE.lookup,
  OPCODE.getattr,
  OPCODE.open,
  OPCODE.read,
  OPCODE.readdir,
  OPCODE.readdirplus,
  OPCODE.getxattr,
  OPCODE.listxattr,
  OPCODE.readlink,
])

export function createTreeHandler(
  host: RequestHost,
  {bare, stateFiles}: TreeHandlerOptions,
): RequestHandler<TreeEntry> {
  const layers = new Map<number, ServedLayer>()
  const answers = new TreeAnswers(host, stateFiles)

  const placeOf = ({nodeId}: FuseRequest): Place | undefined => {
    const layer = layers.get(layerIdOfNode(nodeId))
    const inode = inodeOfNode(nodeId)
    if (!layer) return undefined
    return inode < layer.table.inodes || inode >= STATE_DIRECTORY ? {layer, inode} : undefined
  }

  /** At the top names come and go, so none is remembered as missing. */
  const lookupLayer = (request: FuseRequest) => {
    const name = parseName(request).toString('latin1')
    const layer = layers.get(layerIdOf(name))
    if (layer?.entry.device.name !== name) return host.replyUnknown(request)
    host.reply(request, putEntry(host.body, 0, inodeAttributes(layer.id, layer.table, 0)))
  }

  const answerAtRoot = (request: FuseRequest) => {
    switch (request.opcode) {
      case OPCODE.lookup:
        return lookupLayer(request)
      case OPCODE.getattr: {
        const size = putAttrReply(host.body, 0, rootAttributes(layers.keys()))
        forgetAttributes(host.body, 0)
        return host.reply(request, size)
      }
      case OPCODE.readdir:
      case OPCODE.readdirplus: {
        const plus = request.opcode === OPCODE.readdirplus
        return host.reply(request, listLayers({host, ...parseRead(request), plus}, layers))
      }
      case OPCODE.listxattr:
        return host.reply(request, parseListXattr(request).size === 0 ? putXattrSize(host.body, 0, 0) : 0)
      case OPCODE.getxattr:
        return host.replyError(request, ENODATA)
      default:
        return host.replyError(request, ENOSYS)
    }
  }

  return {
    put: entry => {
      const {device, tree, stateName} = entry
      const id = layerIdOf(device.name)
      layers.set(id, {
        id,
        entry,
        table: openTreeTable(tree),
        stateName: stateName === undefined ? undefined : Buffer.from(stateName),
      })
    },
    delete: name => void layers.delete(layerIdOf(name)),
    handle: request => {
      switch (request.opcode) {
        case OPCODE.forget:
        case OPCODE.batchForget:
          // Inode numbers come from tables: there is no count to keep.
          return
        case OPCODE.release:
        case OPCODE.releasedir:
        case OPCODE.destroy:
          return host.reply(request, 0)
        case OPCODE.statfs:
          return host.reply(request, putStatfs(host.body, 0, {blocks: 0, files: 0}))
      }
      // To what is not implemented, whether or not we know what it is about: the kernel then asks no more, also not on
      // behalf of the main thread while that adds layers after a restart. OPENDIR is among it: listings stay cached.
      const isImplemented = IMPLEMENTED.has(request.opcode) && !(bare && request.opcode === OPCODE.getxattr)
      if (!isImplemented) return host.replyError(request, ENOSYS)
      if (request.nodeId === ROOT_NODE) return answerAtRoot(request)
      const place = placeOf(request)
      if (place) answers.answer(request, place)
      else host.replyUnknown(request)
    },
  }
}
