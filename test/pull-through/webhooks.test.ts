// What registries say was pushed is converted before anybody pulls it, and copied to where copies go.

import {mkdir, writeFile} from 'node:fs/promises'
import {createServer} from 'node:http'
import type {AddressInfo} from 'node:net'
import {join} from 'node:path'
import {gunzipSync} from 'node:zlib'
import {describe, expect, it, vi} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {tocDigestOf} from '../../src/lib/oci/annotations.ts'
import type {ImageManifest} from '../../src/lib/oci/manifest.ts'
import type {CopyEvent} from '../../src/lib/pull-through/copies.ts'
import {parseNotification} from '../../src/lib/pull-through/webhooks.ts'
import {createRegistryImageSource, createRegistryImageTarget} from '../../src/lib/registry/image.ts'
import {send} from '../registry-server/support.ts'
import {createUser} from '../support/ctr-remote.ts'
import {startDockerRegistry} from '../support/docker-registry.ts'
import type {FaultyRegistry} from '../support/faulty-registry.ts'
import {PATIENTLY} from '../support/patience.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeSampleImage} from '../support/sample-image.ts'
import {
  ACCEPT,
  addSampleImage,
  addSampleIndex,
  indexOf,
  manifestOf,
  type Stage,
  startStage,
  startUpstream,
} from './support.ts'

const SECRET = {authorization: 'Bearer a secret of both'}
const OWNER = {kind: 'password', username: 'service', password: 'secret'} as const

/** As CNCF Distribution's registry 2.8 sends it. */
function distributionPush(host: string, repository: string, tag: string, digest: string): string {
  const target = {
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    size: 500,
    digest,
    length: 500,
    repository,
    url: `http://${host}/v2/${repository}/manifests/${digest}`,
    tag,
  }
  const blob = {...target, mediaType: 'application/octet-stream', tag: undefined, digest: digestOf('layer')}
  const event = {id: '1', timestamp: '2026-01-01T00:00:00Z', action: 'push', request: {host, method: 'PUT'}}
  return JSON.stringify({
    events: [
      {...event, target: blob},
      {...event, target},
      {...event, action: 'pull', target},
    ],
  })
}

/** As Harbor sends it by its default format. */
function harborPush(host: string, repository: string, tag: string, digest: string): string {
  return JSON.stringify({
    type: 'PUSH_ARTIFACT',
    occur_at: 1_700_000_000,
    operator: 'admin',
    event_data: {
      resources: [{digest, tag, resource_url: `${host}/${repository}:${tag}`}],
      repository: {name: 'app', namespace: 'team', repo_full_name: repository, repo_type: 'private'},
    },
  })
}

describe('a notification', () => {
  const digest = digestOf('manifest')
  const image = {host: 'registry.test', repository: 'team/app', tag: '1', digest}

  it('is read in the formats of Distribution and Harbor', () => {
    const harbor = harborPush('registry.test', 'team/app', '1', digest)
    const {type: _, event_data: data, ...rest} = JSON.parse(harbor)
    const cloudEvent = JSON.stringify({...rest, specversion: '1.0', type: 'harbor.artifact.pushed', data})
    for (const body of [distributionPush('registry.test', 'team/app', '1', digest), harbor, cloudEvent]) {
      expect(parseNotification(Buffer.from(body))).toEqual([image])
    }
  })

  it('of something else is none, and what is no notification is refused', () => {
    for (const body of [
      {events: []},
      {events: [null, {}, {action: 'push'}, {action: 'push', target: {repository: '../x', digest}}]},
      {type: 'DELETE_ARTIFACT', event_data: {}},
      {
        type: 'PUSH_ARTIFACT',
        event_data: {resources: [null, {digest: 'x'}], repository: {repo_full_name: 'a'}},
      },
    ]) {
      expect(parseNotification(Buffer.from(JSON.stringify(body)))).toEqual([])
    }
    for (const body of ['', 'x', '[]', '{}', '{"events":1}']) {
      expect(() => parseNotification(Buffer.from(body))).toThrow('no notification')
    }
  })
})

describe('a webhook', () => {
  async function stageWithHook(): Promise<{upstream: FaultyRegistry; stage: Stage}> {
    const upstream = await startUpstream({auth: {...OWNER, kind: 'bearer'}})
    const stage = await startStage([upstream.host], {
      webhookSecret: 'a secret of both',
      keychain: {find: async host => (host === upstream.host ? OWNER : undefined)},
    })
    return {upstream, stage}
  }

  it.each([distributionPush, harborPush])(
    'has what was pushed converted with our own credentials',
    async payload => {
      const {upstream, stage} = await stageWithHook()
      const {root} = await addSampleImage(upstream, 'team/app', '1')
      const body = payload('another.name.test', 'team/app', '1', root.digest)
      const answer = await stage.send('POST', '/webhook', {headers: SECRET, body})
      expect([answer.status, answer.json()]).toEqual([202, {images: 1}])
      await stage.ended(1)
      const path = '/v2/team/app/manifests/1'
      expect((await stage.send('GET', path, {headers: ACCEPT})).status).toBe(401)
      const authorization = `Basic ${Buffer.from('service:secret').toString('base64')}`
      const pulled = await stage.send('GET', path, {headers: {...ACCEPT, authorization}})
      expect(tocDigestOf(manifestOf(pulled).layers[0]?.annotations)).toBeDefined()
      expect(stage.events.map(({kind}) => kind)).toEqual(['started', 'converted'])
    },
  )

  it('is heard only with the secret, and not at all where there is none', async () => {
    const {upstream, stage} = await stageWithHook()
    const body = distributionPush(upstream.host, 'app', '1', digestOf('manifest'))
    for (const headers of [{}, {authorization: 'Bearer another'}]) {
      expect((await stage.send('POST', '/webhook', {headers, body})).status).toBe(401)
    }
    const big = await stage.send('POST', '/webhook', {headers: SECRET, body: ' '.repeat(1024 * 1024 + 1)})
    expect(big.status).toBe(413)
    expect(upstream.requests).toEqual([])
    const deaf = await startStage([upstream.host])
    expect((await deaf.send('POST', '/webhook', {headers: SECRET, body})).status).toBe(404)
  })
})

