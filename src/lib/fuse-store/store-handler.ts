// The file system of a store: every request is answered from the tree, in the main thread, because looking at a layer for
// the first time may mean asking a registry. Nothing that the tree says is cached: it changes, and is asked for seldom.

import {constants} from 'node:os'
import {
  FOPEN_KEEP_CACHE,
  type FuseAttributes,
  type FuseRequest,
  OPCODE,
  parseCreateName,
  parseName,
  parseRead,
  putAttrReply,
  putDirent,
  putDirentPlus,
  putEntry,
  putOpenReply,
  putStatfs,
} from '../fuse/protocol.ts'
import type {RequestHandler, RequestHost} from '../fuse/request-handler.ts'
import {createPatience, type Patience} from './patience.ts'
import {createStoreNodes, type StoreNodes} from './store-nodes.ts'
import type {StoreNode, StorePath, StoreTree} from './store-tree.ts'

const {EINVAL, ENOENT, ENOSYS, EROFS, ESTALE} = constants.errno

export interface StoreHandlerOptions {
  readonly tree: StoreTree
  /** How long anybody waits for an answer, milliseconds. */
  readonly deadlineMs: number
  /** Told of what was answered with EIO. */
  readonly onFailure: (path: StorePath, error: unknown) => void
}

/** Whatever would change something, other than the two ways in which users count themselves. */
const REFUSED: ReadonlySet<number> = new Set([
  OPCODE.setattr,
  OPCODE.symlink,
  OPCODE.mknod,
  OPCODE.mkdir,
  OPCODE.unlink,
  OPCODE.rename,
  OPCODE.rename2,
  OPCODE.link,
  OPCODE.write,
])

export function createStoreHandler(host: RequestHost, options: StoreHandlerOptions): RequestHandler {
  const nodes = createStoreNodes()
  const patience = createPatience(host, options)
  const store: Store = {host, nodes, patience, tree: options.tree}
  return {
    put: () => {},
    delete: () => {},
    abandon: unique => patience.abandon(unique),
    handle: request => {
      switch (request.opcode) {
        case OPCODE.forget:
        case OPCODE.batchForget:
          // Inode numbers come from paths: there is no count to keep.
          return
        case OPCODE.release:
        case OPCODE.releasedir:
        case OPCODE.destroy:
          return host.reply(request, 0)
        case OPCODE.statfs:
          return host.reply(request, putStatfs(host.body, 0, {blocks: 0, files: 0}))
      }
      if (REFUSED.has(request.opcode)) return host.replyError(request, EROFS)
      const path = nodes.pathOf(request.nodeId)
      // The kernel then looks the name up again.
      if (!path) return host.replyError(request, ESTALE)
      answerAt(store, request, path)
    },
  }
}

interface Store {
  readonly host: RequestHost
  readonly nodes: StoreNodes
  readonly patience: Patience
  readonly tree: StoreTree
}

function answerAt(store: Store, request: FuseRequest, path: StorePath) {
  const {host, patience, tree} = store
  switch (request.opcode) {
    case OPCODE.lookup:
      return lookUp(store, request, [...path, parseName(request).toString()])
    case OPCODE.getattr:
      return patience.answer(request, path, async call => {
        const node = await tree.look(path, call)
        if (!node) return () => host.replyError(request, ESTALE)
        return () => {
          const size = putAttrReply(host.body, 0, attributesOf(store, path, node))
          forget(host.body, 0)
          host.reply(request, size)
        }
      })
    case OPCODE.readlink:
      return patience.answer(request, path, async call => {
        const node = await tree.look(path, call)
        if (node?.kind !== 'link') return () => host.replyError(request, node ? EINVAL : ESTALE)
        return () => host.reply(request, host.body.write(node.target))
      })
    case OPCODE.open:
      // A blob never changes; what else there is may, and is read anew by whoever opens it.
      return host.reply(request, putOpenReply(host.body, 0, path.at(-1) === 'blob' ? FOPEN_KEEP_CACHE : 0))
    case OPCODE.opendir:
      return host.reply(request, putOpenReply(host.body, 0, 0))
    case OPCODE.read:
      return patience.answer(request, path, async call => {
        const bytes = await tree.read(path, parseRead(request), call)
        return () => {
          host.body.set(bytes)
          host.reply(request, bytes.length)
        }
      })
    case OPCODE.readdir:
    case OPCODE.readdirplus:
      return list(store, request, path)
    case OPCODE.create:
      return count(store, request, [...path, parseCreateName(request).toString()], 'make')
    case OPCODE.rmdir:
      return count(store, request, [...path, parseName(request).toString()], 'remove')
    default:
      // Also to what asks for extended attributes: the kernel then asks no more.
      return host.replyError(request, ENOSYS)
  }
}

function lookUp(store: Store, request: FuseRequest, path: StorePath): void {
  const {host, patience, tree} = store
  patience.answer(request, path, async call => {
    const node = await tree.look(path, call)
    if (!node) return () => host.replyError(request, ENOENT)
    return () => {
      const size = putEntry(host.body, 0, attributesOf(store, path, node))
      // Of the name, and of the attributes.
      forget(host.body, 16)
      forget(host.body, 24)
      host.reply(request, size)
    }
  })
}

/** Users are told that nothing was made and nothing is there to remove, which is what they expect. */
function count(
  {host, patience, tree}: Store,
  request: FuseRequest,
  path: StorePath,
  how: 'make' | 'remove',
): void {
  patience.answer(request, path, async call => {
    await tree[how](path, call)
    return () => host.replyError(request, ENOENT)
  })
}

function list({host, nodes, tree}: Store, request: FuseRequest, path: StorePath): void {
  const {offset, size} = parseRead(request)
  const end = Math.min(size, host.body.length)
  const names = ['.', '..', ...tree.list(path)]
  let used = 0
  for (const [index, name] of names.entries()) {
    if (index < offset) continue
    const nodeId = nodes.idOf(name.startsWith('.') ? path : [...path, name])
    // Neither type nor attributes are told: whoever wants them looks.
    const entry = {nodeId, next: index + 1, type: 0, name: Buffer.from(name), attributes: undefined}
    const put = request.opcode === OPCODE.readdirplus ? putDirentPlus : putDirent
    const written = put(host.body, used, end, entry)
    if (written === 0) break
    used += written
  }
  host.reply(request, used)
}

const OURS = {uid: 0, gid: 0, devMajor: 0, devMinor: 0, mtimeSeconds: 0, mtimeNanoseconds: 0}
const DIRECTORY = 0o040000
const REGULAR = 0o100000
const LINK = 0o120000

function attributesOf({nodes}: Store, path: StorePath, node: StoreNode): FuseAttributes {
  const nodeId = nodes.idOf(path)
  switch (node.kind) {
    case 'directory':
      return {...OURS, nodeId, size: 4096, mode: DIRECTORY | 0o755, links: 2}
    case 'file':
      return {...OURS, nodeId, size: node.size, mode: REGULAR | node.mode, links: 1}
    case 'link':
      return {...OURS, nodeId, size: Buffer.byteLength(node.target), mode: LINK | 0o777, links: 1}
  }
}

/** Makes the kernel ask again; `at` is where a validity stands. */
function forget(body: Buffer, at: number): void {
  body.writeBigUInt64LE(0n, at)
}
