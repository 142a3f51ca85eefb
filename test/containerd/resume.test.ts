// Going on where a process that was killed stopped writing a blob.

import {randomBytes} from 'node:crypto'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openContainerdStore} from '../../src/lib/containerd/store.ts'
import {copyBlob} from '../../src/lib/copy/copy-image.ts'
import {codeOf} from '../../src/lib/errors/coded-error.ts'
import {type FakeContainerd, startFakeContainerd} from '../support/fake-containerd.ts'
import {memoryContent} from '../support/memory-content.ts'
import {readBlob, writeBlob} from '../support/sample-image.ts'

const BYTES = randomBytes(3 * 1024 * 1024 + 5)
const BLOB = {mediaType: 'application/octet-stream', digest: digestOf(BYTES), size: BYTES.length}
/** An owner that cannot be alive: of another boot. */
const DEAD = '00000000.1.2.3'

let fake: FakeContainerd
let count = 0
beforeAll(async () => {
  fake = await startFakeContainerd()
})
afterAll(() => fake[Symbol.asyncDispose]())

/** A store where somebody who is dead has left `bytes` of the blob. */
async function openAfter(bytes: Uint8Array, owner = DEAD) {
  const namespace = `resume-${++count}`
  const space = fake.namespace(namespace)
  space.leases.set('theirs', {labels: {'ctr-remote.io/owner': DEAD}, resources: new Set()})
  const name = `ctr-remote-${owner}-0123456789abcdef-${BLOB.digest}`
  space.ingests.set(name, {bytes: Buffer.from(bytes), lease: 'theirs'})
  const store = await openContainerdStore({address: fake.address, namespace})
  return {store, space, name}
}

async function source() {
  const content = memoryContent()
  await writeBlob(content, BYTES)
  return content
}

it('adds what is missing', async () => {
  const {store, space} = await openAfter(BYTES.subarray(0, 2_000_000))
  await using _store = store
  await using _ = await store.lease()
  expect([...space.leases.keys()]).not.toContain('theirs')
  {
    await using writer = await store.content.write({...BLOB, resume: true})
    expect(writer.offset).toBe(2_000_000)
    await writer.write(BYTES.subarray(2_000_000))
    await writer.commit(BLOB)
  }
  expect(Buffer.compare(await readBlob(store.content, BLOB), BYTES)).toBe(0)
  expect(space.ingests.size).toBe(0)
})

it.each([
  ['part of it', BYTES.subarray(0, 2_000_000)],
  ['all of it', BYTES],
])('copies a blob of which there is %s', async (_, bytes) => {
  const {store, space} = await openAfter(bytes)
  await using _store = store
  await using _lease = await store.lease()
  const reported: number[] = []
  await copyBlob(await source(), store.content, BLOB, {onBytes: done => reported.push(done)})
  expect(Buffer.compare(await readBlob(store.content, BLOB), BYTES)).toBe(0)
  expect(reported.every(done => done > bytes.length)).toBe(true)
  expect(space.ingests.size).toBe(0)
})

it('notices that what was there is something else, and starts anew the next time', async () => {
  const {store, space} = await openAfter(Buffer.alloc(2_000_000))
  await using _store = store
  await using _ = await store.lease()
  const from = await source()
  expect(codeOf(await copyBlob(from, store.content, BLOB).catch(error => error))).toBe('corrupt')
  expect(space.ingests.size).toBe(0)
  await copyBlob(from, store.content, BLOB)
  expect(Buffer.compare(await readBlob(store.content, BLOB), BYTES)).toBe(0)
})

it('is for callers who ask for it', async () => {
  const {store} = await openAfter(BYTES.subarray(0, 2_000_000))
  await using _store = store
  await using _ = await store.lease()
  await writeBlob(store.content, BYTES)
  expect(Buffer.compare(await readBlob(store.content, BLOB), BYTES)).toBe(0)
})

it('starts anew when somebody else has taken it up, and leaves it to them', async () => {
  const {store, space, name} = await openAfter(BYTES.subarray(0, 2_000_000))
  await using _store = store
  await using _ = await store.lease()
  let attempts = 0
  fake.onCall = method => {
    if (method === 'Content.Write' && ++attempts <= 6) fake.failNext(method, 14, 'ref locked')
  }
  await copyBlob(await source(), store.content, BLOB)
  fake.onCall = undefined
  expect([...space.ingests.keys()]).toEqual([name])
  expect(Buffer.compare(await readBlob(store.content, BLOB), BYTES)).toBe(0)
})

it('waits until containerd has noticed that a writer is dead', async () => {
  const {store} = await openAfter(BYTES.subarray(0, 2_000_000))
  await using _store = store
  await using _ = await store.lease()
  fake.failNext('Content.Write', 14, 'ref locked')
  await using writer = await store.content.write({...BLOB, resume: true})
  expect(writer.offset).toBe(2_000_000)
})

it('leaves alone what is small, and what others write', async () => {
  const small = await openAfter(BYTES.subarray(0, 1000))
  const nameless = await openAfter(BYTES.subarray(0, 2_000_000), 'no-owner')
  for (const {store} of [small, nameless]) {
    await using _store = store
    await using _ = await store.lease()
    await using writer = await store.content.write({...BLOB, resume: true})
    expect(writer.offset ?? 0).toBe(0)
  }
})

it('collects what nobody has gone on with', async () => {
  const {store, space} = await openAfter(BYTES.subarray(0, 2_000_000))
  await using _store = store
  const lease = await store.lease()
  expect(space.ingests.size).toBe(1)
  await lease[Symbol.asyncDispose]()
  await store.collectGarbage()
  expect(space.ingests.size).toBe(0)
})
