// Credentials from a cluster: what is in its secrets counts, as soon as it changes, and trouble passes.

import {rename, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it, onTestFinished, vi} from 'vitest'
import {readKubeconfig} from '../../src/lib/kubernetes/kubeconfig.ts'
import {
  type KubernetesKeychain,
  openKubernetesKeychain,
} from '../../src/lib/kubernetes/kubernetes-keychain.ts'
import {makeCertificate} from '../support/certificate.ts'
import {PATIENTLY} from '../support/patience.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {kubeconfigFor, startCluster} from './fake-cluster.ts'

const auth = (user: string) => ({auth: Buffer.from(`${user}:pw`).toString('base64')})
const credential = (username: string) => ({kind: 'password', username, password: 'pw'})

function open(path: string, failures: string[] = []): KubernetesKeychain {
  const keychain = openKubernetesKeychain({path, onFailure: reason => failures.push(reason), retryMs: 5})
  onTestFinished(() => keychain[Symbol.asyncDispose]())
  return keychain
}

describe('the keychain of a cluster', () => {
  it('finds what secrets say, whatever page they are on', async () => {
    const cluster = await startCluster()
    cluster.set('default/a', {'a.example': auth('alice')})
    cluster.set('default/b', {'https://index.docker.io/v1/': auth('bob')})
    cluster.set('kube-system/c', {'c.example/team': auth('carol')})
    const keychain = open(cluster.kubeconfig)
    await keychain.synced
    expect(await keychain.find('a.example', 'app')).toEqual(credential('alice'))
    expect(await keychain.find('docker.io', 'library/debian')).toEqual(credential('bob'))
    expect(await keychain.find('c.example', 'team/app')).toEqual(credential('carol'))
    expect(await keychain.find('c.example', 'other/app')).toBe(undefined)
    const [first, second] = cluster.requests
    expect(first!.authorization).toBe('Bearer secret-token')
    expect(first!.query.get('fieldSelector')).toBe('type=kubernetes.io/dockerconfigjson')
    expect(second!.query.get('continue')).toBe('2')
  })

  it('follows what is added, changed and deleted', async () => {
    const cluster = await startCluster()
    const keychain = open(cluster.kubeconfig)
    await cluster.watched()
    const expectUser = (user: string | undefined) =>
      vi.waitFor(
        async () => expect(await keychain.find('a.example', 'app')).toEqual(user && credential(user)),
        PATIENTLY,
      )
    cluster.set('default/a', {'a.example': auth('alice')})
    await expectUser('alice')
    cluster.set('default/a', {'a.example': auth('anna')})
    await expectUser('anna')
    cluster.set('default/a', undefined)
    await expectUser(undefined)
  })

  it('goes on from where a watch ended, and begins anew when that is too old', async () => {
    const cluster = await startCluster()
    const keychain = open(cluster.kubeconfig)
    await cluster.watched()
    cluster.set('default/a', {'a.example': auth('alice')})
    await vi.waitFor(async () => expect(await keychain.find('a.example', 'x')).toBeDefined(), PATIENTLY)
    cluster.endWatches()
    await vi.waitFor(() => expect(cluster.requests).toHaveLength(3), PATIENTLY)
    expect(cluster.requests[2]!.query.get('resourceVersion')).toBe('101')
    await cluster.watched()
    cluster.say('{"type":"ERROR","object":{"kind":"Status","code":410}}')
    await vi.waitFor(() => expect(cluster.requests.length).toBeGreaterThanOrEqual(4), PATIENTLY)
    expect(cluster.requests[3]!.query.has('watch')).toBe(false)
    expect(await keychain.find('a.example', 'x')).toEqual(credential('alice'))
  })

  it('keeps trying while the server fails, says so once, and knows what it knew', async () => {
    const cluster = await startCluster()
    cluster.set('default/a', {'a.example': auth('alice')})
    cluster.fail(403, 3)
    const failures: string[] = []
    const keychain = open(cluster.kubeconfig, failures)
    await keychain.synced
    expect(failures).toEqual([`Cannot list the secrets of ${cluster.url}: HTTP status 403`])
    await cluster.watched()
    cluster.fail(500, 2)
    cluster.endWatches()
    await vi.waitFor(() => expect(cluster.requests.length).toBeGreaterThanOrEqual(8), PATIENTLY)
    expect(await keychain.find('a.example', 'x')).toEqual(credential('alice'))
  })

  it('waits for a kubeconfig that is not there yet', async () => {
    const cluster = await startCluster()
    cluster.set('default/a', {'a.example': auth('alice')})
    const path = join(cluster.directory, 'later')
    const failures: string[] = []
    const keychain = open(path, failures)
    await vi.waitFor(() => expect(failures).toEqual([`There is no kubeconfig "${path}" yet`]), PATIENTLY)
    await rename(cluster.kubeconfig, path)
    await keychain.synced
    expect(await keychain.find('a.example', 'x')).toEqual(credential('alice'))
  })

  it('leaves out a secret that is malformed, without quoting it', async () => {
    const cluster = await startCluster()
    cluster.set('default/a', {'a.example': auth('alice')})
    const failures: string[] = []
    const keychain = open(cluster.kubeconfig, failures)
    await cluster.watched()
    const bad = Buffer.from('{"auths": hunter2').toString('base64')
    const metadata = {namespace: 'default', name: 'bad', resourceVersion: '200'}
    cluster.say(JSON.stringify({type: 'ADDED', object: {metadata, data: {'.dockerconfigjson': bad}}}))
    await vi.waitFor(
      () => expect(failures).toEqual(['Cannot use secret default/bad: it is not JSON']),
      PATIENTLY,
    )
    expect(await keychain.find('a.example', 'x')).toEqual(credential('alice'))
  })

  it('survives answers that are not what they should be', async () => {
    const cluster = await startCluster()
    const failures: string[] = []
    const keychain = open(cluster.kubeconfig, failures)
    await cluster.watched()
    cluster.say('this is no JSON')
    await vi.waitFor(
      () => expect(failures).toEqual(['Cannot use the Kubernetes API: an answer is not the expected JSON']),
      PATIENTLY,
    )
    cluster.set('default/a', {'a.example': auth('alice')})
    await vi.waitFor(async () => expect(await keychain.find('a.example', 'x')).toBeDefined(), PATIENTLY)
  })
})