describe('copies', () => {
  it('go where they are wanted, with the platforms that are converted', async () => {
    const upstream = await startUpstream()
    const other = await startUpstream()
    const {images} = await addSampleIndex(upstream, 'app', 'multi', ['amd64', 'arm64'])
    await addSampleImage(upstream, 'app', '1')
    const copied: CopyEvent[] = []
    const stage = await startStage([`lab=${upstream.host}`], {
      copies: {
        target: async ({upstream: name, reference}, tag) =>
          createRegistryImageTarget(`${other.host}/esgz/${name}/${reference.path}:${tag}`),
        onEvent: event => void copied.push(event),
      },
    })
    for (const tag of ['1', 'multi', '1']) {
      await stage.send('GET', `/v2/lab/app/manifests/${tag}`, {headers: ACCEPT})
    }
    await vi.waitUntil(() => copied.length === 2, PATIENTLY)
    expect(copied.map(({kind, to}) => [kind, to]).sort()).toEqual([
      ['copied', `docker://${other.host}/esgz/lab/app:1`],
      ['copied', `docker://${other.host}/esgz/lab/app:multi`],
    ])
    const single = await stage.send('GET', '/v2/lab/app/manifests/1', {headers: ACCEPT})
    expect(other.manifest('esgz/lab/app', '1')).toEqual(single.body)
    const served = indexOf(await stage.send('GET', '/v2/lab/app/manifests/multi', {headers: ACCEPT}))
    const copy = JSON.parse(String(other.manifest('esgz/lab/app', 'multi')))
    // What is copied of an index with one platform is that platform's manifest, or an index of it.
    const digests = copy.manifests?.map(({digest}: {digest: string}) => digest) ?? [
      digestOf(other.manifest('esgz/lab/app', 'multi')!),
    ]
    expect(digests).toEqual([served.manifests[0]!.digest])
    expect(served.manifests[1]!.digest).toBe(images[1]!.root.digest)
  })

  it('that fail are told, and take nothing from pulls', async () => {
    const upstream = await startUpstream()
    const other = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    other.inject({}, {kind: 'status', status: 403}, 1000)
    const copied: CopyEvent[] = []
    const stage = await startStage([upstream.host], {
      waitMs: 600_000,
      copies: {
        target: async () => createRegistryImageTarget(`${other.host}/app:1`),
        onEvent: event => void copied.push(event),
      },
    })
    const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(answer.status).toBe(200)
    await vi.waitUntil(() => copied.length === 1, PATIENTLY)
    expect(copied[0]?.kind).toBe('copy-failed')
  })
})

describeWith(['docker-registry'], "the program, which a registry of CNCF Distribution's notifies", () => {
  it('converts by a profile what is pushed, and copies it', async () => {
    await using user = await createUser()
    await using target = await startDockerRegistry()
    await using relay = await startRelay()
    const converter = {name: 'converter', url: relay.url, headers: {Authorization: [SECRET.authorization]}}
    await using upstream = await startDockerRegistry({notifications: {endpoints: [converter]}})
    const secret = join(user.home, 'secret')
    await writeFile(secret, 'a secret of both\n')
    const profiles = join(user.home, 'profiles')
    await mkdir(join(profiles, upstream.host), {recursive: true})
    await writeFile(join(profiles, upstream.host, 'app.json'), '{"path":"z.txt"}\n')
    const running = user.start(
      ...['registry', 'serve', '--listen', '127.0.0.1:0', '--upstream', `lab=${upstream.host}`],
      ...['--webhook-secret-file', secret, '--push-to', `${target.host}/esgz`, '--profiles', profiles],
      ...['--platform', 'linux/amd64'],
    )
    relay.to(`${await running.line('stdout', /^http/)}/webhook`)
    await using image = createRegistryImageTarget(`${upstream.host}/app:1`)
    const {root} = await writeSampleImage(image.content, {layers: [{'a.txt': 'a\n', 'z.txt': 'z\n'}]})
    await image.publish(root)
    const line = await running.line('stderr', /^copied /)
    expect(line).toBe(`copied ${upstream.host}/app:1 to docker://${target.host}/esgz/lab/app:1`)
    await using copy = createRegistryImageSource(`${target.host}/esgz/lab/app:1`)
    const manifest = JSON.parse(String(await readBlob(copy.content, await copy.resolve()))) as ImageManifest
    const tar = gunzipSync(await readBlob(copy.content, manifest.layers[0]!))
    expect(tar.subarray(0, 5).toString()).toBe('z.txt')
    running.child.kill('SIGTERM')
    await running.finished
  })
})

interface Relay extends AsyncDisposable {
  readonly url: string
  /** Says where requests go, those that have come before too. */
  to(url: string): void
}

/** Passes notifications on, for a registry that must know where before there is anybody. */
async function startRelay(): Promise<Relay> {
  const {promise: target, resolve: to} = Promise.withResolvers<string>()
  const server = createServer(async (request, response) => {
    const parts: Uint8Array[] = []
    for await (const part of request) parts.push(part as Uint8Array)
    const headers = {authorization: request.headers.authorization ?? ''}
    const {status} = await send(await target, 'POST', {headers, body: Buffer.concat(parts)})
    response.writeHead(status).end()
  })
  await new Promise<void>(resolve => void server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    to,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}
