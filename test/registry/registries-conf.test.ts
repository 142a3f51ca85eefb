import {mkdir, writeFile} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import {describe, expect, test} from 'vitest'
import {parseReference} from '../../src/lib/oci/reference.ts'
import {endpointFor, endpointUrl} from '../../src/lib/registry/endpoint.ts'
import {findHosts} from '../../src/lib/registry/hosts.ts'
import {findRegistriesConf, type RegistriesConfFiles} from '../../src/lib/registry/registries-conf.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const DIGEST = `sha256:${'1'.repeat(64)}`

/** Podman's files below a directory of their own: `registries.conf`, `registries.conf.d/…`, `certs.d/…`. */
async function filesOf(texts: Readonly<Record<string, string>>): Promise<RegistriesConfFiles> {
  const root = await temporaryDirectory()
  for (const [name, text] of Object.entries(texts)) {
    await mkdir(dirname(join(root, name)), {recursive: true})
    await writeFile(join(root, name), text)
  }
  return {
    main: [join(root, 'missing.conf'), join(root, 'registries.conf')],
    dropIns: [join(root, 'registries.conf.d')],
    certificates: [join(root, 'no-certs.d'), join(root, 'certs.d')],
  }
}

async function hostsFor(text: string, files: Readonly<Record<string, string>>) {
  const reference = parseReference(text)
  const hosts = await findHosts(reference, {registriesConf: await filesOf(files)}, {})
  return hosts.map(host => ({host, endpoint: endpointFor(host, reference, 'pull')}))
}

/** The blob URLs that would be tried. */
async function urlsFor(text: string, conf: string): Promise<string[]> {
  const hosts = await hostsFor(text, {'registries.conf': conf})
  return hosts.map(({endpoint}) => endpointUrl(endpoint, 'blobs/x').href)
}

const HUB = 'https://registry-1.docker.io/v2/library/debian/blobs/x'

