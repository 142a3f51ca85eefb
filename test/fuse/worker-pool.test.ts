// What becomes of worker threads that cannot go on. Reading from a directory fails in every one of them.

import {closeSync, openSync} from 'node:fs'
import {tmpdir} from 'node:os'
import {expect, it} from 'vitest'
import {startWorkers} from '../../src/lib/fuse/worker-pool.ts'

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
