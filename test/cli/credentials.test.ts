// Credentials on the command line go to the registry that they are for, and to no other.

import {gzipSync} from 'node:zlib'
import {expect, onTestFinished, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {createUser, type Finished} from '../support/ctr-remote.ts'
import {type FaultyRegistry, startFaultyRegistry} from '../support/faulty-registry.ts'
import {tarOf} from '../support/sample-image.ts'

/** A registry with `app:1`, for `user` with the password `user`. */
async function startPrivateRegistry(user: string): Promise<FaultyRegistry> {
  const registry = await startFaultyRegistry({auth: {kind: 'basic', username: user, password: user}})
  onTestFinished(() => registry[Symbol.asyncDispose]())
  const tar = tarOf({a: 'a'})
  const layers = [registry.addBlob('app', gzipSync(tar), OCI_LAYER_GZIP)]
  const rootfs = {type: 'layers', diff_ids: [digestOf(tar)]}
  const config = registry.addBlob('app', encodeJson({os: 'linux', architecture: 'amd64', rootfs}), OCI_CONFIG)
  const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers}
  registry.addManifest('app', '1', manifest)
  return registry
}

async function convert(
  source: FaultyRegistry,
  target: FaultyRegistry,
  ...flags: readonly string[]
): Promise<Finished> {
  await using user = await createUser()
  const places = [`docker://${source.host}/app:1`, `docker://${target.host}/new:1`]
  return await user.run(
    'image',
    'convert',
    '-q',
    '--platform',
    'linux/amd64',
    '--estargz',
    '--oci',
    ...flags,
    ...places,
  )
}

/** Users that a registry was told of. */
const seenUsers = (registry: FaultyRegistry): readonly string[] => [
  ...new Set(
    registry.requests.flatMap(({headers: {authorization}}) =>
      authorization === undefined
        ? []
        : [Buffer.from(authorization.slice('Basic '.length), 'base64').toString()],
    ),
  ),
]

test('two registries are not given the same credentials', async () => {
  const [source, target] = [await startPrivateRegistry('reader'), await startPrivateRegistry('writer')]
  expect(await convert(source, target, '--creds', 'reader:reader')).toMatchObject({
    exitCode: 2,
    stderr: `ctr-remote: Cannot use the same credentials for ${source.host} and ${target.host}: say whose they are with --src-creds or --dest-creds\n`,
  })
  expect(target.requests).toEqual([])
})

test('each of two registries gets its own', async () => {
  const [source, target] = [await startPrivateRegistry('reader'), await startPrivateRegistry('writer')]
  const flags = ['--src-creds', 'reader:reader', '--dest-creds', 'writer:writer']
  expect(await convert(source, target, ...flags)).toMatchObject({exitCode: 0, stderr: ''})
  expect(seenUsers(source)).toEqual(['reader:reader'])
  expect(seenUsers(target)).toEqual(['writer:writer'])
  expect(target.manifest('new', '1')).toBeDefined()
})

test('those of the target alone leave the source anonymous', async () => {
  const [source, target] = [await startPrivateRegistry('reader'), await startPrivateRegistry('writer')]
  const {exitCode, stderr} = await convert(source, target, '--dest-creds', 'writer:writer')
  expect({exitCode, stderr}).toMatchObject({exitCode: 7, stderr: expect.stringMatching(/wants credentials/)})
  expect(seenUsers(source)).toEqual([])
})

test('one registry gets them for both', async () => {
  const registry = await startPrivateRegistry('owner')
  expect(await convert(registry, registry, '--creds', 'owner:owner')).toMatchObject({exitCode: 0, stderr: ''})
  expect(registry.manifest('new', '1')).toBeDefined()
})
