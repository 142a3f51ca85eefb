// The converting registry's examples are what the program takes, and lead to each other.

import {execFile} from 'node:child_process'
import {readFile} from 'node:fs/promises'
import {join} from 'node:path'
import {promisify} from 'node:util'
import {expect, it} from 'vitest'
import {parseAllDocuments} from 'yaml'
import {packageVersion} from '../../src/daemons/process/version.ts'
import {parseReference} from '../../src/lib/oci/reference.ts'
import {findHosts} from '../../src/lib/registry/hosts.ts'
import {makeCertificate} from '../support/certificate.ts'
import {createUser} from '../support/ctr-remote.ts'
import {describeWith} from '../support/requires.ts'

const run = promisify(execFile)
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

describeWith(['kubectl'], 'the overlay for a cluster', () => {
  it('starts a registry with what it gives it', async () => {
    const {stdout} = await run('kubectl', ['kustomize', join(examples, 'kubernetes')])
    const objects = parseAllDocuments(stdout).map(document => document.toJS())
    const byKind = new Map(objects.map(object => [object.kind, object]))
    const {template} = byKind.get('Deployment').spec
    const [container] = template.spec.containers
    expect(container.image).toBe(`registry.example.com/ctr-remote:${packageVersion()}`)
    expect(byKind.get('Service').spec.selector).toEqual(template.metadata.labels)
    const [converted, certificate] = template.spec.volumes
    expect(converted.persistentVolumeClaim.claimName).toBe(byKind.get('PersistentVolumeClaim').metadata.name)
    expect(certificate.secret.secretName).toBe('certificate')

    await using user = await createUser()
    const own = await makeCertificate(user.home)
    const places: Record<string, string> = {
      '/certificate/tls.crt': own.certFile,
      '/certificate/tls.key': own.keyFile,
      '/converted/data': join(user.home, 'converted'),
    }
    const argv = container.args.map((word: string) =>
      word.replace(/(?<==)\/.*/, path => places[path]!).replace(/0\.0\.0\.0:\d+$/, '127.0.0.1:0'),
    )
    const running = user.start(...argv)
    await running.line('stdout', /^https:/)
    running.child.kill('SIGTERM')
    expect((await running.finished).exitCode).toBe(0)
  })
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