describe('a kubeconfig', () => {
  async function read(text: string) {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'config'), text)
    return readKubeconfig(join(directory, 'config'))
  }

  it('gives server and token of its current context', async () => {
    expect(await read(kubeconfigFor('https://k.example:6443/'))).toEqual({
      server: 'https://k.example:6443',
      tls: {skipVerify: false, ca: [], clients: []},
      authorization: 'Bearer secret-token',
    })
  })

  it('may name files beside it, or hold them', async () => {
    const directory = await temporaryDirectory()
    const {cert, key} = await makeCertificate(directory)
    await writeFile(join(directory, 'client.pem'), cert)
    await writeFile(join(directory, 'token'), 'from-file\n')
    const inline = Buffer.from(key).toString('base64')
    const user = `tokenFile: token\n    client-certificate: client.pem\n    client-key-data: ${inline}`
    const path = join(directory, 'config')
    await writeFile(path, kubeconfigFor('https://k.example', user))
    expect(await readKubeconfig(path)).toMatchObject({
      authorization: 'Bearer from-file',
      tls: {clients: [{cert, key}]},
    })
  })

  it('may have a name and a password', async () => {
    const {authorization} = await read(kubeconfigFor('https://k', 'username: a\n    password: b'))
    expect(authorization).toBe(`Basic ${Buffer.from('a:b').toString('base64')}`)
  })

  const refused = (name: string, text: string, code: string, message: RegExp) =>
    it(`is refused: ${name}`, () => expect(read(text)).rejects.toMatchObject({code, message}))

  const good = kubeconfigFor('https://k')
  refused('no YAML', 'a: [', 'failed-precondition', /it is not YAML/)
  refused('a list', '- a', 'failed-precondition', /no kubeconfig/)
  refused(
    'no such context',
    good.replace('current-context: here', ''),
    'failed-precondition',
    /no context ""/,
  )
  refused(
    'no such cluster',
    good.replace('name: mine', 'name: x'),
    'failed-precondition',
    /no cluster "mine"/,
  )
  refused('no server', kubeconfigFor('file:///etc'), 'failed-precondition', /no usable "server"/)
  refused(
    'a plugin',
    kubeconfigFor('https://k', 'exec: {command: aws}'),
    'unsupported',
    /credentials from a plugin/,
  )
})
