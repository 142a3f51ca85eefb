import {mkdir, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, test} from 'vitest'
import {parseReference} from '../../src/lib/oci/reference.ts'
import {endpointFor, endpointUrl} from '../../src/lib/registry/endpoint.ts'
import {findHosts, type HostOptions} from '../../src/lib/registry/hosts.ts'
import {parseHostsToml} from '../../src/lib/registry/hosts-toml.ts'
import {isLoopbackHost} from '../../src/lib/registry/proxy.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {openClient, readAll, sampleBytes, startRegistry} from './registry-scene.ts'

/** The blob URLs that would be tried. */
async function urlsFor(text: string, options: HostOptions = {}): Promise<string[]> {
  const reference = parseReference(text)
  const hosts = await findHosts(reference, options, {})
  return hosts.map(host => endpointUrl(endpointFor(host, reference, 'pull'), 'blobs/x').href)
}

/** A hosts directory; `files` maps `<domain>/<file>` to text. */
async function hostsDirectory(files: Readonly<Record<string, string>>): Promise<string> {
  const root = await temporaryDirectory()
  for (const [name, text] of Object.entries(files)) {
    await mkdir(join(root, name, '..'), {recursive: true})
    await writeFile(join(root, name), text)
  }
  return root
}

describe('without configuration', () => {
  test.each([
    ['debian', 'https://registry-1.docker.io/v2/library/debian/blobs/x'],
    ['ghcr.io/a/b', 'https://ghcr.io/v2/a/b/blobs/x'],
    ['localhost/a', 'http://localhost/v2/a/blobs/x'],
    ['localhost:5000/a', 'http://localhost:5000/v2/a/blobs/x'],
    ['localhost:443/a', 'https://localhost/v2/a/blobs/x'],
    ['127.1.2.3:5000/a', 'http://127.1.2.3:5000/v2/a/blobs/x'],
    ['[::1]:5000/a', 'http://[::1]:5000/v2/a/blobs/x'],
    ['127.0.0.1.evil.example/a', 'https://127.0.0.1.evil.example/v2/a/blobs/x'],
    ['10.0.0.1:5000/a', 'https://10.0.0.1:5000/v2/a/blobs/x'],
  ])('%s is asked at %s', async (reference, url) => {
    expect(await urlsFor(reference)).toEqual([url])
  })

  test('plain HTTP is used where it is asked for', async () => {
    expect(await urlsFor('registry.example/a', {plainHttp: true})).toEqual([
      'http://registry.example/v2/a/blobs/x',
    ])
  })

  test('TLS settings mean HTTPS, on the loopback interface too', async () => {
    expect(await urlsFor('localhost:5000/a', {skipVerify: true})).toEqual([
      'https://localhost:5000/v2/a/blobs/x',
    ])
  })

  test.each([
    ['a certificate without its key', {tlscert: '/x'}],
    ['a missing file', {tlscacert: '/nonexistent.pem'}],
    ['a file that is no PEM', {tlscacert: '/etc/hostname'}],
  ])('%s is refused', async (_, options) => {
    await expect(urlsFor('ghcr.io/a', options)).rejects.toMatchObject({code: 'invalid-argument'})
  })

  test.each([
    ['localhost', true],
    ['LOCALHOST', true],
    ['::1', true],
    ['127.255.0.1', true],
    ['localhost.example', false],
    ['127.0.0.1.example', false],
    ['10.0.0.1', false],
  ])('%s is loopback: %s', (host, expected) => expect(isLoopbackHost(host)).toBe(expected))
})

