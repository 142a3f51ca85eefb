import {describe, expect, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {MAX_MANIFEST_SIZE} from '../../src/lib/oci/manifest.ts'
import {
  DOCKER_CONFIG,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../src/lib/oci/media-type.ts'
import {createRegistryImageSource, createRegistryImageTarget} from '../../src/lib/registry/image.ts'
import type {Fault} from '../support/faulty-registry.ts'
import {FAST_RETRY, openClient, readAll, startRegistry} from './registry-scene.ts'

const CONFIG = {mediaType: OCI_CONFIG, digest: digestOf('{}'), size: 2}
const MANIFEST = {schemaVersion: 2, mediaType: OCI_MANIFEST, config: CONFIG, layers: []}
const MANIFESTS = {method: 'GET', url: /\/manifests\//}

test.each([
  ['an OCI manifest', MANIFEST],
  [
    'a Docker manifest',
    {...MANIFEST, mediaType: DOCKER_MANIFEST, config: {...CONFIG, mediaType: DOCKER_CONFIG}},
  ],
  ['an OCI index', {schemaVersion: 2, mediaType: OCI_INDEX, manifests: []}],
  ['a Docker manifest list', {schemaVersion: 2, mediaType: DOCKER_LIST, manifests: []}],
])('a tag resolves to %s with one request, which also serves its bytes', async (_, document) => {
  const server = await startRegistry()
  const descriptor = server.addManifest('library/app', '1', document)
  await using source = createRegistryImageSource(`${server.host}/library/app:1`)
  expect(await source.resolve()).toEqual(descriptor)
  const blob = await source.content.open(descriptor)
  expect(JSON.parse((await readAll(blob)).toString())).toEqual(document)
  expect(server.requests.map(({method, url}) => `${method} ${url}`)).toEqual([
    'GET /v2/library/app/manifests/1',
  ])
})

test('every kind of manifest is asked for', async () => {
  const server = await startRegistry()
  server.addManifest('app', 'latest', MANIFEST)
  await using source = createRegistryImageSource(`${server.host}/app`)
  await source.resolve()
  const accept = server.requests[0]?.headers.accept ?? ''
  for (const mediaType of [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]) {
    expect(accept).toContain(mediaType)
  }
})

test('a media type that the registry gets wrong is taken from the manifest', async () => {
  const server = await startRegistry()
  const {digest} = server.addManifest('app', '1', MANIFEST)
  server.inject(MANIFESTS, {kind: 'headers', headers: {'content-type': 'text/plain; charset=utf-8'}})
  await using source = createRegistryImageSource(`${server.host}/app:1`)
  expect(await source.resolve()).toMatchObject({mediaType: OCI_MANIFEST, digest})
})

async function resolveWith(fault: Fault, options: {times?: number; suffix?: string} = {}) {
  const server = await startRegistry()
  const {digest} = server.addManifest('app', '1', MANIFEST)
  server.inject(MANIFESTS, fault, options.times ?? Number.POSITIVE_INFINITY)
  const client = openClient()
  const suffix = options.suffix === 'digest' ? `@${digest}` : ':1'
  const source = createRegistryImageSource(`${server.host}/app${suffix}`, {registry: client})
  return source.resolve()
}

test('a manifest that breaks off is fetched again', async () => {
  const descriptor = await resolveWith({kind: 'drop', afterBytes: 10}, {times: 2})
  expect(descriptor.mediaType).toBe(OCI_MANIFEST)
})

test.each([
  ['has a wrong byte', {kind: 'corrupt'}],
  ['is cut off', {kind: 'truncate', afterBytes: 40}],
  ['has bytes too many', {kind: 'extend', extraBytes: 3}],
  ['comes under another digest', {kind: 'headers', headers: {'docker-content-digest': digestOf('other')}}],
  ['is not JSON', {kind: 'status', status: 200, body: '<html>'}],
  ['is no manifest', {kind: 'status', status: 200, body: '[]'}],
  ['is too large', {kind: 'status', status: 200, body: ' '.repeat(MAX_MANIFEST_SIZE + 1)}],
] as const)('a manifest that %s is refused', async (_, fault) => {
  await expect(resolveWith(fault)).rejects.toMatchObject({code: 'corrupt'})
  await expect(resolveWith(fault, {suffix: 'digest'})).rejects.toMatchObject({code: 'corrupt'})
})

test('a Docker schema 1 manifest is refused with an explanation', async () => {
  const body = JSON.stringify({schemaVersion: 1, name: 'app', fsLayers: []})
  await expect(resolveWith({kind: 'status', status: 200, body})).rejects.toMatchObject({code: 'unsupported'})
})

test('a missing tag is not found', async () => {
  const server = await startRegistry()
  await using source = createRegistryImageSource(`${server.host}/app:2`)
  await expect(source.resolve()).rejects.toMatchObject({code: 'not-found', message: /"2"/})
})

describe('publishing', () => {
  test('a manifest is written under its digest first, and named last', async () => {
    const server = await startRegistry()
    await using target = createRegistryImageTarget(`${server.host}/app:1`, {retry: FAST_RETRY})
    const bytes = Buffer.from(JSON.stringify(MANIFEST))
    const descriptor = {mediaType: OCI_MANIFEST, digest: digestOf(bytes), size: bytes.length}
    await using writer = await target.content.write(descriptor)
    await writer.write(bytes.subarray(0, 10))
    await writer.write(bytes.subarray(10))
    await writer.commit(descriptor)
    expect(server.manifest('app', '1')).toBeUndefined()
    server.inject({method: 'PUT'}, {kind: 'status', status: 500})
    await target.publish(descriptor)
    expect(server.manifest('app', '1')).toEqual(bytes)
    expect(server.requests.at(-1)?.headers['content-type']).toBe(OCI_MANIFEST)
    expect(server.requests.map(({method, url}) => `${method} ${url}`)).toEqual([
      `PUT /v2/app/manifests/${descriptor.digest}`,
      'PUT /v2/app/manifests/1',
      'PUT /v2/app/manifests/1',
    ])
  })

  test('a manifest that is there already is named without being sent by the caller', async () => {
    const server = await startRegistry()
    const descriptor = server.addManifest('app', '1', MANIFEST)
    await using target = createRegistryImageTarget(`${server.host}/app:2`)
    expect(await target.content.info(descriptor)).toMatchObject({digest: descriptor.digest})
    await target.publish(descriptor)
    expect(server.manifest('app', '2')).toEqual(server.manifest('app', '1'))
  })

  test('a manifest that is not what was promised is not sent', async () => {
    const server = await startRegistry()
    await using target = createRegistryImageTarget(`${server.host}/app:1`)
    const descriptor = {mediaType: OCI_MANIFEST, digest: digestOf('x'), size: 1}
    await using writer = await target.content.write(descriptor)
    await writer.write(Buffer.from('y'))
    await expect(writer.commit(descriptor)).rejects.toMatchObject({code: 'corrupt'})
    expect(server.requests).toHaveLength(0)
  })

  test('a reference with a digest is published only when it is that digest', async () => {
    const server = await startRegistry()
    const descriptor = server.addManifest('app', '1', MANIFEST)
    await using target = createRegistryImageTarget(`${server.host}/app@${digestOf('other')}`)
    await expect(target.publish(descriptor)).rejects.toMatchObject({code: 'failed-precondition'})
    await using right = createRegistryImageTarget(`${server.host}/app@${descriptor.digest}`)
    await right.publish(descriptor)
  })

  test('a registry that refuses a manifest is quoted', async () => {
    const server = await startRegistry()
    const descriptor = server.addManifest('app', '1', MANIFEST)
    const body = JSON.stringify({errors: [{code: 'MANIFEST_BLOB_UNKNOWN', message: 'blob unknown'}]})
    server.inject({method: 'PUT'}, {kind: 'status', status: 404, body})
    await using target = createRegistryImageTarget(`${server.host}/app:2`)
    await expect(target.publish(descriptor)).rejects.toMatchObject({
      code: 'failed-precondition',
      message: /MANIFEST_BLOB_UNKNOWN blob unknown/,
    })
  })
})
