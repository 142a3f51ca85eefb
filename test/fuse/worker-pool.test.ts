// Worker threads without a kernel. Reading from a directory fails in every one of them, reading from a pipe waits.

import {execFileSync} from 'node:child_process'
import {closeSync, openSync, writeSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {expect, it} from 'vitest'
import {OPCODE, parseRequest} from '../../src/lib/fuse/protocol.ts'
import {startWorkers} from '../../src/lib/fuse/worker-pool.ts'
import {nodeIdOf} from '../../src/lib/fuse-data/data-handler.ts'
import {PATIENTLY} from '../support/patience.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {requestWith} from './messages.ts'

it('workers that die are replaced, but not for ever', async () => {
  const session = openSync(tmpdir(), 'r')
  const problems: string[] = []
  let replaced = 0
  const gone = Promise.withResolvers<void>()
  const pool = await startWorkers({
    session,
    kind: 'data',
    workers: 2,
    settled: true,
    onRequest: () => {},
    onProblem: problem => problems.push(problem),
    onReplaced: () => replaced++,
    onGone: gone.resolve,
  })
  await gone.promise
  expect(problems).toHaveLength(10)
  await expect.poll(() => replaced, PATIENTLY).toBe(10)
  for (const problem of problems) expect(problem).toMatch(/^a worker thread died: EISDIR/)
  await pool.delete('none')
  await pool.stop()
  closeSync(session)
})

it('a device that is taken away, added and taken away again at once is gone from every worker', async () => {
  // A pipe: workers block in their reads as they do without requests, and get what the test writes.
  const pipe = join(await temporaryDirectory(), 'pipe')
  execFileSync('mkfifo', [pipe])
  const session = openSync(pipe, 'r+')
  const forwarded: bigint[] = []
  const pool = await startWorkers({
    session,
    kind: 'data',
    workers: 2,
    // So that requests about what a worker does not have come to us.
    settled: false,
    onRequest: bytes => forwarded.push(parseRequest(Buffer.from(bytes))!.unique),
    onProblem: () => {},
    onReplaced: () => {},
    onGone: () => {},
  })
  const present = new SharedArrayBuffer(8)
  const entry = (name: string) => ({device: {name, size: 4096, fd: -1, present}})
  pool.put(entry('b'))
  const deleted = [1, 2, 3].map(() => {
    pool.put(entry('a'))
    return pool.delete('a')
  })
  await Promise.all(deleted)
  for (let unique = 1n; unique <= 20n; unique++) {
    writeSync(session, requestWith(unique, OPCODE.getattr, nodeIdOf('a')).bytes)
    await expect.poll(() => forwarded, {...PATIENTLY, interval: 1}).toContain(unique)
  }
  expect(forwarded).toHaveLength(20)
  await pool.stop()
  closeSync(session)
})
