import {expect, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {RegistryOptions} from '../../src/lib/registry/registry.ts'
import type {Fault} from '../support/faulty-registry.ts'
import {openClient, readAll, sampleBytes, startRegistry} from './registry-scene.ts'

const BYTES = sampleBytes(300_000)
const SIZE = BYTES.length
const BLOBS = {method: 'GET', url: /\/blobs\/sha256/}

async function openBlob(options: RegistryOptions = {}) {
  const server = await startRegistry()
  const descriptor = server.addBlob('app', BYTES)
  const repository = openClient(options).repository(`${server.host}/app`, {access: 'pull'})
  return {server, descriptor, repository, blob: await repository.openBlob(descriptor)}
}

/** Reads the whole blob while the first requests get these faults. */
async function streamWith(...faults: Fault[]) {
  const {server, blob} = await openBlob()
  for (const fault of faults) server.inject(BLOBS, fault)
  const bytes = await readAll(blob)
  expect(bytes.equals(BYTES)).toBe(true)
  return server.requests.map(({method, headers}) => `${method} ${headers.range ?? 'whole'}`)
}

test('a blob is streamed with one request', async () => {
  expect(await streamWith()).toEqual(['GET whole'])
})

test('a stream that breaks off goes on where it broke', async () => {
  expect(await streamWith({kind: 'drop', afterBytes: 100_000})).toEqual([
    'GET whole',
    `GET bytes=100000-${SIZE - 1}`,
  ])
})

test('a stream goes on as often as it breaks, as long as it gets further', async () => {
  const faults = [70_000, 70_000, 70_000].map(afterBytes => ({kind: 'drop', afterBytes}) as const)
  expect(await streamWith(...faults)).toHaveLength(4)
})

test('a stream that ends cleanly but too early is continued', async () => {
  expect(await streamWith({kind: 'truncate', afterBytes: 100_000})).toHaveLength(2)
})

test('a host that ignores ranges is read from the start, and what is known is skipped', async () => {
  const {server, blob} = await openBlob()
  server.inject(BLOBS, {kind: 'drop', afterBytes: 100_000})
  server.inject(BLOBS, {kind: 'ignore-range'})
  expect((await readAll(blob)).equals(BYTES)).toBe(true)
  expect(blob.rangeSupport).toBe('ignored')
})

test.each([408, 429, 500, 502, 503, 504])('HTTP %i is answered by another attempt', async status => {
  expect(await streamWith({kind: 'status', status})).toHaveLength(2)
})

test.each(['0', '1', 'Wed, 21 Oct 2015 07:28:00 GMT', 'nonsense', '-1'])(
  'Retry-After %s is honoured within limits',
  async value => {
    const fault = {kind: 'status', status: 429, headers: {'retry-after': value}} as const
    expect(await streamWith(fault)).toHaveLength(2)
  },
)

/** The error of reading the whole blob while every request gets the fault. */
async function streamError(fault: Fault, options: RegistryOptions = {}) {
  const {server, blob} = await openBlob(options)
  server.inject(BLOBS, fault, Number.POSITIVE_INFINITY)
  const error = await readAll(blob).catch(thrown => thrown)
  return {code: error.code, message: String(error.message), requests: server.requests.length}
}

test('a wrong byte is found at the end of the stream', async () => {
  expect(await streamError({kind: 'corrupt'})).toMatchObject({code: 'corrupt', requests: 1})
})

test('a blob that is longer than its descriptor says is refused', async () => {
  expect(await streamError({kind: 'extend', extraBytes: 10})).toMatchObject({code: 'corrupt', requests: 1})
})

test('a wrong Content-Length is refused before the body is read', async () => {
  const {code, message, requests} = await streamError({kind: 'headers', headers: {'content-length': '5'}})
  expect({code, requests}).toEqual({code: 'corrupt', requests: 1})
  expect(message).toMatch(/says that it has 5 bytes, its descriptor 300000$/)
})

test('a registry that always ends a blob too early is given up', async () => {
  expect(await streamError({kind: 'truncate', afterBytes: 10})).toMatchObject({code: 'corrupt', requests: 4})
})

test('a registry that always breaks the connection is given up', async () => {
  expect(await streamError({kind: 'drop', afterBytes: 10})).toMatchObject({code: 'unavailable'})
})

test('a registry that answers 503 for ever is given up after the configured attempts', async () => {
  const fault = {kind: 'status', status: 503, body: 'down for maintenance'} as const
  const {code, message, requests} = await streamError(fault)
  expect({code, requests}).toEqual({code: 'unavailable', requests: 4})
  expect(message).toContain('down for maintenance')
})

test('a body that stalls is given up', async () => {
  const timeouts = {bodyIdleMs: 50}
  const retry = {attempts: 2, minDelayMs: 1, maxDelayMs: 1}
  const error = await streamError({kind: 'stall', afterBytes: 10}, {timeouts, retry})
  expect(error).toMatchObject({code: 'unavailable', requests: 2})
})

test.each([
  [401, 'unauthenticated', /docker login/],
  [403, 'permission-denied', /denied/],
  [404, 'not-found', /does not have it/],
  [418, 'invalid-argument', /HTTP 418/],
  [501, 'unsupported', /HTTP 501/],
] as const)('HTTP %i is final, and means %s', async (status, code, advice) => {
  const error = await streamError({kind: 'status', status})
  expect(error).toMatchObject({code, requests: 1})
  expect(error.message).toMatch(advice)
})

test("a registry's own words are repeated on one line, without control characters and within limits", async () => {
  const body = JSON.stringify({errors: [{code: 'DENIED', message: `no\u001b[31m\nway ${'x'.repeat(5000)}`}]})
  const {message} = await streamError({kind: 'status', status: 403, body})
  expect(message).toContain('DENIED no [31m way xxx')
  expect(message.length).toBeLessThan(700)
})

test('an error page of any size does not fill the memory', async () => {
  const body = `<html>${'x'.repeat(4_000_000)}`
  expect(await streamError({kind: 'status', status: 404, body})).toMatchObject({code: 'not-found'})
})

test('a range is read with a Range header', async () => {
  const {server, blob} = await openBlob()
  expect((await blob.read(1000, 50)) as Uint8Array).toEqual(BYTES.subarray(1000, 1050))
  expect(server.requests[0]?.headers.range).toBe('bytes=1000-1049')
  expect(blob.rangeSupport).toBe('honoured')
})

test('a range is read from a host that ignores ranges', async () => {
  const {server, blob} = await openBlob()
  server.inject(BLOBS, {kind: 'ignore-range'})
  expect(Buffer.from(await blob.read(1000, 50))).toEqual(BYTES.subarray(1000, 1050))
})

test('a range that breaks off is completed', async () => {
  const {server, blob} = await openBlob()
  server.inject(BLOBS, {kind: 'drop', afterBytes: 20})
  expect(Buffer.from(await blob.read(1000, 50))).toEqual(BYTES.subarray(1000, 1050))
  expect(server.requests[1]?.headers.range).toBe('bytes=1020-1049')
})

test.each([
  ['another range', 'bytes 0-49/300000'],
  ['another size', 'bytes 1000-1049/300001'],
  ['no range', 'items 1-2/3'],
])('a 206 about %s is refused', async (_, range) => {
  const {server, blob} = await openBlob()
  server.inject(BLOBS, {kind: 'headers', headers: {'content-range': range}})
  await expect(blob.read(1000, 50)).rejects.toMatchObject({code: 'corrupt'})
})

test('a range beyond what the registry has is corrupt, not a missing blob', async () => {
  const {server, blob} = await openBlob()
  server.inject(BLOBS, {kind: 'status', status: 416})
  await expect(blob.read(1000, 50)).rejects.toMatchObject({code: 'corrupt'})
})

test.each([
  [-1, 1],
  [0, -1],
  [SIZE, 1],
  [0.5, 1],
  [0, Number.NaN],
])('the range %d+%d is refused without a request', async (offset, length) => {
  const {server, blob} = await openBlob()
  await expect(blob.read(offset, length)).rejects.toMatchObject({code: 'invalid-argument'})
  expect(server.requests).toHaveLength(0)
})

test('an empty blob is an empty stream', async () => {
  const server = await startRegistry()
  const repository = openClient().repository(`${server.host}/app`, {access: 'pull'})
  const blob = await repository.openBlob(server.addBlob('app', Buffer.alloc(0)))
  expect(await readAll(blob)).toHaveLength(0)
})

test('a redirect is followed, without credentials and headers, and remembered', async () => {
  const storage = await startRegistry()
  storage.addBlob('app', BYTES)
  const server = await startRegistry({auth: {kind: 'basic', username: 'u', password: 'p'}})
  const descriptor = server.addBlob('app', BYTES)
  const to = `${storage.url}/v2/app/blobs/${descriptor.digest}?signature=s`
  server.inject(
    {method: 'GET', url: /blobs/},
    {kind: 'status', status: 401, headers: {'www-authenticate': 'Basic realm="r"'}},
  )
  server.inject(BLOBS, {kind: 'redirect', to}, Number.POSITIVE_INFINITY)
  const credential = {kind: 'password', username: 'u', password: 'p'} as const
  const repository = openClient({credential}).repository(`${server.host}/app`, {access: 'pull'})
  const blob = await repository.openBlob(descriptor)
  await blob.read(0, 10)
  await blob.read(10, 10)
  expect(server.requests.map(({headers}) => headers.authorization)).toEqual([undefined, 'Basic dTpw'])
  expect(storage.requests.map(({headers}) => headers.authorization)).toEqual([undefined, undefined])
})

test.each([401, 403, 404])(
  'a remembered redirect that has expired (HTTP %i) is asked for again',
  async status => {
    const storage = await startRegistry()
    const {server, blob, descriptor} = await openBlob()
    storage.addBlob('app', BYTES)
    const to = `${storage.url}/v2/app/blobs/${descriptor.digest}`
    server.inject(BLOBS, {kind: 'redirect', to}, 2)
    await blob.read(0, 10)
    storage.inject(BLOBS, {kind: 'status', status})
    expect(Buffer.from(await blob.read(10, 10))).toEqual(BYTES.subarray(10, 20))
    expect(server.requests).toHaveLength(2)
    expect(storage.requests).toHaveLength(3)
  },
)

test('redirects in a circle end', async () => {
  const {server, blob, descriptor} = await openBlob()
  const to = `${server.url}/v2/app/blobs/${descriptor.digest}`
  server.inject(BLOBS, {kind: 'redirect', to}, Number.POSITIVE_INFINITY)
  await expect(readAll(blob)).rejects.toMatchObject({code: 'unavailable'})
  expect(server.requests).toHaveLength(6)
})

test.each(['file:///etc/passwd', 'http://', 'ftp://127.0.0.1/'])('a redirect to %s is refused', async to => {
  const {server, blob} = await openBlob()
  server.inject(BLOBS, {kind: 'redirect', to})
  await expect(readAll(blob)).rejects.toMatchObject({code: 'unavailable'})
})

test('an abort ends a stream that stalls, with its reason', async () => {
  const {server, blob} = await openBlob()
  server.inject(BLOBS, {kind: 'stall', afterBytes: 1000})
  const abort = new AbortController()
  const reason = new Error('changed my mind')
  const reading = (async () => {
    for await (const _ of blob.stream({signal: abort.signal})) abort.abort(reason)
  })()
  await expect(reading).rejects.toBe(reason)
})

test('a signal that is aborted already makes no request', async () => {
  const {server, blob} = await openBlob()
  await expect(readAll(blob, AbortSignal.abort())).rejects.toMatchObject({name: 'AbortError'})
  expect(server.requests).toHaveLength(0)
})

test('a port where nothing listens is reported as such', async () => {
  const repository = openClient().repository('127.0.0.1:1/app', {access: 'pull'})
  const blob = await repository.openBlob({mediaType: 'x', digest: digestOf(BYTES), size: SIZE})
  await expect(readAll(blob)).rejects.toMatchObject({code: 'unavailable', message: /nothing listens there/})
})

test('many blobs are read at once', async () => {
  const server = await startRegistry()
  const repository = openClient().repository(`${server.host}/app`, {access: 'pull'})
  const descriptors = Array.from({length: 20}, (_, index) => server.addBlob('app', sampleBytes(1000 + index)))
  const all = await Promise.all(
    descriptors.map(async descriptor => readAll(await repository.openBlob(descriptor))),
  )
  expect(all.map(bytes => digestOf(bytes))).toEqual(descriptors.map(({digest}) => digest))
})
