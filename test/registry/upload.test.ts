import {mkdtemp, readdir, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {expect, onTestFinished, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {verifyStream} from '../../src/lib/blob/verified-stream.ts'
import type {ContentStore, OpenBlob, WriteHint} from '../../src/lib/oci/content-store.ts'
import type {RegistryOptions} from '../../src/lib/registry/registry.ts'
import type {FaultyRegistry, FaultyRegistryOptions} from '../support/faulty-registry.ts'
import {cut, memoryBlob} from '../support/memory-content.ts'
import {openClient, sampleBytes, startRegistry} from './registry-scene.ts'

const BYTES = sampleBytes(250_000)
const BLOB = {mediaType: 'application/octet-stream', digest: digestOf(BYTES), size: BYTES.length}
const UNKNOWN: WriteHint = {mediaType: 'application/octet-stream'}
const UPLOADS = {url: /\/blobs\/uploads\//}
/** Small enough that the blob overflows memory, and is sent in three pieces when in chunks. */
const CHUNK_SIZE = 100_000

interface Setup extends RegistryOptions {
  readonly server?: FaultyRegistryOptions
  readonly mountFrom?: readonly string[]
}

async function openTarget({server: serverOptions, mountFrom, ...options}: Setup = {}) {
  const server = await startRegistry(serverOptions)
  const client = openClient({chunkSize: CHUNK_SIZE, ...options})
  const from = mountFrom?.map(name => `${server.host}/${name}`) ?? []
  const {content} = client.repository(`${server.host}/app`, {access: 'push', mountFrom: from})
  return {server, content}
}

async function write(content: ContentStore, hint: WriteHint, bytes = BYTES): Promise<void> {
  await using writer = await content.write(hint)
  for (let offset = 0; offset < bytes.length; offset += 33_000)
    await writer.write(bytes.subarray(offset, offset + 33_000))
  await writer.commit({digest: BLOB.digest, size: BLOB.size})
}

const summary = (server: FaultyRegistry) => server.requests.map(({method}) => method).join(' ')
const ranges = (server: FaultyRegistry) =>
  server.requests.flatMap(({headers}) => headers['content-range'] ?? [])

function expectStored(server: FaultyRegistry): void {
  expect(server.blob('app', BLOB.digest)?.length).toBe(BLOB.size)
}

test('a small blob is sent whole', async () => {
  const {server, content} = await openTarget({chunkSize: 1_000_000})
  await write(content, BLOB)
  expectStored(server)
  expect(summary(server)).toBe('HEAD POST PUT')
})

test('a large blob of unknown digest waits on disk, and is sent whole', async () => {
  const {server, content} = await openTarget()
  await write(content, UNKNOWN)
  expectStored(server)
  expect(summary(server)).toBe('HEAD POST PUT')
})

test('a large blob of known digest is streamed in chunks without touching the disk', async () => {
  const {server, content} = await openTarget({spoolDirectory: '/nonexistent'})
  await write(content, BLOB)
  expectStored(server)
  expect(summary(server)).toBe('HEAD POST PATCH PATCH PATCH PUT')
  expect(ranges(server)).toEqual(['0-99999', '100000-199999', '200000-249999'])
})

test('a blob from the configured size on is sent in chunks from disk', async () => {
  const {server, content} = await openTarget({chunkedFrom: 200_000})
  await write(content, UNKNOWN)
  expectStored(server)
  expect(summary(server)).toBe('HEAD POST PATCH PATCH PATCH PUT')
})

test('an empty blob is sent', async () => {
  const {server, content} = await openTarget()
  await using writer = await content.write(UNKNOWN)
  await writer.commit({digest: digestOf(''), size: 0})
  expect(server.blob('app', digestOf(''))).toHaveLength(0)
})

test.each([
  ['known', BLOB],
  ['unknown', UNKNOWN],
] as const)('a blob of %s digest that is there already is not sent again', async (_, hint) => {
  const {server, content} = await openTarget()
  server.addBlob('app', BYTES)
  await write(content, hint)
  expect(summary(server)).toBe('HEAD')
})

test('what info has seen is not asked for again', async () => {
  const {server, content} = await openTarget({chunkSize: 1_000_000})
  expect(await content.info(BLOB)).toBeUndefined()
  await write(content, BLOB)
  expect(await content.info(BLOB)).toMatchObject({digest: BLOB.digest, size: BLOB.size})
  expect(summary(server)).toBe('HEAD POST PUT')
})

test('a blob whose size contradicts its descriptor is reported', async () => {
  const {server, content} = await openTarget()
  server.addBlob('app', BYTES)
  await expect(content.info({...BLOB, size: 5})).rejects.toMatchObject({code: 'corrupt'})
})

test('a blob of another repository is mounted, so that nobody reads it', async () => {
  const {server, content} = await openTarget({mountFrom: ['other']})
  server.addBlob('other', BYTES)
  expect(await content.info(BLOB)).toMatchObject({digest: BLOB.digest})
  expectStored(server)
  expect(summary(server)).toBe('HEAD POST')
  expect(server.requests[1]?.url).toContain('from=other')
})

test('a converted blob is mounted too, once its digest is known', async () => {
  const {server, content} = await openTarget({mountFrom: ['other']})
  server.addBlob('other', BYTES)
  await write(content, UNKNOWN)
  expectStored(server)
  expect(summary(server)).toBe('HEAD POST')
})

test('a blob that cannot be mounted is sent', async () => {
  const {server, content} = await openTarget({mountFrom: ['other'], chunkSize: 1_000_000})
  await write(content, UNKNOWN)
  expectStored(server)
  expect(summary(server)).toBe('HEAD POST DELETE POST PUT')
})

test('a registry that refuses to mount gets the bytes', async () => {
  const {server, content} = await openTarget({mountFrom: ['other'], chunkSize: 1_000_000})
  server.inject({url: /mount=/}, {kind: 'status', status: 403})
  await write(content, UNKNOWN)
  expectStored(server)
})

test.each([
  ['answers 500', {kind: 'status', status: 500}],
  ['answers 429', {kind: 'status', status: 429, headers: {'retry-after': '0'}}],
  ['breaks off', {kind: 'drop', afterBytes: 100_000}],
] as const)('a whole upload is repeated when the registry %s', async (_, fault) => {
  const {server, content} = await openTarget()
  server.inject({method: 'PUT'}, fault, 2)
  await write(content, UNKNOWN)
  expectStored(server)
})

test('an upload that fits in one chunk is given up after the configured attempts', async () => {
  const {server, content} = await openTarget({chunkSize: 1_000_000})
  server.inject({method: 'PUT'}, {kind: 'status', status: 503}, Number.POSITIVE_INFINITY)
  await expect(write(content, UNKNOWN)).rejects.toMatchObject({code: 'unavailable'})
  expect(server.requests.filter(({method}) => method === 'PUT')).toHaveLength(4)
})

test('a large upload is given up after one request and the configured attempts in chunks', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PUT'}, {kind: 'status', status: 503}, Number.POSITIVE_INFINITY)
  await expect(write(content, UNKNOWN)).rejects.toMatchObject({code: 'unavailable'})
  expect(server.requests.filter(({method}) => method === 'PUT')).toHaveLength(1 + 4)
})

test.each([
  ['of unknown digest that waited on disk', UNKNOWN],
  ['of known digest that fits in memory', BLOB],
] as const)('a blob %s is sent in chunks where one request is too large for a proxy', async (_, hint) => {
  const {server, content} = await openTarget(hint === BLOB ? {chunkSize: 1_000_000} : {})
  server.inject({method: 'PUT'}, {kind: 'status', status: 413})
  await write(content, hint)
  expectStored(server)
})

test('chunks that are too large for a proxy are halved, from then on', async () => {
  const {server, content} = await openTarget({chunkSize: 200_000})
  server.inject({method: 'PATCH'}, {kind: 'status', status: 413})
  await write(content, BLOB)
  expectStored(server)
  expect(ranges(server)).toEqual(['0-199999', '0-99999', '100000-199999', '200000-249999'])
})

test('a proxy that lets nothing pass is reported, and the upload is given back', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PUT'}, {kind: 'status', status: 413}, Number.POSITIVE_INFINITY)
  server.inject({method: 'PATCH'}, {kind: 'status', status: 413}, Number.POSITIVE_INFINITY)
  await expect(write(content, UNKNOWN)).rejects.toMatchObject({code: 'failed-precondition'})
  expect(server.requests.at(-1)?.method).toBe('DELETE')
})

test('a blob that is too large for one request, where chunks are refused, is reported as too large', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PUT'}, {kind: 'status', status: 413}, Number.POSITIVE_INFINITY)
  server.inject({method: 'PATCH'}, {kind: 'status', status: 405}, Number.POSITIVE_INFINITY)
  await expect(write(content, UNKNOWN)).rejects.toMatchObject({
    code: 'failed-precondition',
    message: expect.stringContaining('larger than the registry accepts'),
  })
})

