import {describe, expect, onTestFinished, test, vi} from 'vitest'
import {type Credential, parseUser} from '../../src/lib/registry/keychain.ts'
import type {RegistryOptions} from '../../src/lib/registry/registry.ts'
import type {RequestTrace} from '../../src/lib/registry/trace.ts'
import type {FaultyRegistry, FaultyRegistryOptions} from '../support/faulty-registry.ts'
import {PATIENTLY} from '../support/patience.ts'
import {openClient, readAll, sampleBytes, startRegistry} from './registry-scene.ts'

const PASSWORD = {kind: 'password', username: 'user', password: 'pa:ss, "word"'} as const
const LOGIN = {username: PASSWORD.username, password: PASSWORD.password}
const BASIC = {auth: {kind: 'basic', ...LOGIN}} as const
const BEARER = {auth: {kind: 'bearer', ...LOGIN}} as const

async function openBlob(server: FaultyRegistry, options: RegistryOptions = {}) {
  const descriptor = server.addBlob('team/app', sampleBytes(1000))
  const repository = openClient(options).repository(`${server.host}/team/app`, {access: 'pull'})
  return repository.openBlob(descriptor)
}

async function read(options: FaultyRegistryOptions, credential?: Credential) {
  const server = await startRegistry(options)
  const blob = await openBlob(server, {credential})
  const bytes = await readAll(blob)
  return {
    size: bytes.length,
    requests: server.requests.map(({method, url}) => `${method} ${url.split('?')[0]}`),
  }
}

const BLOB_PATH = /^GET \/v2\/team\/app\/blobs\//

test('basic authentication is used where it is asked for', async () => {
  const {size, requests} = await read(BASIC, PASSWORD)
  expect(size).toBe(1000)
  expect(requests).toHaveLength(2)
})

test('a token is fetched where one is asked for', async () => {
  const {requests} = await read(BEARER, PASSWORD)
  expect(requests).toEqual([expect.stringMatching(BLOB_PATH), 'GET /token', expect.stringMatching(BLOB_PATH)])
})

test('an anonymous token is fetched without credentials', async () => {
  expect((await read({auth: {kind: 'bearer'}})).size).toBe(1000)
})

test('an identity token is exchanged by OAuth2', async () => {
  const auth = {kind: 'bearer', ...LOGIN, refreshToken: 'refresh-me'} as const
  const {requests} = await read({auth}, {kind: 'identity', token: 'refresh-me'})
  expect(requests[1]).toBe('POST /token')
})

test.each([
  ['no credentials', BASIC, undefined],
  ['a wrong password', BASIC, {...PASSWORD, password: 'wrong'}],
  ['no credentials for a token', BEARER, undefined],
  ['a wrong password for a token', BEARER, {...PASSWORD, password: 'wrong'}],
  ['a wrong identity token', BEARER, {kind: 'identity', token: 'secret'}],
] as const)('%s: unauthenticated, and no secret in the message', async (_, options, credential) => {
  const error = await read(options, credential).catch(thrown => thrown)
  expect(error.code).toBe('unauthenticated')
  expect(error.message).not.toMatch(/wrong|secret|dXNlcj/)
})

test('blobs that are read at once share one token', async () => {
  const server = await startRegistry(BEARER)
  const repository = openClient({credential: PASSWORD}).repository(`${server.host}/app`, {access: 'pull'})
  const read = async (index: number) =>
    readAll(await repository.openBlob(server.addBlob('app', sampleBytes(index))))
  await Promise.all(Array.from({length: 10}, (_, index) => read(index + 1)))
  expect(server.requests.filter(({url}) => url.startsWith('/token'))).toHaveLength(1)
})

describe('the token server of a host', () => {
  /** Reads from one repository, then from another; what was asked for meanwhile. */
  async function readTwo(beforeSecond: (server: FaultyRegistry) => void = () => undefined) {
    const server = await startRegistry(BEARER)
    const client = openClient({credential: PASSWORD})
    const readFrom = async (name: string) => {
      const repository = client.repository(`${server.host}/${name}`, {access: 'pull'})
      await (await repository.openBlob(server.addBlob(name, sampleBytes(10)))).read(0, 1)
    }
    await readFrom('one')
    beforeSecond(server)
    await readFrom('two')
    return server.requests.map(({url}) => (url.startsWith('/token') ? 'token' : url.split('/')[2])).join(' ')
  }

  test('is that of its other repositories, too: they are asked with a token at once', async () => {
    expect(await readTwo()).toBe('one token one token two')
  })

  test('is no reason to fail: without a token from it, the host is asked what it wants', async () => {
    const refuse = (server: FaultyRegistry) => server.inject({url: /^.token/}, {kind: 'status', status: 403})
    expect(await readTwo(refuse)).toBe('one token one token two token two')
  })
})

test.each([
  ['abort', new DOMException('stop', 'AbortError')],
  ['time limit', new DOMException('too late', 'TimeoutError')],
  ['reason of its own', new Error('no more')],
])("one caller's %s fails nobody who shares its token", async (_, reason) => {
  const server = await startRegistry(BEARER)
  const blob = await openBlob(server, {credential: PASSWORD})
  server.inject({url: /^\/token/}, {kind: 'stall', afterBytes: 0})
  const abort = new AbortController()
  const first = blob.read(0, 10, {signal: abort.signal})
  await vi.waitUntil(() => server.requests.some(({url}) => url.startsWith('/token')), PATIENTLY)
  const second = blob.read(10, 10)
  // It has nothing to wait for but the token.
  await new Promise(done => setImmediate(done))
  abort.abort(reason)
  await expect(first).rejects.toBe(reason)
  expect(await second).toHaveLength(10)
})