describe('a reference', () => {
  test.each([
    ['nothing', '', 'debian', [HUB]],
    ['another registry', '[[registry]]\nlocation = "quay.io"\ninsecure = true', 'debian', [HUB]],
    [
      'a mirror',
      '[[registry]]\nlocation = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.example:5000/hub/"',
      'debian:12',
      ['https://mirror.example:5000/v2/hub/library/debian/blobs/x', HUB],
    ],
    [
      'mirrors in their order',
      '[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "b.example"\n[[registry.mirror]]\nlocation = "c.example/x"',
      'a.example/app',
      [
        'https://b.example/v2/app/blobs/x',
        'https://c.example/v2/x/app/blobs/x',
        'https://a.example/v2/app/blobs/x',
      ],
    ],
    [
      'another place',
      '[[registry]]\nprefix = "a.example/team"\nlocation = "b.example/other/place"',
      `a.example/team/app@${DIGEST}`,
      ['https://b.example/v2/other/place/app/blobs/x'],
    ],
    [
      'the longest prefix',
      '[[registry]]\nprefix = "a.example/x/y"\nlocation = "long.example"\n[[registry]]\nprefix = "a.example"\nlocation = "short.example"',
      'a.example/x/y/z:1',
      ['https://long.example/v2/z/blobs/x'],
    ],
    [
      'no prefix that ends within a name',
      '[[registry]]\nprefix = "a.example/te"\nlocation = "b.example"',
      'a.example/team/app',
      ['https://a.example/v2/team/app/blobs/x'],
    ],
    [
      'a prefix that is one image',
      '[[registry]]\nprefix = "a.example/app:1"\nlocation = "b.example/kept:2"',
      'a.example/app:1',
      ['https://b.example/v2/kept/blobs/x'],
    ],
    [
      'hosts below a domain',
      '[[registry]]\nprefix = "*.example"\nlocation = "all.other"',
      'a.b.example:5000/app',
      ['https://all.other:5000/v2/app/blobs/x'],
    ],
    [
      'hosts below a domain that stay what they are',
      '[[registry]]\nprefix = "*.example"\n[[registry.mirror]]\nlocation = "mirror.other/x"',
      'a.example/app',
      ['https://mirror.other/v2/x/app/blobs/x', 'https://a.example/v2/app/blobs/x'],
    ],
    [
      'no path that looks like such a host',
      '[[registry]]\nprefix = "*.example"\nlocation = "all.other"',
      'a.other/b.example/app',
      ['https://a.other/v2/b.example/app/blobs/x'],
    ],
    [
      'a registry without certificates',
      '[[registry]]\nlocation = "a.example"\ninsecure = true',
      'a.example/app',
      ['https://a.example/v2/app/blobs/x', 'http://a.example/v2/app/blobs/x'],
    ],
    [
      'a place on this machine',
      '[[registry]]\nprefix = "a.example"\nlocation = "localhost:5000/x"',
      'a.example/app',
      ['http://localhost:5000/v2/x/app/blobs/x'],
    ],
  ])('finds %s', async (_, conf, reference, urls) => {
    expect(await urlsFor(reference, conf)).toEqual(urls)
  })

  test('asks for the rights to the repository that a mirror has, and pushes to none', async () => {
    const conf = '[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "b.example/x"'
    const [mirror, origin] = await hostsFor('a.example/app', {'registries.conf': conf})
    expect(mirror!.endpoint).toMatchObject({scope: 'repository:x/app:pull', keychainHost: 'b.example'})
    expect(mirror!.host.capabilities).not.toContain('push')
    expect(origin!.endpoint).toMatchObject({scope: 'repository:app:pull', keychainHost: 'a.example'})
    expect(origin!.host.capabilities).toContain('push')
  })

  test.each([
    ['digest-only', 'a.example/app', ['pull']],
    ['digest-only', `a.example/app@${DIGEST}`, ['pull']],
    ['tag-only', 'a.example/app:1', ['pull', 'resolve']],
    ['tag-only', `a.example/app@${DIGEST}`, []],
    ['all', 'a.example/app:1', ['pull', 'resolve']],
  ])('uses a mirror for pulls of %s in %s for %j', async (pulls, reference, capabilities) => {
    const conf = `[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "b.example"\npull-from-mirror = "${pulls}"`
    const [mirror] = await hostsFor(reference, {'registries.conf': conf})
    expect(mirror!.host.capabilities).toEqual(capabilities)
  })

  test('resolves no tags with mirrors of a registry that has them for digests only', async () => {
    const conf =
      '[[registry]]\nlocation = "a.example"\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = "b.example"'
    const [mirror] = await hostsFor('a.example/app', {'registries.conf': conf})
    expect(mirror!.host.capabilities).toEqual(['pull'])
  })

  test('is refused where its registry is blocked', async () => {
    const conf = '[[registry]]\nlocation = "a.example"\nblocked = true'
    await expect(urlsFor('a.example/app', conf)).rejects.toMatchObject({
      code: 'permission-denied',
      message: expect.stringMatching(/a\.example: .*registries\.conf blocks it/),
    })
    expect(await urlsFor('b.example/app', conf)).toHaveLength(1)
  })
})

test('files of a directory take the place of what the main file says of the same prefix', async () => {
  const hosts = await hostsFor('a.example/app', {
    'registries.conf': '[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "main.example"',
    'registries.conf.d/10-first.conf': '[[registry]]\nprefix = "a.example"\nlocation = "first.example"',
    'registries.conf.d/20-second.conf': '[[registry]]\nprefix = "a.example"\nlocation = "second.example"',
    'registries.conf.d/30-other.txt': 'this is not read',
  })
  expect(hosts.map(({host}) => host.url.host)).toEqual(['second.example'])
})