for (const status of [405, 501]) {
  test(`a registry that refuses HEAD (HTTP ${status}) is asked with GET`, async () => {
    const {server, content} = await openTarget({chunkSize: 1_000_000})
    server.inject({method: 'HEAD'}, {kind: 'status', status}, Number.POSITIVE_INFINITY)
    expect(await content.info(BLOB)).toBeUndefined()
    await write(content, BLOB)
    expectStored(server)
    expect(summary(server)).toBe('HEAD GET POST PUT')
  })

  test(`what is there is found without HEAD (HTTP ${status}), in one byte`, async () => {
    const {server, content} = await openTarget()
    server.addBlob('app', BYTES)
    server.inject({method: 'HEAD'}, {kind: 'status', status}, Number.POSITIVE_INFINITY)
    expect(await content.info(BLOB)).toMatchObject({digest: BLOB.digest})
    expect(server.requests[1]).toMatchObject({method: 'GET', headers: {range: 'bytes=0-0'}})
  })
}

test('a length that HEAD tells wrongly is asked for again', async () => {
  const {server, content} = await openTarget()
  server.addBlob('app', BYTES)
  server.inject({method: 'HEAD'}, {kind: 'headers', headers: {'content-length': '0'}})
  expect(await content.info(BLOB)).toMatchObject({digest: BLOB.digest})
  expect(summary(server)).toBe('HEAD GET')
})

