import {execFileSync} from 'node:child_process'
import {expect, onTestFinished, test} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {copyImage} from '../../src/lib/copy/copy-image.ts'
import {createRegistryImageSource, createRegistryImageTarget} from '../../src/lib/registry/image.ts'
import type {RegistryOptions} from '../../src/lib/registry/registry.ts'
import {type DockerRegistry, startDockerRegistry} from '../support/docker-registry.ts'
import {describeWith} from '../support/requires.ts'
import {writeSampleImage} from '../support/sample-image.ts'
import {openClient, readAll, sampleBytes} from './registry-scene.ts'

const ALL = {platforms: 'all', index: 'sparse'} as const

async function start(options: Parameters<typeof startDockerRegistry>[0] = {}): Promise<DockerRegistry> {
  const server = await startDockerRegistry(options)
  onTestFinished(() => server[Symbol.asyncDispose]())
  return server
}

describeWith(['docker-registry'], 'against docker-registry', () => {
  test.each(['oci', 'docker'] as const)('an %s image is pushed, pulled and copied', async family => {
    const {host} = await start()
    const requests: string[] = []
    const registry = openClient({onRequest: ({method, url}) => requests.push(`${method} ${url}`)})
    const first = createRegistryImageTarget(`${host}/team/one:1`, {registry})
    const {root, layers} = await writeSampleImage(first.content, {family})
    await first.publish(root)

    const source = createRegistryImageSource(`${host}/team/one:1`, {registry})
    expect(await source.resolve()).toEqual(root)
    const layer = layers[0]!
    expect(digestOf(await readAll(await source.content.open(layer)))).toBe(layer.digest)

    const mountFrom = [`${host}/team/one`]
    const second = createRegistryImageTarget(`${host}/team/two:1`, {registry, mountFrom})
    expect(await copyImage(source, second, ALL)).toMatchObject({root, copiedBytes: 0})
    expect(requests.filter(request => request.includes('mount=')).length).toBeGreaterThan(0)
    const copied = createRegistryImageSource(`${host}/team/two@${root.digest}`, {registry})
    expect(await copied.resolve()).toEqual(root)
  })

  test('a blob is uploaded in chunks, and read by ranges', async () => {
    const {host} = await start()
    const bytes = sampleBytes(250_000)
    const blob = {mediaType: 'application/octet-stream', digest: digestOf(bytes), size: bytes.length}
    const client = openClient({chunkSize: 100_000})
    const {content} = client.repository(`${host}/app`, {access: 'push'})
    {
      await using writer = await content.write(blob)
      await writer.write(bytes)
      await writer.commit(blob)
    }
    const opened = await client.repository(`${host}/app`, {access: 'pull'}).openBlob(blob)
    expect(Buffer.from(await opened.read(99_990, 20))).toEqual(bytes.subarray(99_990, 100_010))
    expect(opened.rangeSupport).toBe('honoured')
  })

  test('what is not there is not found', async () => {
    const {host} = await start()
    await using source = createRegistryImageSource(`${host}/nothing:1`)
    await expect(source.resolve()).rejects.toMatchObject({
      code: 'not-found',
      message: /MANIFEST_UNKNOWN|NAME_UNKNOWN/i,
    })
    const blob = {mediaType: 'x', digest: digestOf('nothing'), size: 7}
    expect(await source.content.info(blob)).toBeUndefined()
    await expect(readAll(await source.content.open(blob))).rejects.toMatchObject({code: 'not-found'})
  })

  test('a manifest whose blobs are missing is refused with the reason', async () => {
    const {host} = await start()
    await using there = createRegistryImageTarget(`${host}/one:1`)
    const {root} = await writeSampleImage(there.content)
    await using source = createRegistryImageSource(`${host}/one@${root.digest}`)
    await using elsewhere = createRegistryImageTarget(`${host}/two:1`)
    const bytes = await readAll(await source.content.open(root))
    await using writer = await elsewhere.content.write(root)
    await writer.write(bytes)
    await expect(writer.commit(root)).rejects.toMatchObject({code: 'failed-precondition'})
  })
})

describeWith(['docker-registry', 'htpasswd'], 'against docker-registry with accounts', () => {
  const htpasswd = () => execFileSync('htpasswd', ['-Bbn', 'user', 'pass:word'], {encoding: 'utf8'})
  const push = async (host: string, options: RegistryOptions) => {
    await using target = createRegistryImageTarget(`${host}/app:1`, {registry: openClient(options)})
    const {root} = await writeSampleImage(target.content)
    await target.publish(root)
  }

  test('the right password is let in, all others are told what to do', async () => {
    const {host} = await start({htpasswd: htpasswd()})
    const credential = {kind: 'password', username: 'user', password: 'pass:word'} as const
    await push(host, {credential})
    await push(host, {keychain: {find: async asked => (asked === host ? credential : undefined)}})
    const refused = {code: 'unauthenticated', message: /docker login/}
    await expect(push(host, {})).rejects.toMatchObject(refused)
    await expect(push(host, {credential: {...credential, password: 'no'}})).rejects.toMatchObject(refused)
  })
})
