// The answers of the data files' directory, without a kernel.

import {constants} from 'node:os'
import {describe, expect, it} from 'vitest'
import {type FuseRequest, OPCODE, ROOT_NODE} from '../../src/lib/fuse/protocol.ts'
import type {SharedDevice} from '../../src/lib/fuse/request-handler.ts'
import {createDataHandler, nodeIdOf} from '../../src/lib/fuse-data/data-handler.ts'
import {type Part, requestOf} from '../fuse/messages.ts'

function device(name: string, size = 8192): SharedDevice {
  return {name, size, fd: -1, present: new SharedArrayBuffer(8)}
}

/** A handler with `devices`, and what it answers: one line for each answer. */
function handlerOf(...devices: SharedDevice[]) {
  const body = Buffer.alloc(1 << 20)
  const answers: string[] = []
  const handler = createDataHandler({
    body,
    reply: (_request, size) => answers.push(`${size} bytes`),
    replyError: (_request, errno) => answers.push(`errno ${errno}`),
    replyData: (_request, {name}, offset, size) => answers.push(`${name} ${offset}+${size}`),
    replyUnknown: () => answers.push('unknown'),
    defer: () => answers.push('deferred'),
  })
  for (const entry of devices) handler.put({device: entry})
  const ask = (opcode: number, nodeId: number, ...parts: Part[]): string[] => {
    answers.length = 0
    handler.handle(requestOf(opcode, nodeId, ...parts) as FuseRequest)
    return [...answers]
  }
  return {handler, body, ask}
}

describe('the inode of a data file', () => {
  it('is the same for ever, because mounts outlive the release that made them', () => {
    expect(nodeIdOf('abc-1')).toBe(1_780_760_650_017_937)
    // The SHA-256 of nothing begins e3b0c44298fc1.
    expect(nodeIdOf('')).toBe(0xe3b0c44298fc1 + 2)
  })

  it('is never the root, and exact as a number', () => {
    for (let index = 0; index < 1000; index++) {
      const node = nodeIdOf(index.toString(16))
      expect(node).toBeGreaterThan(ROOT_NODE)
      expect(Number.isSafeInteger(node)).toBe(true)
    }
  })
})

describe('the handler of data files', () => {
  const file = device('ab-12')
  const node = nodeIdOf(file.name)

  it('knows what was put, until it is deleted', () => {
    const {handler, ask} = handlerOf(file)
    expect(ask(OPCODE.lookup, ROOT_NODE, 'ab-12\0')).toEqual(['128 bytes'])
    expect(ask(OPCODE.getattr, node)).toEqual(['104 bytes'])
    expect(ask(OPCODE.read, node, [0, 64], [4096, 64], [100, 32], [0, 32])).toEqual(['ab-12 4096+100'])
    handler.delete('ab-12')
    expect(ask(OPCODE.lookup, ROOT_NODE, 'ab-12\0')).toEqual(['unknown'])
    expect(ask(OPCODE.getattr, node)).toEqual(['unknown'])
    expect(ask(OPCODE.read, node, [0, 64], [0, 64], [100, 32], [0, 32])).toEqual(['unknown'])
  })

  it('has a root whether or not there are files', () => {
    expect(handlerOf().ask(OPCODE.getattr, ROOT_NODE)).toEqual(['104 bytes'])
  })

  it('keeps the cache of files, and no listing', () => {
    const {ask, body} = handlerOf(file)
    expect(ask(OPCODE.open, node, [0, 64])).toEqual([`errno ${constants.errno.ENOSYS}`])
    expect(ask(OPCODE.opendir, ROOT_NODE, [0, 64])).toEqual(['16 bytes'])
    expect(body.readUInt32LE(8)).toBe(0)
  })

  it('lists as much as there is room for, from where the last listing ended', () => {
    const {ask} = handlerOf(device('a1'), device('b2'), device('c3'))
    const list = (offset: number, size: number) =>
      ask(OPCODE.readdirplus, ROOT_NODE, [0, 64], [offset, 64], [size, 32], [0, 32])
    expect(list(0, 4096)).toEqual(['480 bytes'])
    expect(list(0, 479)).toEqual(['320 bytes'])
    expect(list(2, 4096)).toEqual(['160 bytes'])
    expect(list(3, 4096)).toEqual(['0 bytes'])
    expect(list(0, 100)).toEqual(['0 bytes'])
  })

  it('does not answer what wants no answer, and refuses what it does not know', () => {
    const {ask} = handlerOf(file)
    expect(ask(OPCODE.forget, node, [1, 64])).toEqual([])
    expect(ask(OPCODE.batchForget, 0, [0, 32], [0, 32])).toEqual([])
    for (const opcode of [OPCODE.getxattr, OPCODE.flush, OPCODE.access, OPCODE.statx, 6, 9999]) {
      expect(ask(opcode, node)).toEqual([`errno ${constants.errno.ENOSYS}`])
    }
    expect(ask(OPCODE.release, node)).toEqual(['0 bytes'])
    expect(ask(OPCODE.destroy, 0)).toEqual(['0 bytes'])
  })
})
