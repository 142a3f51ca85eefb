import {chmod, mkdir, utimes, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {expect, test} from 'vitest'
import {authFiles, createDockerKeychain} from '../../src/lib/registry/docker-config.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const base64 = (text: string) => Buffer.from(text).toString('base64')
const entry = (name: string) => ({auth: base64(`${name}:secret-of-${name}`)})

async function keychainOf(config: unknown, helpers: Readonly<Record<string, string>> = {}) {
  const directory = await temporaryDirectory()
  const file = join(directory, 'config.json')
  await writeFile(file, typeof config === 'string' ? config : JSON.stringify(config))
  for (const [name, script] of Object.entries(helpers)) {
    await writeFile(join(directory, `docker-credential-${name}`), `#!/bin/sh\n${script}\n`)
    await chmod(join(directory, `docker-credential-${name}`), 0o755)
  }
  const env = {DOCKER_CONFIG: directory, PATH: `${directory}:/usr/bin:/bin`}
  return {file, keychain: createDockerKeychain({env})}
}

/** The user that is found for `host` and `path`. */
async function userFor(config: unknown, host: string, path = 'team/app'): Promise<string | undefined> {
  const {keychain} = await keychainOf(config)
  const found = await keychain.find(host, path)
  return found?.kind === 'password' ? found.username : found?.kind
}

test.each([
  ['the host', {'ghcr.io': entry('a')}, 'ghcr.io', 'a'],
  ['a host with a port', {'localhost:5000': entry('a')}, 'localhost:5000', 'a'],
  ['a URL', {'https://ghcr.io/v2/': entry('a')}, 'ghcr.io', 'a'],
  ['Docker Hub, as docker login writes it', {'https://index.docker.io/v1/': entry('a')}, 'docker.io', 'a'],
  ['Docker Hub, as podman login writes it', {'docker.io': entry('a')}, 'docker.io', 'a'],
  [
    'the longest namespace',
    {'q.io': entry('a'), 'q.io/team': entry('b'), 'q.io/team/app': entry('c')},
    'q.io',
    'c',
  ],
  ['a namespace, not a prefix of a name', {'q.io': entry('a'), 'q.io/tea': entry('b')}, 'q.io', 'a'],
  ['nothing for another port', {'ghcr.io:443': entry('a')}, 'ghcr.io', undefined],
  ['nothing for another host', {'ghcr.io': entry('a')}, 'ghcr.io.evil.example', undefined],
  ['separate fields', {'ghcr.io': {username: 'a', password: 'p'}}, 'ghcr.io', 'a'],
  ['an identity token', {'ghcr.io': {...entry('a'), identitytoken: 't'}}, 'ghcr.io', 'identity'],
  ['a registry token', {'ghcr.io': {registrytoken: 't'}}, 'ghcr.io', 'bearer'],
  ['nothing for an empty entry', {'ghcr.io': {}}, 'ghcr.io', undefined],
  ['nothing for nonsense', {'ghcr.io': {auth: '%%%'}}, 'ghcr.io', undefined],
])('auths: %s', async (_, auths, host, expected) => {
  expect(await userFor({auths}, host)).toBe(expected)
})

test('a password may hold colons', async () => {
  const {keychain} = await keychainOf({auths: {h: {auth: base64('u:a:b')}}})
  expect(await keychain.find('h', 'x')).toEqual({kind: 'password', username: 'u', password: 'a:b'})
})

test('a missing file is no credential', async () => {
  const keychain = createDockerKeychain({env: {DOCKER_CONFIG: '/nonexistent', HOME: '/nonexistent'}})
  expect(await keychain.find('ghcr.io', 'a')).toBeUndefined()
})

test.each([
  '{"auths": {"h": {"auth": "secret"',
  '[]',
  '{"auths": 1}',
  '{"credsStore": {}}',
  '{"credHelpers": []}',
])('the malformed file %s is named, and not quoted', async text => {
  const {file, keychain} = await keychainOf(text)
  const error = await keychain.find('h', 'x').catch(thrown => thrown)
  expect(error).toMatchObject({code: 'failed-precondition'})
  expect(error.message).toContain(file)
  expect(`${error.message} ${error.cause}`).not.toContain('secret')
})

test('a file is read again when it has changed', async () => {
  const {file, keychain} = await keychainOf({auths: {h: entry('before')}})
  expect(await keychain.find('h', 'x')).toMatchObject({username: 'before'})
  await writeFile(file, JSON.stringify({auths: {h: entry('after')}}))
  await utimes(file, 1, 1)
  expect(await keychain.find('h', 'x')).toMatchObject({username: 'after'})
})

const HELPER =
  'read server; echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"$server\\",\\"Secret\\":\\"s\\"}"'

test('a helper of one host is asked', async () => {
  const {keychain} = await keychainOf({credHelpers: {h: 'one'}}, {one: HELPER})
  expect(await keychain.find('h', 'x')).toEqual({kind: 'password', username: 'h', password: 's'})
  expect(await keychain.find('other', 'x')).toBeUndefined()
})

test('the store is asked for every host, Docker Hub by its old name', async () => {
  const {keychain} = await keychainOf({credsStore: 'all'}, {all: HELPER})
  expect(await keychain.find('docker.io', 'x')).toMatchObject({username: 'https://index.docker.io/v1/'})
})

test('a helper may give an identity token', async () => {
  const script = `cat >/dev/null; echo '{"ServerURL":"h","Username":"<token>","Secret":"t"}'`
  const {keychain} = await keychainOf({credsStore: 'all'}, {all: script})
  expect(await keychain.find('h', 'x')).toEqual({kind: 'identity', token: 't'})
})

test('a helper that has nothing leaves it to the file', async () => {
  const script = 'cat >/dev/null; echo "credentials not found in native keychain"; exit 1'
  const {keychain} = await keychainOf({credsStore: 'none', auths: {h: entry('a')}}, {none: script})
  expect(await keychain.find('h', 'x')).toMatchObject({username: 'a'})
})

test.each([
  ['is not installed', 'missing', /not installed/],
  ['fails', 'fails', /exit code 3/],
  ['speaks nonsense', 'babbles', /not the expected JSON/],
  ['has the name of a path', '../evil', /no valid name/],
])('a helper that %s is an error without secrets', async (_, name, message) => {
  const helpers = {fails: 'echo secret; exit 3', babbles: 'cat >/dev/null; echo secret'}
  const {keychain} = await keychainOf({credsStore: name}, helpers)
  const error = await keychain.find('h', 'x').catch(thrown => thrown)
  expect(error).toMatchObject({code: 'failed-precondition'})
  expect(error.message).toMatch(message)
  expect(error.message).not.toContain('secret')
})

test("podman's files are looked at after Docker's", async () => {
  const home = await temporaryDirectory()
  await mkdir(join(home, 'containers'))
  await writeFile(join(home, 'containers', 'auth.json'), JSON.stringify({auths: {h: entry('podman')}}))
  const keychain = createDockerKeychain({env: {HOME: home, XDG_RUNTIME_DIR: home}})
  expect(await keychain.find('h', 'x')).toMatchObject({username: 'podman'})
})

test('the places that are looked at are those of docker and podman', () => {
  expect(authFiles({env: {HOME: '/me'}, uid: 1000})).toEqual([
    '/me/.docker/config.json',
    '/run/containers/1000/auth.json',
    '/me/.config/containers/auth.json',
  ])
  expect(
    authFiles({
      env: {DOCKER_CONFIG: '/d', REGISTRY_AUTH_FILE: '/r', XDG_RUNTIME_DIR: '/x', XDG_CONFIG_HOME: '/c'},
    }),
  ).toEqual(['/d/config.json', '/r', '/x/containers/auth.json', '/c/containers/auth.json'])
  expect(authFiles({env: {}})).toEqual([])
})
