import {execFile, execFileSync} from 'node:child_process'
import {connect} from 'node:net'
import {join} from 'node:path'
import {text} from 'node:stream/consumers'
import {promisify} from 'node:util'
import {describe, expect, it, vi} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {copyImage} from '../../src/lib/copy/copy-image.ts'
import {createLayoutSource, createLayoutTarget} from '../../src/lib/layout/oci-directory.ts'
import {serveRegistry} from '../../src/lib/registry-server/serve-registry.ts'
import {PATIENTLY} from '../support/patience.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeBlob, writeSampleImage, writeSampleIndex} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {startRegistry} from './support.ts'

const run = promisify(execFile)

describe('a registry', () => {
  it('says that it is one', async () => {
    const registry = await startRegistry()
    expect(await registry.send('GET', '/v2/')).toMatchObject({status: 200})
    expect(registry.address).toBe(`127.0.0.1:${registry.port}`)
  })

  it('refuses what is no part of the API', async () => {
    const registry = await startRegistry()
    const check = async (method: string, path: string, status: number) =>
      expect(await registry.send(method, path), `${method} ${path}`).toMatchObject({status})
    await check('GET', '/', 404)
    await check('GET', '/v1/', 404)
    await check('GET', '/v2/UPPER/tags/list', 400)
    await check('GET', '/v2/a/../b/tags/list', 404)
    await check('GET', '/v2/a%2f..%2fb/tags/list', 400)
    await check('GET', '/v2/%zz/tags/list', 404)
    await check('GET', `/v2/${'a'.repeat(300)}/tags/list`, 400)
    await check('GET', `/v2/${'a/'.repeat(2000)}tags/list`, 404)
    await check('POST', '/v2/', 405)
    await check('DELETE', `/v2/app/blobs/${digestOf('x')}`, 405)
  })

  it('logs every request with its range and bytes', async () => {
    const registry = await startRegistry()
    const blob = await writeBlob(registry.store.content, Buffer.from('0123456789'))
    await registry.send('GET', `/v2/app/blobs/${blob.digest}?x=1`, {headers: {range: 'bytes=2-4'}})
    await registry.send('POST', `/v2/app/blobs/uploads/?digest=${digestOf('abc')}`, {body: 'abc'})
    await vi.waitUntil(() => registry.log.length === 2, PATIENTLY)
    expect(registry.log).toMatchObject([
      {
        method: 'GET',
        path: `/v2/app/blobs/${blob.digest}?x=1`,
        range: 'bytes=2-4',
        status: 206,
        sentBytes: 3,
      },
      {method: 'POST', status: 201, receivedBytes: 3, remote: '127.0.0.1'},
    ])
  })

  it('that is read-only refuses writes', async () => {
    const registry = await startRegistry({readOnly: true})
    const answer = await registry.send('POST', '/v2/app/blobs/uploads/')
    expect(answer).toMatchObject({status: 405, headers: {allow: ''}})
    expect(await registry.send('DELETE', '/v2/app/manifests/v1')).toMatchObject({status: 405})
    expect(await registry.send('GET', '/v2/app/manifests/v1')).toMatchObject({status: 404})
  })

  it('with credentials wants them for everything', async () => {
    const registry = await startRegistry({credentials: {username: 'me', password: 'a:b'}})
    const basic = (pair: string) => ({authorization: `Basic ${Buffer.from(pair).toString('base64')}`})
    const denied = await registry.send('GET', '/v2/')
    expect(denied).toMatchObject({status: 401})
    expect(denied.headers['www-authenticate']).toMatch(/^Basic realm=/)
    expect(await registry.send('GET', '/v2/', {headers: basic('me:wrong')})).toMatchObject({status: 401})
    expect(await registry.send('GET', '/v2/', {headers: basic('me:a:b')})).toMatchObject({status: 200})
  })

  it('cannot have an address that is taken', async () => {
    const registry = await startRegistry()
    const second = serveRegistry(registry.store, {port: registry.port})
    await expect(second).rejects.toMatchObject({code: 'failed-precondition'})
  })

  it('closes when its signal is aborted, and leaves no upload behind', async () => {
    const abort = new AbortController()
    const registry = await startRegistry({signal: abort.signal})
    await registry.send('POST', '/v2/app/blobs/uploads/')
    abort.abort()
    await registry[Symbol.asyncDispose]()
    await expect(registry.send('GET', '/v2/')).rejects.toMatchObject({code: 'ECONNREFUSED'})
    expect(await registry.store.collectGarbage()).toBe(0)
    const {stdout} = await run('find', [join(registry.store.name, '.ctr-remote'), '-type', 'f'])
    expect(stdout.trim()).toBe(join(registry.store.name, '.ctr-remote/lock'))
  })

  it('survives a client that speaks no HTTP', async () => {
    const registry = await startRegistry()
    const socket = connect(registry.port, '127.0.0.1')
    socket.end('\0\0garbage\r\n\r\n')
    expect(await text(socket)).toMatch(/^HTTP\/1.1 400/)
    expect(await registry.send('GET', '/v2/')).toMatchObject({status: 200})
  })
})

