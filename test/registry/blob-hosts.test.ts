import {createServer, type ServerResponse} from 'node:http'
import type {AddressInfo} from 'node:net'
import {describe, expect, onTestFinished, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {Fault, FaultyRegistry} from '../support/faulty-registry.ts'
import {openClient, readAll, sampleBytes, startRegistry} from './registry-scene.ts'

const BYTES = sampleBytes(300_000)
const BLOBS = {method: 'GET', url: /\/blobs\/sha256/}
const FOR_EVER = Number.POSITIVE_INFINITY

/** A registry that sends every reader to a storage. */
async function startRedirecting() {
  const [server, storage] = [await startRegistry(), await startRegistry()]
  const descriptor = server.addBlob('app', BYTES)
  storage.addBlob('app', BYTES)
  const to = `${storage.url}/v2/app/blobs/${descriptor.digest}?signature=s`
  server.inject(BLOBS, {kind: 'redirect', to}, FOR_EVER)
  const repository = openClient({timeouts: {bodyIdleMs: 100}}).repository(`${server.host}/app`, {
    access: 'pull',
  })
  return {server, storage, descriptor, repository, blob: await repository.openBlob(descriptor)}
}

const partOf = (offset: number, length: number) => BYTES.subarray(offset, offset + length)

describe('a remembered redirect', () => {
  test('is shared by all who read the blob', async () => {
    const {server, storage, descriptor, repository} = await startRedirecting()
    await repository.readBlobTail(descriptor.digest, 100)
    await (await repository.openBlob(descriptor)).read(0, 10)
    await readAll(await repository.openBlob(descriptor))
    expect([server.requests.length, storage.requests.length]).toEqual([1, 3])
  })

  test('to another place of the registry itself is followed once, too', async () => {
    const server = await startRegistry()
    const descriptor = server.addBlob('app', BYTES)
    server.addBlob('storage', BYTES)
    server.inject(
      {url: /v2.app.blobs/},
      {kind: 'redirect', to: `/v2/storage/blobs/${descriptor.digest}`},
      FOR_EVER,
    )
    const blob = await openClient().repository(`${server.host}/app`, {access: 'pull'}).openBlob(descriptor)
    await blob.read(0, 10)
    await blob.read(10, 10)
    expect(server.requests.map(({url}) => url.split('/')[2])).toEqual(['app', 'storage', 'storage'])
  })

  const recovers = (from: string, fault: Fault) =>
    test(`is asked for again when it ${from}`, async () => {
      const {server, storage, blob} = await startRedirecting()
      await blob.read(0, 10)
      storage.inject(BLOBS, fault, fault.kind === 'status' ? 2 : 1)
      expect(Buffer.from(await blob.read(1000, 50))).toEqual(partOf(1000, 50))
      expect(server.requests).toHaveLength(2)
    })
  recovers('goes on failing', {kind: 'status', status: 503})
  recovers('stalls', {kind: 'stall', afterBytes: 20})
  recovers('breaks off', {kind: 'drop', afterBytes: 20})
  recovers('ends too early', {kind: 'truncate', afterBytes: 20})
  recovers('answers with another range', {kind: 'headers', headers: {'content-range': 'bytes 0-49/300000'}})
  recovers('answers with something compressed', {kind: 'headers', headers: {'content-encoding': 'gzip'}})

  test('to a host that is gone is asked for again', async () => {
    const [server, gone, storage] = [await startRegistry(), await startRegistry(), await startRegistry()]
    const descriptor = server.addBlob('app', BYTES)
    for (const {url} of [gone, storage]) {
      server.inject(BLOBS, {kind: 'redirect', to: `${url}/v2/app/blobs/${descriptor.digest}`})
    }
    for (const host of [gone, storage]) host.addBlob('app', BYTES)
    const blob = await openClient().repository(`${server.host}/app`, {access: 'pull'}).openBlob(descriptor)
    await blob.read(0, 10)
    await gone[Symbol.asyncDispose]()
    expect(Buffer.from(await blob.read(10, 10))).toEqual(partOf(10, 10))
    expect([gone.requests.length, storage.requests.length]).toEqual([1, 1])
  })
})

describe('with mirrors', () => {
  async function setUp(mirrors: readonly FaultyRegistry[] | readonly {readonly url: string}[]) {
    const origin = await startRegistry()
    const client = openClient({
      mirrorsOf: () =>
        mirrors.map(({url}) => ({address: url, plainHttp: true, headers: {}, timeouts: undefined})),
    })
    return {origin, client, repository: client.repository(`${origin.host}/app`, {access: 'pull'})}
  }

  test('one that does not have the blob is asked once', async () => {
    const mirror = await startRegistry()
    const {origin, repository} = await setUp([mirror])
    const blob = await repository.openBlob(origin.addBlob('app', BYTES))
    for (const offset of [0, 10, 20]) {
      expect(Buffer.from(await blob.read(offset, 10))).toEqual(partOf(offset, 10))
    }
    expect([mirror.requests.length, origin.requests.length]).toEqual([1, 3])
  })

  test('one that is down is asked once for all blobs', async () => {
    const {origin, repository} = await setUp([{url: 'http://127.0.0.1:1'}])
    const traffic = []
    for (const size of [100, 200, 300]) {
      const blob = await repository.openBlob(origin.addBlob('app', sampleBytes(size)))
      expect(await readAll(blob)).toEqual(sampleBytes(size))
      traffic.push(blob.traffic)
    }
    // Two attempts on the mirror, then the origin; from then on the origin.
    expect(traffic).toEqual([
      {requests: 3, bytes: 100},
      {requests: 1, bytes: 200},
      {requests: 1, bytes: 300},
    ])
  })

  test('one that breaks off is left for the next', async () => {
    const [first, second] = [await startRegistry(), await startRegistry()]
    const {origin, repository} = await setUp([first, second])
    for (const server of [first, second, origin]) server.addBlob('app', BYTES)
    first.inject(BLOBS, {kind: 'drop', afterBytes: 100}, FOR_EVER)
    const blob = await repository.openBlob({mediaType: 'x', digest: digestOf(BYTES), size: BYTES.length})
    expect((await readAll(blob)).equals(BYTES)).toBe(true)
    expect(second.requests[0]?.headers.range).toBe(`bytes=100-${BYTES.length - 1}`)
    expect(origin.requests).toHaveLength(0)
  })

  test('one that is down is asked again when all others fail', async () => {
    const mirror = await startRegistry()
    const {origin, repository} = await setUp([mirror])
    const descriptor = origin.addBlob('app', BYTES)
    mirror.inject(BLOBS, {kind: 'status', status: 503}, 2)
    mirror.addBlob('app', BYTES)
    await (await repository.openBlob(descriptor)).read(0, 10)
    origin.inject(BLOBS, {kind: 'status', status: 404}, FOR_EVER)
    const blob = await repository.openBlob(descriptor)
    expect(Buffer.from(await blob.read(10, 10))).toEqual(partOf(10, 10))
  })
})

describe('the end of a blob', () => {
  const check = (what: string, fault: Fault | undefined, requests: number) =>
    test(`is read ${what}`, async () => {
      const server = await startRegistry()
      const descriptor = server.addBlob('app', BYTES)
      if (fault) server.inject({url: /blobs/}, fault)
      const repository = openClient().repository(`${server.host}/app`, {access: 'pull'})
      const {size, bytes} = await repository.readBlobTail(descriptor.digest, 1000)
      expect(size).toBe(BYTES.length)
      if (fault?.kind === 'ignore-range') expect(bytes).toHaveLength(0)
      else expect(Buffer.from(bytes)).toEqual(BYTES.subarray(-1000))
      expect(server.requests).toHaveLength(requests)
    })
  check('with one request', undefined, 1)
  check('from a host that refuses suffix ranges', {kind: 'status', status: 400}, 3)
  check('from a host that calls suffix ranges unsatisfiable', {kind: 'status', status: 416}, 3)
  check('from a host that ignores ranges, of which it takes the size alone', {kind: 'ignore-range'}, 1)
  check('again from where it breaks off', {kind: 'drop', afterBytes: 500}, 2)

  test('is the whole of a small blob', async () => {
    const server = await startRegistry()
    const descriptor = server.addBlob('app', sampleBytes(10))
    server.inject(BLOBS, {kind: 'ignore-range'})
    const repository = openClient().repository(`${server.host}/app`, {access: 'pull'})
    expect(await repository.readBlobTail(descriptor.digest, 1000)).toEqual({size: 10, bytes: sampleBytes(10)})
  })

  test('of a blob that is not there is not found', async () => {
    const server = await startRegistry()
    const repository = openClient().repository(`${server.host}/app`, {access: 'pull'})
    await expect(repository.readBlobTail(digestOf(BYTES), 10)).rejects.toMatchObject({code: 'not-found'})
  })
})

/** A host of one blob that answers every range with what `answer` does. */
async function openBlobFrom(answer: (first: number, last: number, response: ServerResponse) => void) {
  const server = createServer((request, response) => {
    const [, first, last] = /(\d+)-(\d+)/.exec(request.headers.range ?? '')!
    answer(Number(first), Number(last), response)
  })
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  const {port} = server.address() as AddressInfo
  const repository = openClient().repository(`127.0.0.1:${port}/app`, {access: 'pull'})
  const blob = await repository.openBlob({mediaType: 'x', digest: digestOf(BYTES), size: BYTES.length})
  return {server, blob}
}

const rangeHeader = (first: number, last: number) => ({
  'content-range': `bytes ${first}-${last}/${BYTES.length}`,
})

test('a range that does not end is cut where it should', async () => {
  const {blob} = await openBlobFrom((first, last, response) => {
    response.writeHead(206, rangeHeader(first, last))
    const more = () => void (response.destroyed || response.write('x', more))
    response.write(BYTES.subarray(first, last + 1), more)
  })
  expect(Buffer.from(await blob.read(1000, 50))).toEqual(partOf(1000, 50))
})

test('a host may give a range in smaller ones, or more than was asked for', async () => {
  const {blob} = await openBlobFrom((first, last, response) => {
    const end = first === 0 ? 99_999 : Math.min(last + 10, BYTES.length - 1)
    response.writeHead(206, rangeHeader(first, end)).end(BYTES.subarray(first, end + 1))
  })
  expect(Buffer.from(await blob.read(0, 200_000)).equals(partOf(0, 200_000))).toBe(true)
})

test('a thousand reads at once share 32 connections', async () => {
  let connections = 0
  const {server, blob} = await openBlobFrom((first, last, response) => {
    response.writeHead(206, rangeHeader(first, last)).end(BYTES.subarray(first, last + 1))
  })
  server.on('connection', () => connections++)
  const offsets = Array.from({length: 1000}, (_, index) => index * 13)
  const reads = await Promise.all(offsets.map(offset => blob.read(offset, 10)))
  expect(reads.every((bytes, index) => partOf(index * 13, 10).equals(bytes))).toBe(true)
  expect(connections).toBe(32)
})
