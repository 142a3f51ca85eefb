import {expect, it} from 'vitest'
import {runCommand, runCommandOrThrow} from '../../src/lib/io/run-command.ts'

const check = (script: string, expected: object) =>
  it(script, async () => expect(await runCommand('sh', ['-c', script])).toMatchObject(expected))

check('echo out; echo err >&2', {exitCode: 0, stdout: 'out', stderr: 'err'})
check('exit 7', {exitCode: 7})
check('kill -TERM $$', {exitCode: 143})
check('kill -KILL $$', {exitCode: 137})
check('kill -INT $$', {exitCode: 130})

it('what goes wrong is told with what the program said', async () => {
  await expect(runCommandOrThrow('sh', ['-c', 'echo no space >&2; exit 3'])).rejects.toMatchObject({
    code: 'failed-precondition',
    message: expect.stringMatching(/exit code 3: no space$/),
  })
})

it('a program that is not there is said to be missing', async () => {
  await expect(runCommand('/nonexistent/program', [])).rejects.toMatchObject({code: 'failed-precondition'})
})

it('a program that does not end in time is stopped', async () => {
  await expect(runCommand('sleep', ['1000'], {timeoutMs: 1})).rejects.toMatchObject({code: 'unavailable'})
})
