// The converting registry's examples are what the program takes, and lead to each other.

import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, it} from 'vitest'
import {parseReference} from '../../src/lib/oci/reference.ts'
import {findHosts} from '../../src/lib/registry/hosts.ts'
import {createUser} from '../support/ctr-remote.ts'

const examples = join(import.meta.dirname, '../../examples/registry')

async function command(): Promise<readonly string[]> {
  const unit = await readFile(join(examples, 'ctr-remote-registry.service'), 'utf8')
  return /^ExecStart=\S+ (.*)$/m.exec(unit)![1]!.split(' ')
}

it('the unit starts a registry, which ends when it is told to', async () => {
  await using user = await createUser()
  const own = (word: string) =>
    word.replace('/var/lib/ctr-remote', join(user.home, 'state')).replace(/^127\.0\.0\.1:\d+$/, '127.0.0.1:0')
  const running = user.start(...(await command()).map(own))
  expect(await running.line('stderr', /^metrics /)).toMatch(/\/metrics$/)
  await running.line('stdout', /^http:/)
  running.child.kill('SIGTERM')
  expect((await running.finished).exitCode).toBe(0)
})

it('the mirrors of containerd are it, and stand for its upstreams', async () => {
  const argv = await command()
  const listen = argv[argv.indexOf('--listen') + 1]
  const upstreams = argv.filter((_, index) => argv[index - 1] === '--upstream')
  for (const domain of upstreams) {
    const hostsDir = join(examples, 'certs.d')
    const hosts = await findHosts(parseReference(`${domain}/a/b`), {hostsDir}, {})
    expect(hosts.map(({url}) => url.host)).toEqual([
      listen,
      domain === 'docker.io' ? 'registry-1.docker.io' : domain,
    ])
  }
})
