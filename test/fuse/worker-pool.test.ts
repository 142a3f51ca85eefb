// Worker threads without a kernel. Reading from a directory fails in every one of them, reading from a pipe waits.

import {execFileSync} from 'node:child_process'
import {closeSync, openSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {expect, it} from 'vitest'
import {startWorkers} from '../../src/lib/fuse/worker-pool.ts'
import {temporaryDirectory} from '../support/temporary.ts'

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
  await expect.poll(() => replaced).toBe(10)
  for (const problem of problems) expect(problem).toMatch(/^a worker thread died: EISDIR/)
  await pool.delete('none')
  await pool.stop()
  closeSync(session)
})

it('a device may be taken away, added and taken away again at once', async () => {
  // A pipe that nothing is written to: workers block in their reads as they do without requests.
  const pipe = join(await temporaryDirectory(), 'pipe')
  execFileSync('mkfifo', [pipe])
  const session = openSync(pipe, 'r+')
  const pool = await startWorkers({
    session,
    kind: 'data',
    workers: 2,
    settled: true,
    onRequest: () => {},
    onProblem: () => {},
    onReplaced: () => {},
    onGone: () => {},
  })
  const entry = {device: {name: 'a', size: 4096, fd: -1, present: new SharedArrayBuffer(8)}}
  const deleted = [1, 2, 3].map(() => {
    pool.put(entry)
    return pool.delete('a')
  })
  await Promise.all(deleted)
  await pool.stop()
  closeSync(session)
})
