// The client of a node: what it sends, and what becomes of answers that are none.

import {randomBytes} from 'node:crypto'
import {describe, expect, it, onTestFinished} from 'vitest'
import {findIpfsApi} from '../../src/lib/ipfs/api-address.ts'
import {IpfsNode, ipfsBlob} from '../../src/lib/ipfs/ipfs-node.ts'
import {startIpfsNode, type TestIpfsNode} from '../support/ipfs-node.ts'

async function setUp(): Promise<{server: TestIpfsNode; node: IpfsNode}> {
  const server = await startIpfsNode()
  const findApi = () => findIpfsApi({IPFS_PATH: server.repository})
  const timeouts = {connectMs: 5_000, headersMs: 200, bodyIdleMs: 200}
  const node = new IpfsNode({findApi, timeouts, userAgent: 'test'})
  onTestFinished(async () => {
    await node[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
  })
  return {server, node}
}

function bytesOf(bytes: Uint8Array) {
  return {
    size: bytes.length,
    async *stream() {
      for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000)
    },
  }
}

describe('a node', () => {
  it('is given files, and gives them back, whole and in parts', async () => {
    const {server, node} = await setUp()
    const bytes = randomBytes(700_000)
    const cid = await node.add(bytesOf(bytes))
    expect(cid).toMatch(/^bafybei/)
    expect(server.pinned).toContain(cid)
    expect(server.requests).toEqual([{call: 'add', query: {'cid-version': '1', pin: 'true'}}])
    expect(await node.size(cid)).toBe(bytes.length)
    const blob = ipfsBlob(node, cid, bytes.length)
    for (const [offset, length] of [
      [0, 700_000],
      [262_143, 2],
      [699_999, 1],
      [5, 0],
    ] as const) {
      expect(bytes.subarray(offset, offset + length).equals(await blob.read(offset, length))).toBe(true)
    }
    await expect(blob.read(699_999, 2)).rejects.toMatchObject({code: 'invalid-argument'})
  })

  it('is given an empty file', async () => {
    const {node} = await setUp()
    const cid = await node.add(bytesOf(Buffer.alloc(0)))
    expect(await node.size(cid)).toBe(0)
    expect(await ipfsBlob(node, cid, 0).read(0, 0)).toHaveLength(0)
  })

  it('that sends too few bytes, or has fewer than was thought, is told', async () => {
    const {server, node} = await setUp()
    const cid = await server.add(Buffer.alloc(1000, 'a'))
    await expect(ipfsBlob(node, cid, 2000).read(0, 2000)).rejects.toMatchObject({code: 'unavailable'})
    server.fail({kind: 'short', bytes: 1})
    await expect(ipfsBlob(node, cid, 1000).read(0, 1000)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('sent 999 instead of 1000 bytes'),
    })
  })

  it('that is none is told', async () => {
    const {server, node} = await setUp()
    const cid = await server.add(Buffer.alloc(1000, 'a'))
    server.fail({kind: 'rubbish'})
    const isNone = {code: 'unsupported', message: expect.stringContaining('not the API of an IPFS node')}
    await expect(node.size(cid)).rejects.toMatchObject(isNone)
    await expect(node.add(bytesOf(Buffer.from('x')))).rejects.toMatchObject(isNone)
    await expect(ipfsBlob(node, cid, 1000).read(0, 1000)).rejects.toMatchObject({code: 'unavailable'})
    await expect(ipfsBlob(node, cid, 5).read(0, 5)).rejects.toMatchObject({code: 'corrupt'})
    server.fail({kind: 'status', status: 404, body: '404 page not found'})
    await expect(node.size(cid)).rejects.toMatchObject({
      code: 'unsupported',
      message: expect.stringContaining('"404 page not found" (HTTP 404)'),
    })
  })

  it('is quoted where it says what is wrong', async () => {
    const {server, node} = await setUp()
    const cid = await server.add(Buffer.from('x'))
    const body = JSON.stringify({
      Message: 'block was not found locally (offline): ipld: could not find',
      Code: 0,
    })
    server.fail({kind: 'status', status: 500, body})
    await expect(node.document(cid)).rejects.toMatchObject({
      code: 'not-found',
      message: expect.stringContaining('block was not found locally'),
    })
    server.fail({kind: 'status', status: 500, body: '{"Message":"context deadline exceeded"}'})
    await expect(node.document(cid)).rejects.toMatchObject({code: 'unavailable'})
    server.fail({kind: 'status', status: 403, body: '403 - Forbidden'})
    await expect(node.document(cid)).rejects.toMatchObject({code: 'permission-denied'})
  })

  it('that is silent, or gone, is unavailable; back at another port it is found', async () => {
    const {server, node} = await setUp()
    const cid = await server.add(Buffer.from('x'))
    server.fail({kind: 'stall'})
    await expect(node.size(cid)).rejects.toMatchObject({
      code: 'unavailable',
      message: expect.stringContaining('it did not answer in time'),
    })
    server.fail(undefined)
    expect(await node.size(cid)).toBe(1)
    await server.stop()
    await expect(node.size(cid)).rejects.toMatchObject({code: 'unavailable'})
    await using other = await startIpfsNode()
    await other.add(Buffer.from('x'))
    await other.moveTo(server.repository)
    expect(await node.size(cid)).toBe(1)
  })

  it('is left in peace once the caller has gone', async () => {
    const {server, node} = await setUp()
    const cid = await server.add(Buffer.from('x'))
    server.fail({kind: 'stall'})
    const abort = new AbortController()
    const reading = node.size(cid, {signal: abort.signal})
    abort.abort(new Error('enough'))
    await expect(reading).rejects.toThrow('enough')
  })
})
