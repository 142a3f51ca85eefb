// The answers of the file system of trees, without a kernel.

import {constants} from 'node:os'
import {describe, expect, it} from 'vitest'
import {OPCODE, ROOT_NODE} from '../../src/lib/fuse/protocol.ts'
import type {SharedDevice} from '../../src/lib/fuse/request-handler.ts'
import {encodeTree} from '../../src/lib/fuse-tree/tree-encode.ts'
import {createTreeHandler, type TreeHandlerOptions} from '../../src/lib/fuse-tree/tree-handler.ts'
import {layerIdOf, nodeIdOfInode, STATE_DIRECTORY, STATE_FILE} from '../../src/lib/fuse-tree/tree-nodes.ts'
import {createStateFile} from '../../src/lib/fuse-tree/tree-state.ts'
import {createLayerBuilder, directory, node} from '../conformance-mount/sample-layer.ts'
import {type Part, requestOf} from '../fuse/messages.ts'

const {EINVAL, EISDIR, ENODATA, ENOENT, ENOSYS, ENOTDIR, ERANGE} = constants.errno

const LAYER = 'a1'
const STATE_NAME = 'sha256:00.json'

/** Inodes in the order of their names: directory 1, file 2, link 3. */
const [DIRECTORY, FILE, LINK] = [1, 2, 3]

function sampleTree(): SharedArrayBuffer {
  const {file} = createLayerBuilder()
  file({size: 4096})
  const names = Object.fromEntries(Array.from({length: 100}, (_, index) => [`name-${index}`, file('')]))
  const xattrs = new Map([['user.name', Buffer.from('value')]])
  const root = directory({
    a: directory(names),
    b: file({size: 10_000}, {xattrs}),
    c: node('symlink', {linkName: 'b'}),
  })
  return encodeTree(root, {opaque: 'trusted', dataSize: 20_000})
}

/** A handler that serves one layer, and what it answers: one line for each answer. */
function handlerOf(options: Partial<TreeHandlerOptions> = {}) {
  const body = Buffer.alloc(1 << 20)
  const answers: string[] = []
  const handler = createTreeHandler(
    {
      body,
      reply: (_request, size) => answers.push(`${size} bytes`),
      replyError: (_request, errno) => answers.push(`errno ${errno}`),
      replyData: (_request, {name}, offset, size) => answers.push(`${name} ${offset}+${size}`),
      replyUnknown: () => answers.push('unknown'),
      defer: () => answers.push('deferred'),
    },
    {bare: false, ...options},
  )
  const device: SharedDevice = {name: LAYER, size: 20_000, fd: -1, present: new SharedArrayBuffer(8)}
  handler.put({device, tree: sampleTree(), stateName: STATE_NAME, passthrough: undefined})
  const ask = (opcode: number, nodeId: number, ...parts: Part[]): string[] => {
    answers.length = 0
    handler.handle(requestOf(opcode, nodeId, ...parts))
    return [...answers]
  }
  return {handler, body, ask}
}

const at = (inode: number, layer = LAYER) => nodeIdOfInode(layerIdOf(layer), inode)

const range = (offset: number, size: number): Part[] => [
  [0, 64],
  [offset, 64],
  [size, 32],
  [0, 32],
  [0, 64],
  [0, 64],
]
const room = (size: number): Part[] => [
  [size, 32],
  [0, 32],
]

/** The names of a READDIR's reply, and where reading goes on. */
function entriesOf(body: Buffer, size: number): {names: string[]; next: number} {
  const names: string[] = []
  let next = 0
  for (let place = 0; place < size; ) {
    next = Number(body.readBigUInt64LE(place + 8))
    const length = body.readUInt32LE(place + 16)
    names.push(body.toString('latin1', place + 24, place + 24 + length))
    place += 24 + ((length + 7) & ~7)
  }
  return {names, next}
}

describe('the numbers of inodes', () => {
  it('are the same for ever, because mounts outlive the release that made them', () => {
    // The SHA-256 of nothing begins e3b0c442.
    expect(layerIdOf('')).toBe(1 + (0x42c4b0e3 % (2 ** 31 - 1)))
    expect(nodeIdOfInode(3, 5)).toBe(3 * 4_194_304 + 5)
  })

  it('are exact, and never the root, for the last inode of the last layer', () => {
    expect(Number.isSafeInteger(nodeIdOfInode(2 ** 31 - 1, STATE_FILE))).toBe(true)
    for (let index = 0; index < 1000; index++) expect(layerIdOf(`${index}`)).toBeGreaterThan(0)
  })
})