test('a token is used as long as it lives, and renewed when it is refused', async () => {
  const server = await startRegistry(BEARER)
  const blob = await openBlob(server, {credential: PASSWORD})
  await blob.read(0, 1)
  await blob.read(1, 1)
  server.revokeTokens()
  await blob.read(2, 1)
  expect(server.requests.map(({url}) => (url.startsWith('/token') ? 'token' : 'blob')).join(' ')).toBe(
    'blob token blob blob blob token blob',
  )
})

test('a token that has expired is renewed without asking the registry first', async () => {
  vi.useFakeTimers({toFake: ['Date']})
  onTestFinished(() => void vi.useRealTimers())
  const server = await startRegistry(BEARER)
  const blob = await openBlob(server, {credential: PASSWORD})
  await blob.read(0, 1)
  vi.setSystemTime(Date.now() + 3_600_000)
  await blob.read(0, 1)
  expect(server.requests.map(({url}) => (url.startsWith('/token') ? 'token' : 'blob')).join(' ')).toBe(
    'blob token blob token blob',
  )
})

test('pushing asks for both rights, pulling for one', async () => {
  const server = await startRegistry(BEARER)
  const client = openClient({credential: PASSWORD})
  const missing = {mediaType: 'x', digest: server.addBlob('other', sampleBytes(1)).digest, size: 1}
  await client.repository(`${server.host}/app`, {access: 'push'}).content.info(missing)
  await client.repository(`${server.host}/team/app`, {access: 'pull'}).content.info(missing)
  const scopes = server.requests
    .filter(({url}) => url.startsWith('/token'))
    .map(({url}) => new URL(url, server.url).searchParams.getAll('scope'))
  expect(scopes).toEqual([['repository:app:pull,push'], ['repository:team/app:pull']])
})

test('a token server that is busy is asked again', async () => {
  const server = await startRegistry(BEARER)
  server.inject({url: /^\/token/}, {kind: 'status', status: 503}, 2)
  const blob = await openBlob(server, {credential: PASSWORD})
  expect(await readAll(blob)).toHaveLength(1000)
})

test.each([
  ['is not JSON', 'token=secret'],
  ['holds no token', '{"access": "secret"}'],
  ['holds a token with a line break', JSON.stringify({token: 'secret\r\nx-evil: 1'})],
  ['is no object', '["secret"]'],
  ['is too large', JSON.stringify({token: 'secret'.repeat(100_000)})],
])('a token response that %s is corrupt, and is not repeated', async (_, body) => {
  const server = await startRegistry(BEARER)
  server.inject({url: /^\/token/}, {kind: 'status', status: 200, body})
  const blob = await openBlob(server, {credential: PASSWORD})
  const error = await readAll(blob).catch(thrown => thrown)
  expect(error.code).toBe('corrupt')
  expect(`${error.message} ${error.cause?.message}`).not.toContain('secret')
})

test.each(['', 'file:///etc/passwd', 'http://'])('the token realm %j is refused', async realm => {
  const server = await startRegistry({auth: {kind: 'bearer', ...LOGIN, realm}})
  const blob = await openBlob(server, {credential: PASSWORD})
  await expect(readAll(blob)).rejects.toMatchObject({code: expect.stringMatching(/corrupt|unauthenticated/)})
})

test('credentials stay here when plain HTTP to another machine was not asked for', async () => {
  const {endpointFor} = await import('../../src/lib/registry/endpoint.ts')
  const {parseReference} = await import('../../src/lib/oci/reference.ts')
  const host = (url: string, plainHttpAsked: boolean) =>
    endpointFor(
      {
        url: new URL(url),
        overridePath: false,
        capabilities: ['pull'],
        headers: {},
        tls: {skipVerify: false, ca: [], clients: []},
        plainHttpAsked,
      },
      parseReference('registry.example/app'),
      'pull',
    ).mayAuthenticate
  expect(host('http://registry.example', false)).toBe(false)
  expect(host('http://registry.example', true)).toBe(true)
  expect(host('https://registry.example', false)).toBe(true)
  expect(host('http://127.0.0.1:5000', false)).toBe(true)
})

test('traces show every request, and no secret', async () => {
  const traces: RequestTrace[] = []
  const server = await startRegistry({auth: {kind: 'bearer', ...LOGIN}})
  server.inject(
    {method: 'GET', url: /blobs/},
    {kind: 'redirect', to: `${server.url}/v2/team/app/blobs/x?X-Amz-Signature=secret&digest=plain`},
  )
  const blob = await openBlob(server, {credential: PASSWORD, onRequest: trace => traces.push(trace)})
  await readAll(blob).catch(() => undefined)
  const text = JSON.stringify(traces)
  expect(traces.map(({method, status}) => `${method} ${status}`)).toEqual([
    'GET 307',
    'GET 401',
    'GET 200',
    'GET 404',
  ])
  expect(text).not.toMatch(/secret|dXNlcj|token-/)
  expect(text).toContain('Bearer ***')
  expect(text).toContain('digest=plain')
})

test.each([
  ['user:pass', {kind: 'password', username: 'user', password: 'pass'}],
  ['user:pa:ss', {kind: 'password', username: 'user', password: 'pa:ss'}],
  ['user:', {kind: 'password', username: 'user', password: ''}],
] as const)('--user %s is understood', (text, credential) => {
  expect(parseUser(text)).toEqual(credential)
})

test.each(['', 'user', ':pass'])('--user %j is refused without repeating it', text => {
  expect(() => parseUser(text)).toThrow('expected "NAME:PASSWORD"')
})
