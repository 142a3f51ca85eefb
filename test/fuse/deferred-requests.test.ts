// What the main thread answers, and when: replies go to a file instead of the kernel.

import {closeSync, openSync, readFileSync} from 'node:fs'
import {constants} from 'node:os'
import {join} from 'node:path'
import {expect, it, onTestFinished, vi} from 'vitest'
import {type DeferredOptions, DeferredRequests} from '../../src/lib/fuse/deferred-requests.ts'
import {OPCODE, ROOT_NODE} from '../../src/lib/fuse/protocol.ts'
import {createDataHandler, nodeIdOf} from '../../src/lib/fuse-data/data-handler.ts'
import {createLazyFile, type LazyFile, listeningLog, noise} from '../fuse-data/lazy-file.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {requestWith} from './messages.ts'

const {EIO, ENOENT, ESTALE} = constants.errno

async function deferredRequests(options: Partial<DeferredOptions> = {}) {
  const directory = await temporaryDirectory()
  const path = join(directory, 'replies')
  const session = openSync(path, 'w')
  onTestFinished(() => closeSync(session))
  const {log, said} = listeningLog()
  const deferred = new DeferredRequests({
    session,
    createHandler: createDataHandler,
    deadlineMs: 60_000,
    waitForEntries: false,
    log,
    ...options,
  })
  const file = createLazyFile(directory, noise(8192))
  return {deferred, file, said, put: () => putFile(deferred, file), replies: () => readReplies(path)}
}

function putFile(deferred: DeferredRequests, file: LazyFile): void {
  const {name, size, present} = file
  const fd = openSync(file.path, 'r')
  onTestFinished(() => closeSync(fd))
  deferred.put({device: {name, size, present, fd}}, file)
}

/** Each reply as `unique: errno`, or `unique: +size`. */
function readReplies(path: string): string[] {
  const bytes = readFileSync(path)
  const replies: string[] = []
  for (let at = 0; at < bytes.length; at += bytes.readUInt32LE(at)) {
    const errno = -bytes.readInt32LE(at + 4)
    const outcome = errno === 0 ? `+${bytes.readUInt32LE(at) - 16}` : `${errno}`
    replies.push(`${bytes.readBigUInt64LE(at + 8)}: ${outcome}`)
  }
  return replies
}

const read = (unique: bigint, file: LazyFile, size = 4096) =>
  requestWith(unique, OPCODE.read, nodeIdOf(file.name), [0, 64], [0, 64], [size, 32], [0, 32]).bytes

/** A fetch that ends when it is told to; `asked` resolves when it has begun. */
function holdFetch(file: LazyFile) {
  const asked = Promise.withResolvers<void>()
  const release = Promise.withResolvers<void>()
  file.onFetch = async (_offset, _length, signal) => {
    asked.resolve()
    await Promise.race([
      release.promise,
      new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    ])
  }
  return {asked: asked.promise, release: release.resolve}
}

it('a request about something unknown gets an error at once', async () => {
  const {deferred, file, replies} = await deferredRequests()
  deferred.handle(requestWith(1n, OPCODE.lookup, ROOT_NODE, 'abc\0').bytes)
  deferred.handle(requestWith(2n, OPCODE.getattr, 77).bytes)
  deferred.handle(read(3n, file))
  expect(replies()).toEqual([`1: ${ENOENT}`, `2: ${ESTALE}`, `3: ${ESTALE}`])
})

it('after a restart it waits until its entry comes, or until nothing more will come', async () => {
  const {deferred, file, put, replies} = await deferredRequests({waitForEntries: true})
  deferred.handle(requestWith(1n, OPCODE.lookup, ROOT_NODE, `${file.name}\0`).bytes)
  deferred.handle(requestWith(2n, OPCODE.lookup, ROOT_NODE, 'abc\0').bytes)
  expect(replies()).toEqual([])
  put()
  expect(replies()).toEqual(['1: +128'])
  deferred.stopWaiting()
  expect(replies()).toEqual(['1: +128', `2: ${ENOENT}`])
  deferred.handle(requestWith(3n, OPCODE.lookup, ROOT_NODE, 'abd\0').bytes)
  expect(replies()).toHaveLength(3)
})