describe('the handler of trees', () => {
  it('knows its layers, until they are deleted', () => {
    const {handler, ask} = handlerOf()
    expect(ask(OPCODE.lookup, ROOT_NODE, 'a1\0')).toEqual(['128 bytes'])
    expect(ask(OPCODE.getattr, at(0))).toEqual(['104 bytes'])
    expect(ask(OPCODE.lookup, ROOT_NODE, 'b2\0')).toEqual(['unknown'])
    handler.delete(LAYER)
    expect(ask(OPCODE.lookup, ROOT_NODE, 'a1\0')).toEqual(['unknown'])
    expect(ask(OPCODE.getattr, at(0))).toEqual(['unknown'])
  })

  it.each([
    ['another layer', at(0, 'b2')],
    ['an inode that the layer does not have', at(104)],
    ['a number of no layer', 7],
  ])('does not know %s', (_, nodeId) => {
    const {ask} = handlerOf()
    for (const opcode of [OPCODE.getattr, OPCODE.readlink, OPCODE.open]) {
      expect(ask(opcode, nodeId, ...range(0, 100))).toEqual(['unknown'])
    }
    expect(ask(OPCODE.lookup, nodeId, 'name\0')).toEqual(['unknown'])
    expect(ask(OPCODE.read, nodeId, ...range(0, 100))).toEqual(['unknown'])
    expect(ask(OPCODE.readdirplus, nodeId, ...range(0, 4096))).toEqual(['unknown'])
    expect(ask(OPCODE.getxattr, nodeId, ...room(100), 'user.name\0')).toEqual(['unknown'])
    expect(ask(OPCODE.listxattr, nodeId, ...room(100))).toEqual(['unknown'])
  })

  it('lets the kernel do without what it does not implement, whatever that is about', () => {
    const {ask} = handlerOf()
    for (const opcode of [OPCODE.opendir, OPCODE.flush, OPCODE.access, OPCODE.statx, 9, 1000]) {
      for (const nodeId of [ROOT_NODE, at(FILE), at(0, 'b2')]) {
        expect(ask(opcode, nodeId, [0, 64], [0, 64])).toEqual([`errno ${ENOSYS}`])
      }
    }
    expect(ask(OPCODE.open, at(FILE), [0, 64])).toEqual([`errno ${ENOSYS}`])
    expect(ask(OPCODE.release, at(FILE), [0, 64])).toEqual(['0 bytes'])
    expect(ask(OPCODE.forget, at(FILE), [1, 64])).toEqual([])
  })

  it('remembers names that are not there', () => {
    const {body, ask} = handlerOf()
    expect(ask(OPCODE.lookup, at(DIRECTORY), 'name-1000\0')).toEqual(['128 bytes'])
    expect([body.readBigUInt64LE(0), body.readBigUInt64LE(16)]).toEqual([0n, 1_000_000_000n])
    expect(ask(OPCODE.lookup, at(FILE), 'name\0')).toEqual([`errno ${ENOTDIR}`])
  })

  it('reads files at their place on the device, and no further than they go', () => {
    const {ask} = handlerOf()
    expect(ask(OPCODE.read, at(FILE), ...range(0, 4096))).toEqual(['a1 4096+4096'])
    expect(ask(OPCODE.read, at(FILE), ...range(8192, 4096))).toEqual([`a1 ${4096 + 8192}+1808`])
    expect(ask(OPCODE.read, at(FILE), ...range(10_000, 4096))).toEqual(['0 bytes'])
    expect(ask(OPCODE.read, at(FILE), ...range(2 ** 40, 4096))).toEqual(['0 bytes'])
    expect(ask(OPCODE.read, at(DIRECTORY), ...range(0, 4096))).toEqual([`errno ${EISDIR}`])
  })

  it('lists a directory in pieces of any size, each name once', () => {
    const {body, ask} = handlerOf()
    const names: string[] = []
    for (let offset = 0, size = 64; ; size = 64 + ((size * 7) % 300)) {
      const [answer] = ask(OPCODE.readdir, at(DIRECTORY), ...range(offset, size))
      const listed = entriesOf(body, Number.parseInt(answer!, 10))
      if (listed.names.length === 0) break
      names.push(...listed.names)
      offset = listed.next
    }
    expect(names.slice(0, 2)).toEqual(['.', '..'])
    expect(new Set(names).size).toBe(102)
    expect(names).toHaveLength(102)
    expect(ask(OPCODE.readdir, at(DIRECTORY), ...range(102, 4096))).toEqual(['0 bytes'])
    expect(ask(OPCODE.readdir, at(DIRECTORY), ...range(2 ** 31, 4096))).toEqual(['0 bytes'])
  })

  it('gives attributes into the room that there is', () => {
    const {body, ask} = handlerOf()
    expect(ask(OPCODE.getxattr, at(FILE), ...room(0), 'user.name\0')).toEqual(['8 bytes'])
    expect(body.readUInt32LE(0)).toBe(5)
    expect(ask(OPCODE.getxattr, at(FILE), ...room(4), 'user.name\0')).toEqual([`errno ${ERANGE}`])
    expect(ask(OPCODE.getxattr, at(FILE), ...room(5), 'user.name\0')).toEqual(['5 bytes'])
    expect(ask(OPCODE.getxattr, at(FILE), ...room(5), 'user.none\0')).toEqual([`errno ${ENODATA}`])
    expect(ask(OPCODE.listxattr, at(FILE), ...room(9))).toEqual([`errno ${ERANGE}`])
    expect(ask(OPCODE.listxattr, at(FILE), ...room(10))).toEqual(['10 bytes'])
    for (const nodeId of [ROOT_NODE, at(DIRECTORY), at(STATE_FILE)]) {
      expect(ask(OPCODE.listxattr, nodeId, ...room(10))).toEqual(['0 bytes'])
      expect(ask(OPCODE.getxattr, nodeId, ...room(10), 'user.name\0')).toEqual([`errno ${ENODATA}`])
    }
  })

  it('is asked for no attributes where no layer has any', () => {
    const {ask} = handlerOf({bare: true})
    expect(ask(OPCODE.getxattr, at(DIRECTORY), ...room(10), 'user.name\0')).toEqual([`errno ${ENOSYS}`])
    expect(ask(OPCODE.listxattr, at(DIRECTORY), ...room(10))).toEqual(['0 bytes'])
  })

  it('reads links, and only links', () => {
    const {body, ask} = handlerOf()
    expect(ask(OPCODE.readlink, at(LINK))).toEqual(['1 bytes'])
    expect(body.toString('latin1', 0, 1)).toBe('b')
    expect(ask(OPCODE.readlink, at(STATE_FILE))).toEqual([`errno ${EINVAL}`])
  })

  it('leaves state files to the thread that has them', () => {
    const {ask} = handlerOf()
    expect(ask(OPCODE.lookup, at(0), '.stargz-snapshotter\0')).toEqual(['128 bytes'])
    expect(ask(OPCODE.getattr, at(STATE_DIRECTORY))).toEqual(['104 bytes'])
    // Its name, `.` and `..`.
    expect(ask(OPCODE.readdirplus, at(STATE_DIRECTORY), ...range(0, 4096))).toEqual(['488 bytes'])
    expect(ask(OPCODE.lookup, at(STATE_DIRECTORY), 'other\0')).toEqual([`errno ${ENOENT}`])
    expect(ask(OPCODE.lookup, at(STATE_DIRECTORY), `${STATE_NAME}\0`)).toEqual(['deferred'])
    expect(ask(OPCODE.getattr, at(STATE_FILE))).toEqual(['deferred'])
    expect(ask(OPCODE.read, at(STATE_FILE), ...range(0, 4096))).toEqual(['deferred'])
  })

  it('reads of a state file what was said of its size, also when it has changed since', () => {
    let fetchedSize = 5
    const state = createStateFile(() => ({digest: 'sha256:00', size: 100, fetchedSize}))
    const {body, ask} = handlerOf({stateFiles: () => state})
    expect(ask(OPCODE.getattr, at(STATE_FILE))).toEqual(['104 bytes'])
    // Its attributes are valid for no time.
    expect(body.readBigUInt64LE(0)).toBe(0n)
    const size = Number(body.readBigUInt64LE(24))
    fetchedSize = 100
    expect(ask(OPCODE.read, at(STATE_FILE), ...range(0, 4096))).toEqual([`${size} bytes`])
    expect(JSON.parse(body.toString('utf8', 0, size)).fetchedSize).toBe(5)
    ask(OPCODE.getattr, at(STATE_FILE))
    ask(OPCODE.read, at(STATE_FILE), ...range(0, 4096))
    expect(JSON.parse(body.toString('utf8', 0, Number(body.indexOf('\n')))).fetchedSize).toBe(100)
  })
})