for (const [status, credential] of [
  [401, undefined],
  [403, undefined],
  [400, undefined],
  [403, {kind: 'password', username: 'ci', password: 'secret'}],
] as const) {
  const who = credential ? 'an account' : 'anybody'
  test(`a token server that refuses ${who} the other repository (HTTP ${status}) is asked without it`, async () => {
    const auth = {kind: 'bearer', ...(credential && {username: 'ci', password: 'secret'})} as const
    const {server, content} = await openTarget({
      server: {auth},
      mountFrom: ['other'],
      chunkSize: 1_000_000,
      credential,
    })
    server.addBlob('other', BYTES)
    server.inject({url: /token.*other/}, {kind: 'status', status}, Number.POSITIVE_INFINITY)
    await write(content, UNKNOWN)
    expectStored(server)
    await content.info({...BLOB, digest: digestOf('another')})
    expect(server.requests.filter(({url}) => /token.*other/.test(url))).toHaveLength(1)
  })
}

test('a chunk that breaks off goes on after the bytes that the registry has', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PATCH', url: /uploads/}, {kind: 'lose-answer'})
  server.inject({method: 'PATCH', url: /uploads/}, {kind: 'drop', afterBytes: 40_000})
  await write(content, BLOB)
  expectStored(server)
  expect(ranges(server)).toEqual(['0-99999', '100000-199999', '140000-199999', '200000-249999'])
})

test('an upload whose first chunk got lost starts anew', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PATCH', url: /uploads/}, {kind: 'status', status: 502})
  await write(content, BLOB)
  expectStored(server)
})

test('an upload that the registry forgets half-way is an error', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PATCH', url: /uploads/}, {kind: 'headers', headers: {}})
  server.inject({method: 'PATCH', url: /uploads/}, {kind: 'lose-answer'})
  server.inject({method: 'GET', url: /uploads/}, {kind: 'status', status: 404})
  await expect(write(content, BLOB)).rejects.toMatchObject({code: 'not-found'})
})

test.each([404, 405, 501])('a registry that refuses chunks (HTTP %i) gets the blob whole', async status => {
  const {server, content} = await openTarget()
  server.inject({method: 'PATCH'}, {kind: 'status', status}, Number.POSITIVE_INFINITY)
  await write(content, BLOB)
  expectStored(server)
  expect(server.requests.at(-1)?.method).toBe('PUT')
})

test('the end of a chunked upload whose answer got lost is found done', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PUT'}, {kind: 'lose-answer'})
  await write(content, BLOB)
  expectStored(server)
  expect(server.requests.at(-1)?.method).toBe('HEAD')
})

test('a chunk that fails behind the back of the writer is reported by it, and the upload is given back', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PATCH'}, {kind: 'headers', headers: {}})
  server.inject({method: 'PATCH'}, {kind: 'status', status: 403})
  await expect(write(content, BLOB)).rejects.toMatchObject({code: 'permission-denied'})
  expect(server.requests.at(-1)?.method).toBe('DELETE')
})

test('a token that expires between chunks is renewed', async () => {
  const {server, content} = await openTarget({server: {auth: {kind: 'bearer'}}})
  await using writer = await content.write(BLOB)
  await writer.write(BYTES.subarray(0, 150_000))
  server.revokeTokens()
  await writer.write(BYTES.subarray(150_000))
  await writer.commit(BLOB)
  expectStored(server)
})

test('a blob with too many bytes is refused while it is written', async () => {
  const {server, content} = await openTarget()
  await using writer = await content.write({...BLOB, size: 10})
  await expect(writer.write(BYTES)).rejects.toMatchObject({code: 'corrupt'})
  expect(server.blob('app', BLOB.digest)).toBeUndefined()
})