it('it does not wait for ever', async () => {
  vi.useFakeTimers({toFake: ['setTimeout', 'clearTimeout']})
  onTestFinished(() => void vi.useRealTimers())
  const {deferred, replies, said} = await deferredRequests({waitForEntries: true})
  deferred.handle(requestWith(1n, OPCODE.getattr, 77).bytes)
  vi.advanceTimersByTime(299_999)
  expect(replies()).toEqual([])
  vi.advanceTimersByTime(1)
  expect(replies()).toEqual([`1: ${EIO}`])
  expect(said).toEqual(['warn a request waited in vain for its layer'])
})

it('that comes twice is answered once, and is not given up by the first one', async () => {
  vi.useFakeTimers({toFake: ['setTimeout', 'clearTimeout']})
  onTestFinished(() => void vi.useRealTimers())
  const {deferred, file, put, replies, said} = await deferredRequests({waitForEntries: true})
  const request = requestWith(1n, OPCODE.lookup, ROOT_NODE, `${file.name}\0`).bytes
  deferred.handle(request)
  vi.advanceTimersByTime(200_000)
  deferred.handle(request)
  vi.advanceTimersByTime(200_000)
  expect(replies()).toEqual([])
  put()
  vi.advanceTimersByTime(300_000)
  expect(replies()).toEqual(['1: +128'])
  expect(said).toEqual([])
})

it('a read that comes twice is fetched and answered once', async () => {
  const {deferred, file, put, replies} = await deferredRequests()
  put()
  const {asked, release} = holdFetch(file)
  deferred.handle(read(1n, file))
  deferred.handle(read(1n, file))
  await asked
  release()
  await deferred.close('finish')
  expect(replies()).toEqual(['1: +4096'])
  expect(file.fetched).toHaveLength(1)
})

it('a read of what has come in the meantime is not fetched', async () => {
  const {deferred, file, put, replies} = await deferredRequests()
  put()
  file.store(0, file.size)
  deferred.handle(read(1n, file, 100_000))
  expect(replies()).toEqual(['1: +8192'])
  expect(file.fetched).toEqual([])
})

it('a read gets one answer, that of the deadline, when the data come later', async () => {
  vi.useFakeTimers({toFake: ['setTimeout', 'clearTimeout']})
  onTestFinished(() => void vi.useRealTimers())
  const {deferred, file, put, replies} = await deferredRequests()
  put()
  const release = Promise.withResolvers<void>()
  // Deaf to the signal.
  file.onFetch = () => release.promise
  deferred.handle(read(1n, file))
  vi.advanceTimersByTime(60_000)
  expect(replies()).toEqual([`1: ${EIO}`])
  release.resolve()
  await deferred.close('finish')
  expect(replies()).toEqual([`1: ${EIO}`])
})

it('closing fails, finishes or abandons what is being fetched', async () => {
  for (const [how, expected] of [
    ['fail', [`1: ${EIO}`]],
    ['finish', ['1: +4096']],
    ['abandon', []],
  ] as const) {
    const {deferred, file, put, replies} = await deferredRequests()
    put()
    const {asked, release} = holdFetch(file)
    deferred.handle(read(1n, file))
    await asked
    const closed = deferred.close(how)
    release()
    await closed
    expect(replies()).toEqual(expected)
  }
})

it('a deleted device fails its readers, and those of no other', async () => {
  const {deferred, file, put, replies} = await deferredRequests()
  put()
  const other = createLazyFile(await temporaryDirectory(), noise(4096), 'e0')
  putFile(deferred, other)
  const first = holdFetch(file)
  const second = holdFetch(other)
  deferred.handle(read(1n, file))
  deferred.handle(read(2n, other))
  await Promise.all([first.asked, second.asked])
  await deferred.delete(file.name)
  expect(replies()).toEqual([`1: ${EIO}`])
  second.release()
  await deferred.close('finish')
  expect(replies()).toEqual([`1: ${EIO}`, '2: +4096'])
})

it('a device whose read throws at once, or is no request at all, does no harm', async () => {
  const {deferred, file, put, replies, said} = await deferredRequests()
  file.read = () => {
    throw new Error('at once')
  }
  put()
  deferred.handle(read(1n, file))
  await deferred.close('finish')
  expect(replies()).toEqual([`1: ${EIO}`])
  expect(said).toEqual(['warn cannot read lazily at once'])
  deferred.handle(new Uint8Array(10))
  deferred.handle(requestWith(3n, OPCODE.interrupt, 0, [1, 64]).bytes)
  expect(replies()).toHaveLength(1)
})
