// Which store a command takes, and what it says about that.

import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, beforeAll, expect, it} from 'vitest'
import {createUser, type User} from '../support/ctr-remote.ts'
import {startFakeContainerd} from '../support/fake-containerd.ts'

let user: User
beforeAll(async () => {
  user = await createUser({CTR_REMOTE_STORE: 'auto'})
})
afterAll(() => user[Symbol.asyncDispose]())

it('takes containerd where its socket is', async () => {
  await using fake = await startFakeContainerd()
  const {exitCode, stderr} = await user.run('-v', '-a', fake.address, 'image', 'ls', '-q')
  expect({exitCode, stderr}).toEqual({
    exitCode: 0,
    stderr: `store: containerd (${fake.address}, namespace default)\n`,
  })
})

it('takes the local store where there is no socket, and warns whoever named one', async () => {
  const address = join(user.home, 'none.sock')
  const {exitCode, stderr} = await user.run('-v', '-a', address, 'image', 'ls', '-q')
  expect({exitCode, stderr}).toEqual({
    exitCode: 0,
    stderr: `warning: using the local store, because there is no socket "${address}"\nstore: local (${user.home}/.local/share/ctr-remote/images)\n`,
  })
})

it('does not mention containerd to those who never did', async () => {
  const {stderr} = await user.run('--store', 'local', 'image', 'ls', '-q')
  expect(stderr).toBe('')
})

it.each([
  ['a socket that is not there', 'none.sock', 8, /^ctr-remote: Cannot reach containerd: there is no socket/],
  ['a file that is no socket', 'file', 5, /^ctr-remote: Cannot reach containerd: ".*" is not a socket/],
])('does not replace containerd where it was asked for: %s', async (_, name, exitCode, message) => {
  await mkdir(user.home, {recursive: true})
  await writeFile(join(user.home, 'file'), '')
  expect(await user.run('--store', 'containerd', '-a', join(user.home, name), 'image', 'ls')).toEqual({
    exitCode,
    stdout: '',
    stderr: expect.stringMatching(message),
  })
})