describeWith(['skopeo'], 'the registry and skopeo', () => {
  it('copy images to and from each other, of one platform and of all', async () => {
    const registry = await startRegistry()
    const directory = await temporaryDirectory()
    await using target = await createLayoutTarget({path: join(directory, 'in'), tag: 'v1'})
    const {root, images} = await writeSampleIndex(target.content, ['amd64', 'arm64'])
    await target.publish(root)
    // skopeo 1.9 cannot name an index of a layout: it is pushed by us, and read by skopeo.
    for (const image of images) {
      for (const blob of [image.config, ...image.layers, image.root]) {
        await writeBlob(registry.store.content, await readBlob(target.content, blob))
      }
    }
    await writeBlob(registry.store.content, await readBlob(target.content, root))
    await registry.store.images.put('localhost/multi:1', root)
    const from = `docker://${registry.address}/multi:1`
    const to = `docker://${registry.address}/copy:1`
    await run('skopeo', ['copy', '--all', '--src-tls-verify=false', '--dest-tls-verify=false', from, to])
    expect((await registry.store.images.get('localhost/copy:1'))?.target.digest).toBe(root.digest)
    await run('skopeo', ['copy', '--src-tls-verify=false', to, `oci:${directory}/out:v1`])
    await using out = createLayoutSource({path: join(directory, 'out'), tag: 'v1'})
    expect(images.map(image => image.root.digest)).toContain((await out.resolve()).digest)
    await run('skopeo', ['delete', '--tls-verify=false', to])
    expect(await registry.store.images.get('localhost/copy:1')).toBeUndefined()
  })

  it('push and pull with credentials', async () => {
    const registry = await startRegistry({credentials: {username: 'me', password: 'secret'}})
    const directory = await temporaryDirectory()
    await using target = await createLayoutTarget({path: directory, tag: 'v1'})
    const {root} = await writeSampleImage(target.content)
    await target.publish(root)
    const to = `docker://${registry.address}/app:1`
    const push = ['copy', '--dest-tls-verify=false', `oci:${directory}:v1`, to]
    await expect(run('skopeo', push)).rejects.toThrow(/authentication required|unauthorized/i)
    await run('skopeo', [...push, '--dest-creds', 'me:secret'])
    expect((await registry.store.images.get('localhost/app:1'))?.target.digest).toBe(root.digest)
  })

  it('serve what other tools wrote into the store', async () => {
    const registry = await startRegistry()
    const directory = await temporaryDirectory()
    await using target = await createLayoutTarget({path: directory, tag: 'v1'})
    await target.publish((await writeSampleImage(target.content)).root)
    execFileSync('skopeo', [
      'copy',
      `oci:${directory}:v1`,
      `oci:${registry.store.name}:docker.io/library/app:1`,
    ])
    const {stdout} = await run('skopeo', [
      'list-tags',
      '--tls-verify=false',
      `docker://${registry.address}/app`,
    ])
    expect(JSON.parse(stdout).Tags).toEqual(['1'])
    await using source = createLayoutSource({path: directory})
    await using other = await createLayoutTarget({path: await temporaryDirectory(), tag: 'x'})
    await copyImage(source, other, {platforms: 'all', index: 'sparse'})
  })
})

describeWith(['root', 'podman'], 'the registry and podman', () => {
  it('podman pulls an image and pushes it back', async () => {
    const registry = await startRegistry()
    const directory = await temporaryDirectory()
    const {root} = await writeSampleImage(registry.store.content)
    await registry.store.images.put('localhost/app:1', root)
    const podman = (...args: string[]) =>
      run('podman', [
        '--root',
        join(directory, 'root'),
        '--runroot',
        join(directory, 'run'),
        '--storage-driver',
        'vfs',
        ...args,
      ])
    await podman('pull', '--tls-verify=false', `${registry.address}/app:1`)
    await podman('push', '--tls-verify=false', `${registry.address}/app:1`, `${registry.address}/back:1`)
    expect(await registry.store.images.get('localhost/back:1')).toBeDefined()
  })
})