describe('with a hosts directory', () => {
  const TWO_MIRRORS = `
server = "https://registry-1.docker.io"
[host."https://zone.example"]
  capabilities = ["pull"]
[host."http://local.example:5000/cache/"]
  capabilities = ["pull", "resolve"]
`

  test('mirrors come in the order of the file, with the namespace; the server is last', async () => {
    const hostsDir = await hostsDirectory({'docker.io/hosts.toml': TWO_MIRRORS})
    expect(await urlsFor('debian', {hostsDir})).toEqual([
      'https://zone.example/v2/library/debian/blobs/x?ns=docker.io',
      'http://local.example:5000/cache/v2/library/debian/blobs/x?ns=docker.io',
      'https://registry-1.docker.io/v2/library/debian/blobs/x',
    ])
  })

  test('override_path is the API root', async () => {
    const hosts = '[host."https://m.example/v2/proxy"]\noverride_path = true\n'
    const hostsDir = await hostsDirectory({'ghcr.io/hosts.toml': hosts})
    expect((await urlsFor('ghcr.io/a', {hostsDir}))[0]).toBe(
      'https://m.example/v2/proxy/a/blobs/x?ns=ghcr.io',
    )
  })

  test.each(['r.example_5000_', 'r.example:5000', '_default'])('the directory %s is found', async name => {
    const hostsDir = await hostsDirectory({[`${name}/hosts.toml`]: '[host."https://m.example"]\n'})
    expect(await urlsFor('r.example:5000/a', {hostsDir})).toEqual([
      'https://m.example/v2/a/blobs/x?ns=r.example%3A5000',
      'https://r.example:5000/v2/a/blobs/x',
    ])
  })

  test('a domain of its own wins over _default', async () => {
    const hostsDir = await hostsDirectory({
      '_default/hosts.toml': '[host."https://default.example"]\n',
      'ghcr.io/hosts.toml': '',
    })
    expect(await urlsFor('ghcr.io/a', {hostsDir})).toEqual(['https://ghcr.io/v2/a/blobs/x'])
  })

  test('an empty hosts directory changes nothing', async () => {
    expect(await urlsFor('ghcr.io/a', {hostsDir: await hostsDirectory({})})).toHaveLength(1)
  })

  test("Docker's certificate directories are understood", async () => {
    const pem = '-----BEGIN CERTIFICATE-----\n'
    const hostsDir = await hostsDirectory({
      'r.example/ca.crt': pem,
      'r.example/c.cert': pem,
      'r.example/c.key': pem,
    })
    const [host] = await findHosts(parseReference('r.example/a'), {hostsDir}, {})
    expect(host?.tls).toMatchObject({ca: [pem], clients: [{cert: pem, key: pem}]})
  })

  test.each([
    ['is not TOML', 'server ='],
    ['has a server that is no string', 'server = 5'],
    ['has an unknown capability', '[host."https://m"]\ncapabilities = ["fly"]'],
    ['has a host that is no table', '[host]\n"https://m" = 1'],
    ['has a header with a line break', '[host."https://m".header]\nx = "a\\nb"'],
    ['has a flag that is no boolean', '[host."https://m"]\nskip_verify = "yes"'],
    ['has a client of three files', '[host."https://m"]\nclient = [["a", "b", "c"]]'],
    ['has a host that is no URL', '[host."https://"]'],
  ])('a file that %s is named in the error', async (_, text) => {
    const hostsDir = await hostsDirectory({'ghcr.io/hosts.toml': text})
    await expect(urlsFor('ghcr.io/a', {hostsDir})).rejects.toMatchObject({
      code: 'invalid-argument',
      message: /hosts\.toml/,
    })
  })

  test('files are relative to the directory of the file', () => {
    const text = '[host."https://m"]\nca = ["ca.pem", "/abs.pem"]\nclient = [["c.pem", "k.pem"], "both.pem"]'
    const {mirrors} = parseHostsToml(text.replace(', "both.pem"', ''), {file: 'f', directory: '/d'})
    expect(mirrors[0]).toMatchObject({
      ca: ['/d/ca.pem', '/abs.pem'],
      clients: [{cert: '/d/c.pem', key: '/d/k.pem'}],
    })
  })
})

