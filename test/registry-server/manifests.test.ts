import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {OCI_INDEX, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {readBlob, writeSampleImage, writeSampleIndex} from '../support/sample-image.ts'
import {startRegistry, type TestRegistry} from './support.ts'

async function push(registry: TestRegistry, path: string, layers?: readonly Record<string, string>[]) {
  const image = await writeSampleImage(registry.store.content, layers ? {layers} : {})
  const body = await readBlob(registry.store.content, image.root)
  const answer = await registry.send('PUT', path, {headers: {'content-type': OCI_MANIFEST}, body})
  return {...image, answer, body}
}

const codeOf = (answer: {json(): {errors?: readonly {code: string}[]}}) => answer.json().errors?.[0]?.code

describe('a manifest', () => {
  it('is an image of the store once it is pushed', async () => {
    const registry = await startRegistry()
    const {root, answer, body} = await push(registry, '/v2/team/app/manifests/v1')
    expect(answer).toMatchObject({
      status: 201,
      headers: {location: `/v2/team/app/manifests/${root.digest}`, 'docker-content-digest': root.digest},
    })
    expect((await registry.store.images.get('localhost/team/app:v1'))?.target).toEqual(root)
    for (const reference of ['v1', root.digest]) {
      const got = await registry.send('GET', `/v2/team/app/manifests/${reference}`)
      expect(got).toMatchObject({status: 200, body})
      expect(got.headers).toMatchObject({'content-type': OCI_MANIFEST, 'docker-content-digest': root.digest})
      const head = await registry.send('HEAD', `/v2/team/app/manifests/${reference}`)
      expect(head).toMatchObject({status: 200, headers: {'content-length': String(root.size)}})
    }
  })

  it('keeps a full name that the repository spells out', async () => {
    const registry = await startRegistry()
    await push(registry, '/v2/docker.io/library/app/manifests/v1')
    expect(await registry.store.images.get('docker.io/library/app:v1')).toBeDefined()
    expect(await registry.send('GET', '/v2/app/manifests/v1')).toMatchObject({status: 200})
  })

  it('is found by the names that clients use for images of the store', async () => {
    const registry = await startRegistry()
    const {root} = await writeSampleImage(registry.store.content)
    const check = async (name: string, path: string) => {
      await registry.store.images.put(name, root)
      expect(await registry.send('GET', path), `${name} by ${path}`).toMatchObject({status: 200})
      await registry.store.images.remove(name)
      expect(await registry.send('GET', path)).toMatchObject({status: 404})
    }
    await check(`${registry.address}/app:1`, '/v2/app/manifests/1')
    await check('docker.io/library/redis:7', '/v2/redis/manifests/7')
    await check('docker.io/library/redis:7', '/v2/library/redis/manifests/7')
    await check('docker.io/bitnami/redis:7', '/v2/bitnami/redis/manifests/7')
    await check('ghcr.io/o/app:1', '/v2/ghcr.io/o/app/manifests/1')
    await check('ghcr.io/o/app:1', '/v2/o/app/manifests/1?ns=ghcr.io')
  })

  it('pushed by digest stays, until a tag keeps it', async () => {
    const registry = await startRegistry()
    const {root, images} = await writeSampleIndex(registry.store.content, ['amd64', 'arm64'])
    for (const image of images) {
      const body = await readBlob(registry.store.content, image.root)
      const path = `/v2/app/manifests/${image.root.digest}`
      expect(await registry.send('PUT', path, {body})).toMatchObject({status: 201})
    }
    expect(await registry.store.images.list()).toHaveLength(2)
    const body = await readBlob(registry.store.content, root)
    const headers = {'content-type': OCI_INDEX}
    expect(await registry.send('PUT', '/v2/app/manifests/v1', {headers, body})).toMatchObject({status: 201})
    expect((await registry.store.images.list()).map(image => image.name)).toEqual(['localhost/app:v1'])
  })

  it('whose parts are not here is MANIFEST_BLOB_UNKNOWN', async () => {
    const registry = await startRegistry()
    const elsewhere = await startRegistry()
    const {root} = await writeSampleImage(elsewhere.store.content)
    const body = await readBlob(elsewhere.store.content, root)
    const answer = await registry.send('PUT', '/v2/app/manifests/v1', {
      headers: {'content-type': OCI_MANIFEST},
      body,
    })
    expect(answer.status).toBe(404)
    expect(codeOf(answer)).toBe('MANIFEST_BLOB_UNKNOWN')
    expect(await registry.store.images.list()).toEqual([])
  })

  it('that lies about the size of a part is MANIFEST_BLOB_UNKNOWN', async () => {
    const registry = await startRegistry()
    const {config, layers} = await writeSampleImage(registry.store.content)
    const manifest = {schemaVersion: 2, mediaType: OCI_MANIFEST, config: {...config, size: 1}, layers}
    const answer = await registry.send('PUT', '/v2/app/manifests/v1', {body: encodeJson(manifest)})
    expect(codeOf(answer)).toBe('MANIFEST_BLOB_UNKNOWN')
  })

  const refused = (
    name: string,
    reference: string,
    body: Uint8Array | string,
    code: string,
    type = OCI_MANIFEST,
  ) =>
    it(`${name} is ${code}`, async () => {
      const registry = await startRegistry()
      const answer = await registry.send('PUT', `/v2/app/manifests/${reference}`, {
        headers: {'content-type': type},
        body,
      })
      expect(codeOf(answer)).toBe(code)
      expect(await registry.store.images.list()).toEqual([])
    })

  refused('that is no JSON', 'v1', 'x', 'MANIFEST_INVALID')
  refused('that is both kinds', 'v1', '{"schemaVersion":2,"manifests":[],"layers":[]}', 'MANIFEST_INVALID')
  refused('of schema 1', 'v1', '{"schemaVersion":1}', 'MANIFEST_INVALID')
  refused('of another type', 'v1', '{}', 'MANIFEST_INVALID', 'text/html')
  refused('whose digest is another', digestOf('x'), '{}', 'DIGEST_INVALID')
  refused('under a bad tag', '.bad', '{}', 'TAG_INVALID')
  refused('under a long tag', 'x'.repeat(129), '{}', 'TAG_INVALID')
  refused('that is too large', 'v1', Buffer.alloc(8 * 1024 * 1024 + 1, ' '), 'SIZE_INVALID')

  it('is never a blob that is none', async () => {
    const registry = await startRegistry()
    const {layers, config} = await writeSampleImage(registry.store.content)
    for (const {digest} of [...layers, config]) {
      const answer = await registry.send('GET', `/v2/app/manifests/${digest}`)
      expect(codeOf(answer)).toBe('MANIFEST_UNKNOWN')
    }
  })

  it('can be deleted by tag, and by digest with all its tags', async () => {
    const registry = await startRegistry()
    const {root} = await push(registry, '/v2/app/manifests/v1')
    await push(registry, '/v2/app/manifests/v2')
    await push(registry, '/v2/app/manifests/v3')
    const names = async () => (await registry.store.images.list()).map(image => image.name)
    expect(await registry.send('DELETE', '/v2/app/manifests/v1')).toMatchObject({status: 202})
    expect(await names()).toEqual(['localhost/app:v2', 'localhost/app:v3'])
    expect(await registry.send('DELETE', `/v2/app/manifests/${root.digest}`)).toMatchObject({status: 202})
    expect(await names()).toEqual([])
    expect(await registry.send('DELETE', '/v2/app/manifests/v2')).toMatchObject({status: 404})
  })
})

describe('lists', () => {
  it('of tags and repositories come in pages', async () => {
    const registry = await startRegistry()
    for (const tag of ['c', 'a', 'b']) await push(registry, `/v2/app/manifests/${tag}`)
    await push(registry, '/v2/ghcr.io/o/other/manifests/1')
    const all = await registry.send('GET', '/v2/app/tags/list')
    expect(all.json()).toEqual({name: 'app', tags: ['a', 'b', 'c']})
    const first = await registry.send('GET', '/v2/app/tags/list?n=2')
    expect(first.json()).toEqual({name: 'app', tags: ['a', 'b']})
    const next = /<([^>]*)>; rel="next"/.exec(String(first.headers.link))![1]!
    const last = await registry.send('GET', next)
    expect(last.json()).toEqual({name: 'app', tags: ['c']})
    expect(last.headers.link).toBeUndefined()
    expect((await registry.send('GET', '/v2/_catalog')).json()).toEqual({
      repositories: ['app', 'ghcr.io/o/other'],
    })
    expect((await registry.send('GET', '/v2/_catalog?n=0')).json()).toEqual({repositories: []})
    expect(await registry.send('GET', '/v2/_catalog?n=-1')).toMatchObject({status: 400})
    expect(await registry.send('GET', '/v2/none/tags/list')).toMatchObject({status: 404})
  })

  it('of referrers have what was pushed about a manifest, of one type or of all, until it is deleted', async () => {
    const registry = await startRegistry()
    const {root, config} = await push(registry, '/v2/app/manifests/1')
    const path = `/v2/app/referrers/${root.digest}`
    const empty = await registry.send('GET', path)
    expect(empty.headers['content-type']).toBe(OCI_INDEX)
    expect(empty.json()).toEqual({schemaVersion: 2, mediaType: OCI_INDEX, manifests: []})
    const refer = async (more: object) => {
      const body = encodeJson({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        config,
        layers: [],
        subject: root,
        ...more,
      })
      const headers = {'content-type': OCI_MANIFEST}
      const answer = await registry.send('PUT', `/v2/app/manifests/${digestOf(body)}`, {headers, body})
      expect(answer).toMatchObject({status: 201, headers: {'oci-subject': root.digest}})
      return {mediaType: OCI_MANIFEST, digest: digestOf(body), size: body.length}
    }
    // All at once: none is lost.
    const [typed, plain, other] = await Promise.all([
      refer({artifactType: 'text/a', annotations: {key: 'value'}}),
      refer({}),
      refer({artifactType: 'text/b'}),
    ])
    const listed = async (query = '') => (await registry.send('GET', path + query)).json().manifests
    expect(await listed()).toEqual(
      expect.arrayContaining([
        {...typed, artifactType: 'text/a', annotations: {key: 'value'}},
        {...plain, artifactType: config.mediaType},
        {...other, artifactType: 'text/b'},
      ]),
    )
    const filtered = await registry.send('GET', `${path}?artifactType=text/a`)
    expect(filtered.headers['oci-filters-applied']).toBe('artifactType')
    expect(filtered.json().manifests).toMatchObject([typed])
    await refer({artifactType: 'text/b'})
    expect(await listed()).toHaveLength(3)
    expect(await registry.send('DELETE', `/v2/app/manifests/${other.digest}`)).toMatchObject({status: 202})
    expect(await listed()).toHaveLength(2)
    expect(await registry.send('GET', `/v2/other/referrers/${root.digest}`)).toMatchObject({status: 200})
  })

  it('of referrers have none for a manifest whose subject is none', async () => {
    const registry = await startRegistry()
    const {config} = await push(registry, '/v2/app/manifests/1')
    const body = encodeJson({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      config,
      layers: [],
      subject: {digest: 'x'},
    })
    const answer = await registry.send('PUT', '/v2/app/manifests/2', {
      headers: {'content-type': OCI_MANIFEST},
      body,
    })
    expect(answer.status).toBe(400)
    expect(codeOf(answer)).toBe('MANIFEST_INVALID')
  })
})
