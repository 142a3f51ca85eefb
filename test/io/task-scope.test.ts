import {expect, it} from 'vitest'
import {TaskScope} from '../../src/lib/io/task-scope.ts'

const over = new Error('over')

it('runs work until its end, tells it of the end, and waits for it', async () => {
  const scope = new TaskScope()
  const gate = Promise.withResolvers<string>()
  const work = scope.run(() => gate.promise)
  let isClosed = false
  const closing = scope.close(over).then(() => {
    isClosed = true
  })
  expect(scope.signal.reason).toBe(over)
  await new Promise(setImmediate)
  expect(isClosed).toBe(false)
  gate.resolve('done')
  await closing
  expect(await work).toBe('done')
})

it('starts nothing after its end', async () => {
  const scope = new TaskScope()
  await scope.close(over)
  let ran = false
  const late = scope.run(async () => {
    ran = true
  })
  await expect(late).rejects.toBe(over)
  expect(ran).toBe(false)
})

it('waits also for work that fails, and passes the failure on', async () => {
  const scope = new TaskScope()
  const work = scope.run(async () => {
    throw over
  })
  await expect(work).rejects.toBe(over)
  await scope.close(over)
})