test('hosts are trusted by what lies in their directory of certificates, wherever they stand', async () => {
  const pem = (name: string) => `-----BEGIN CERTIFICATE-----\n${name}\n-----END CERTIFICATE-----\n`
  const hosts = await hostsFor('a.example/app', {
    'registries.conf':
      '[[registry]]\nlocation = "a.example"\n[[registry.mirror]]\nlocation = "localhost:5000"',
    'certs.d/localhost:5000/ca.crt': pem('mirror'),
    'certs.d/a.example/ca.crt': pem('origin'),
    'certs.d/a.example/client.cert': pem('client'),
    'certs.d/a.example/client.key': pem('key'),
  })
  expect(hosts.map(({host}) => [host.url.href, host.tls.ca, host.tls.clients])).toEqual([
    ['https://localhost:5000/', [pem('mirror')], []],
    ['https://a.example/', [pem('origin')], [{cert: pem('client'), key: pem('key')}]],
  ])
})

test('what a hosts directory says counts before registries.conf', async () => {
  const hostsDir = await temporaryDirectory()
  await mkdir(join(hostsDir, 'a.example'))
  await writeFile(join(hostsDir, 'a.example/hosts.toml'), '[host."https://toml.example"]\n')
  const registriesConf = await filesOf({
    'registries.conf':
      '[[registry]]\nprefix = "a.example"\nlocation = "conf.example"\n[[registry]]\nprefix = "b.example"\nlocation = "conf.example"',
  })
  const hosts = async (text: string) =>
    (await findHosts(parseReference(text), {hostsDir, registriesConf}, {})).map(({url}) => url.host)
  expect(await hosts('a.example/app')).toEqual(['toml.example', 'a.example'])
  expect(await hosts('b.example/app')).toEqual(['conf.example'])
})

test.each([
  ['no TOML', 'registry = [', /Cannot parse .*registries\.conf/],
  ['no tables', 'registry = "a.example"', /"registry" is no array of tables/],
  ['neither prefix nor location', '[[registry]]\ninsecure = true', /neither prefix nor location/],
  ['no location', '[[registry]]\nprefix = "a.example"', /"a\.example" has no location/],
  [
    'a mirror without one',
    '[[registry]]\nlocation = "a"\n[[registry.mirror]]\ninsecure = true',
    /no location/,
  ],
  ['a URL', '[[registry]]\nlocation = "https://a.example"', /must be host/],
  ['a number', '[[registry]]\nlocation = 5', /"registry\.location" is no string/],
  ['text for a flag', '[[registry]]\nlocation = "a"\nblocked = "no"', /neither true nor false/],
  [
    'an unknown pull',
    '[[registry]]\nlocation = "a"\n[[registry.mirror]]\nlocation = "b"\npull-from-mirror = "x"',
    /pull-from-mirror/,
  ],
])('%s is an error that names the file', async (_, conf, message) => {
  await expect(urlsFor('a.example/app', conf)).rejects.toMatchObject({
    code: 'invalid-argument',
    message: expect.stringMatching(message),
  })
})

test('the files are those that Podman reads', () => {
  expect(findRegistriesConf({})).toEqual({
    main: ['/etc/containers/registries.conf'],
    dropIns: ['/etc/containers/registries.conf.d'],
    certificates: ['/etc/containers/certs.d', '/etc/docker/certs.d'],
  })
  const own = '/of/somebody/.config/containers'
  expect(findRegistriesConf({HOME: '/of/somebody'})).toEqual({
    main: [`${own}/registries.conf`, '/etc/containers/registries.conf'],
    dropIns: ['/etc/containers/registries.conf.d', `${own}/registries.conf.d`],
    certificates: [`${own}/certs.d`, '/etc/containers/certs.d', '/etc/docker/certs.d'],
  })
  expect(findRegistriesConf({HOME: '/of/somebody', CONTAINERS_REGISTRIES_CONF: '/x.conf'}).main).toEqual([
    '/x.conf',
  ])
})
