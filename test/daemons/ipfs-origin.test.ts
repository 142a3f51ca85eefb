// Layers that are in IPFS and in a registry: which is asked, and what happens when IPFS fails.

import {expect, it, onTestFinished} from 'vitest'
import {createIpfsOrigin} from '../../src/daemons/lazy-layers/ipfs-origin.ts'
import {createRegistryOrigin} from '../../src/daemons/lazy-layers/registry-origin.ts'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {findIpfsApi} from '../../src/lib/ipfs/api-address.ts'
import {IpfsNode} from '../../src/lib/ipfs/ipfs-node.ts'
import {openRegistry} from '../../src/lib/registry/registry.ts'
import {startFaultyRegistry} from '../support/faulty-registry.ts'
import {startIpfsNode} from '../support/ipfs-node.ts'

const BLOB = Buffer.alloc(1 << 20, 'blob')

async function setUp() {
  const server = await startFaultyRegistry()
  server.addBlob('app', BLOB)
  const ipfs = await startIpfsNode()
  const cid = await ipfs.add(BLOB)
  const registry = openRegistry({retry: {attempts: 1, minDelayMs: 0, maxDelayMs: 0}})
  const node = new IpfsNode({findApi: () => findIpfsApi({IPFS_PATH: ipfs.repository}), userAgent: 'test'})
  onTestFinished(async () => {
    await node[Symbol.asyncDispose]()
    await registry[Symbol.asyncDispose]()
    await ipfs[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
  })
  const request = {
    reference: `${server.host}/app:1`,
    digest: digestOf(BLOB),
    tocDigest: undefined,
    size: undefined,
    urls: [`ipfs://${cid}`],
    neighbours: [],
    prefetchSize: undefined,
    prefetchPlan: undefined,
    isPlanAwaited: false,
    skipVerify: false,
    command: undefined,
  }
  const registries = createRegistryOrigin(registry)
  return {server, ipfs, cid, request, registries, origin: createIpfsOrigin(registries, node)}
}

it('IPFS is asked first, and the registry is left alone', async () => {
  const {server, request, origin} = await setUp()
  const {blob, tail} = await origin.openBlob(request, 1000, {})
  expect(Buffer.from(tail).equals(BLOB.subarray(-1000))).toBe(true)
  expect(await blob.read(5, 4)).toEqual(BLOB.subarray(5, 9))
  expect(server.requests).toEqual([])
})

it('the registry is asked once IPFS fails, at the start or later', async () => {
  const {server, ipfs, request, origin} = await setUp()
  const {blob} = await origin.openBlob(request, 1000, {})
  await ipfs.stop()
  expect(await blob.read(5, 4)).toEqual(BLOB.subarray(5, 9))
  expect(server.requests).not.toEqual([])
  const {tail} = await origin.openBlob(request, 1000, {})
  expect(Buffer.from(tail).equals(BLOB.subarray(-1000))).toBe(true)
  // An error of the registry is told as it is.
  server.inject({}, {kind: 'status', status: 403}, 1000)
  await expect(blob.read(9, 4)).rejects.toMatchObject({code: 'permission-denied'})
})

it('no registry is asked for what is named by a CID', async () => {
  const {server, ipfs, cid, request, registries, origin} = await setUp()
  const named = {...request, reference: cid}
  await ipfs.stop()
  await expect(origin.openBlob(named, 1000, {})).rejects.toMatchObject({code: 'unavailable'})
  await expect(origin.blob(named, BLOB.length).read(0, 1)).rejects.toMatchObject({code: 'unavailable'})
  await expect(origin.externalToc(named, {})).rejects.toMatchObject({code: 'not-found'})
  const withoutUrl = {...named, urls: ['https://example.com/x']}
  await expect(origin.openBlob(withoutUrl, 1000, {})).rejects.toThrow(/no label with its ipfs:\/\/ URL/)
  const unconfigured = createIpfsOrigin(registries, undefined)
  await expect(unconfigured.openBlob(named, 1000, {})).rejects.toThrow(/set ipfs = true/)
  await expect(unconfigured.blob(named, 10).read(0, 1)).rejects.toThrow(/set ipfs = true/)
  expect(server.requests).toEqual([])
})

it('without a node, registries are asked as ever', async () => {
  const {request, registries} = await setUp()
  const {blob} = await createIpfsOrigin(registries, undefined).openBlob(request, 1000, {})
  expect(await blob.read(5, 4)).toEqual(BLOB.subarray(5, 9))
})

it('a reader who has gone does not make the registry be asked', async () => {
  const {server, ipfs, request, origin} = await setUp()
  const {blob} = await origin.openBlob(request, 1000, {})
  ipfs.fail({kind: 'stall'})
  const abort = new AbortController()
  const reading = blob.read(5, 4, {signal: abort.signal})
  abort.abort(new Error('enough'))
  await expect(reading).rejects.toThrow('enough')
  expect(server.requests).toEqual([])
})