describe('mirrors', () => {
  const BYTES = sampleBytes(1000)

  async function setUp(capabilities = '["pull", "resolve"]') {
    const [mirror, origin] = [await startRegistry(), await startRegistry()]
    const hostsDir = await hostsDirectory({
      [`${origin.host}/hosts.toml`]: `[host."${mirror.url}"]\ncapabilities = ${capabilities}\n[host."${mirror.url}".header]\nx-key = "secret"\n`,
    })
    const client = openClient({hostsDir})
    const repository = client.repository(`${origin.host}/app`, {access: 'pull'})
    const target = client.repository(`${origin.host}/app`, {access: 'push'})
    return {mirror, origin, repository, target, descriptor: origin.addBlob('app', BYTES)}
  }

  test('a mirror that has the blob is enough, and gets its headers', async () => {
    const {mirror, origin, repository, descriptor} = await setUp()
    mirror.addBlob('app', BYTES)
    expect(await readAll(await repository.openBlob(descriptor))).toEqual(BYTES)
    expect(origin.requests).toHaveLength(0)
    expect(mirror.requests[0]?.headers['x-key']).toBe('secret')
  })

  test.each([404, 403, 500])('the origin is asked when the mirror answers HTTP %i', async status => {
    const {mirror, origin, repository, descriptor} = await setUp()
    mirror.inject({}, {kind: 'status', status}, 10)
    expect(await readAll(await repository.openBlob(descriptor))).toEqual(BYTES)
    expect(origin.requests[0]?.headers['x-key']).toBeUndefined()
  })

  test('the origin continues what the mirror has begun', async () => {
    const {mirror, origin, repository, descriptor} = await setUp()
    mirror.addBlob('app', BYTES)
    mirror.inject({}, {kind: 'drop', afterBytes: 400})
    mirror.inject({}, {kind: 'status', status: 404}, 10)
    expect(await readAll(await repository.openBlob(descriptor))).toEqual(BYTES)
    expect(origin.requests[0]?.headers.range).toBe('bytes=400-999')
  })

  test('when all fail, the origin decides and the mirror is told', async () => {
    const {origin, repository} = await setUp()
    const missing = {mediaType: 'x', digest: origin.addBlob('other', sampleBytes(5)).digest, size: 5}
    await expect(readAll(await repository.openBlob(missing))).rejects.toMatchObject({
      code: 'not-found',
      message: /other hosts: 127\.0\.0\.1:/,
    })
  })

  test('tags are not looked up at a mirror that may only be pulled from', async () => {
    const {mirror, origin, repository} = await setUp('["pull"]')
    await expect(repository.resolve('1')).rejects.toMatchObject({code: 'not-found'})
    expect([mirror.requests.length, origin.requests.length]).toEqual([0, 1])
  })

  test('writing goes to the origin when the mirror is read-only', async () => {
    const {mirror, origin, target} = await setUp()
    const bytes = sampleBytes(50)
    await using writer = await target.content.write({mediaType: 'x'})
    await writer.write(bytes)
    const other = origin.addBlob('elsewhere', bytes)
    await writer.commit(other)
    expect(mirror.requests).toHaveLength(0)
    expect(origin.blob('app', other.digest)).toEqual(bytes)
  })
})

describe('mirrors given as options', () => {
  const mirrorsOf =
    (...mirrors: {address: string; plainHttp?: boolean; headers?: Record<string, string>}[]) =>
    (domain: string) =>
      domain === 'docker.io' || domain === 'registry.example'
        ? mirrors.map(mirror => ({plainHttp: false, headers: {}, timeouts: undefined, ...mirror}))
        : []

  test('are tried before the origin, in their order, for their registry alone', async () => {
    const options = {
      mirrorsOf: mirrorsOf({address: 'a.example'}, {address: 'b.example', plainHttp: true}),
    }
    expect(await urlsFor('debian', options)).toEqual([
      'https://a.example/v2/library/debian/blobs/x?ns=docker.io',
      'http://b.example/v2/library/debian/blobs/x?ns=docker.io',
      'https://registry-1.docker.io/v2/library/debian/blobs/x',
    ])
    expect(await urlsFor('ghcr.io/a', options)).toHaveLength(1)
  })

  test('may be the registry itself, reached without TLS', async () => {
    const options = {mirrorsOf: mirrorsOf({address: 'registry.example', plainHttp: true})}
    expect((await urlsFor('registry.example/a', options))[0]).toBe('http://registry.example/v2/a/blobs/x')
  })

  test('come before those of hosts.toml', async () => {
    const hostsDir = await hostsDirectory({'registry.example/hosts.toml': '[host."https://c.example"]\n'})
    const urls = await urlsFor('registry.example/a', {hostsDir, mirrorsOf: mirrorsOf({address: 'a.example'})})
    expect(urls.map(url => new URL(url).host)).toEqual(['a.example', 'c.example', 'registry.example'])
  })

  test('get their headers, and have time limits of their own', async () => {
    const [mirror, origin] = [await startRegistry(), await startRegistry()]
    const bytes = sampleBytes(100)
    const descriptor = origin.addBlob('app', bytes)
    mirror.addBlob('app', bytes)
    mirror.inject({}, {kind: 'stall', afterBytes: 10})
    mirror.inject({}, {kind: 'status', status: 404}, 10)
    const headers = {'x-key': 'secret'}
    const timeouts = {bodyIdleMs: 50}
    const client = openClient({
      mirrorsOf: () => [{address: mirror.url, plainHttp: true, headers, timeouts}],
    })
    const repository = client.repository(`${origin.host}/app`, {access: 'pull'})
    expect(await readAll(await repository.openBlob(descriptor))).toEqual(bytes)
    expect(mirror.requests[0]?.headers['x-key']).toBe('secret')
    expect(origin.requests[0]?.headers['x-key']).toBeUndefined()
  })
})
