import {expect, it, onTestFinished} from 'vitest'
import {createRegistryOrigin} from '../../src/daemons/lazy-layers/registry-origin.ts'
import {openRegistry} from '../../src/lib/registry/registry.ts'
import {startFaultyRegistry} from '../support/faulty-registry.ts'

const BLOB = Buffer.alloc(1 << 20, 'blob')

async function setUp() {
  const server = await startFaultyRegistry()
  const {digest} = server.addBlob('app', BLOB)
  const registry = openRegistry({retry: {attempts: 1, minDelayMs: 0, maxDelayMs: 0}})
  onTestFinished(async () => {
    await registry[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
  })
  const request = {
    reference: `${server.host}/app:1`,
    digest,
    tocDigest: undefined,
    size: undefined,
    urls: [],
    neighbours: [],
    prefetchSize: undefined,
    skipVerify: false,
    command: undefined,
    prefetchPlan: undefined,
    isPlanAwaited: false,
  }
  return {server, request, origin: createRegistryOrigin(registry)}
}

it('a layer is opened from its end, and read where it is needed', async () => {
  const {request, origin} = await setUp()
  const {blob, tail} = await origin.openBlob(request, 1000, {})
  expect(Buffer.from(tail).equals(BLOB.subarray(-1000))).toBe(true)
  expect(await blob.read(5, 4)).toEqual(BLOB.subarray(5, 9))
})

it('a registry that ignores ranges serves no layers lazily, apart from those that are all tail', async () => {
  const {server, request, origin} = await setUp()
  server.inject({}, {kind: 'ignore-range'}, 1000)
  await expect(origin.openBlob(request, 1000, {})).rejects.toMatchObject({
    code: 'unsupported',
    message: expect.stringContaining('does not support range requests'),
  })
  expect((await origin.openBlob(request, BLOB.length, {})).tail).toHaveLength(BLOB.length)
})

it('a registry that ignores only ranges from the end is asked for others', async () => {
  const {server, request, origin} = await setUp()
  server.inject({}, {kind: 'ignore-range'}, 1)
  const {tail} = await origin.openBlob(request, 1000, {})
  expect(Buffer.from(tail).equals(BLOB.subarray(-1000))).toBe(true)
})