test.each([
  ['other bytes', Buffer.alloc(BLOB.size)],
  ['too few bytes', BYTES.subarray(1)],
])('a commit of %s is refused, and the upload is given back', async (_, bytes) => {
  const {server, content} = await openTarget()
  await expect(write(content, BLOB, bytes)).rejects.toMatchObject({code: 'corrupt'})
  expect(server.blob('app', BLOB.digest)).toBeUndefined()
  expect(server.requests.at(-1)?.method).toBe('DELETE')
})

test('a writer that is dropped leaves nothing behind', async () => {
  const spoolDirectory = await mkdtemp(join(tmpdir(), 'ctr-remote-spool-'))
  onTestFinished(() => rm(spoolDirectory, {recursive: true}))
  const {server, content} = await openTarget({spoolDirectory})
  {
    await using spooled = await content.write(UNKNOWN)
    await spooled.write(BYTES)
    await using streamed = await content.write(BLOB)
    await streamed.write(BYTES)
  }
  expect(summary(server)).toBe('HEAD POST PATCH PATCH DELETE')
  expect(await readdir(spoolDirectory)).toEqual([])
})

test('bytes may be reused as soon as they are written', async () => {
  const {server, content} = await openTarget()
  const scratch = Buffer.alloc(50_000)
  await using writer = await content.write(BLOB)
  for (let offset = 0; offset < BYTES.length; offset += scratch.length) {
    BYTES.copy(scratch, 0, offset, offset + scratch.length)
    await writer.write(scratch)
    scratch.fill(0)
  }
  await writer.commit(BLOB)
  expectStored(server)
})

test('an account that may not push is told so', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'POST', ...UPLOADS}, {kind: 'status', status: 403})
  await expect(write(content, BLOB)).rejects.toMatchObject({code: 'permission-denied'})
})

test('an aborted upload ends with the reason', async () => {
  const {server, content} = await openTarget()
  const abort = new AbortController()
  server.inject({method: 'PUT'}, {kind: 'status', status: 503}, Number.POSITIVE_INFINITY)
  await using writer = await content.write(UNKNOWN, {signal: abort.signal})
  await writer.write(BYTES)
  const reason = new Error('stop')
  abort.abort(reason)
  await expect(writer.commit(BLOB)).rejects.toBe(reason)
})

/** What a copy does with a blob that can be read again. */
async function writeFrom(content: ContentStore, bytes: Uint8Array = BYTES): Promise<void> {
  const blob: OpenBlob = {
    ...memoryBlob(bytes),
    stream: () => verifyStream(cut(bytes, 99_999), BLOB, 'a test'),
    async [Symbol.asyncDispose]() {},
  }
  await content.writeFrom!(blob, BLOB)
}

test('a blob that can be read again is sent in one request, without touching the disk', async () => {
  const {server, content} = await openTarget({spoolDirectory: '/nonexistent'})
  await writeFrom(content)
  expectStored(server)
  expect(summary(server)).toBe('POST PUT')
})

test('a blob from the configured size on is sent in chunks even if it can be read again', async () => {
  const {server, content} = await openTarget({chunkedFrom: 200_000})
  await writeFrom(content)
  expectStored(server)
  expect(summary(server)).toBe('POST PATCH PATCH PATCH PUT')
})

test.each([
  ['breaks off', {kind: 'drop', afterBytes: 100_000}, 'HEAD '],
  ['is too large for a proxy', {kind: 'status', status: 413}, ''],
  ['meets a registry in trouble', {kind: 'status', status: 503}, 'HEAD '],
] as const)('a request that %s is given back, and followed by chunks', async (_, fault, asked) => {
  const {server, content} = await openTarget()
  server.inject({method: 'PUT'}, fault)
  await writeFrom(content)
  expectStored(server)
  expect(summary(server)).toBe(`POST PUT DELETE ${asked}POST PATCH PATCH PATCH PUT`)
})

test('a request whose answer got lost is found done', async () => {
  const {server, content} = await openTarget()
  server.inject({method: 'PUT'}, {kind: 'lose-answer'})
  await writeFrom(content)
  expectStored(server)
  expect(summary(server)).toBe('POST PUT DELETE HEAD')
})

test("a source that turns out damaged is not the registry's fault, and nothing is stored", async () => {
  const {server, content} = await openTarget()
  await expect(writeFrom(content, Buffer.from(BYTES).fill(0, 0, 9))).rejects.toMatchObject({
    code: 'corrupt',
    message: expect.stringMatching(/^Cannot use sha256:.* in a test: its digest is/),
  })
  expect(server.blob('app', BLOB.digest)).toBeUndefined()
  expect(summary(server)).toContain('DELETE')
})
