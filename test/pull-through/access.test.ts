// Who may pull what through a converting registry: whoever may pull it from its own, now, with credentials of his own.

import {describe, expect, it} from 'vitest'
import {ClientTokens} from '../../src/lib/pull-through/client.ts'
import type {Answer} from '../registry-server/support.ts'
import type {FaultyRegistry, RegistryAuth} from '../support/faulty-registry.ts'
import {ACCEPT, addSampleImage, basic, manifestOf, type Stage, startStage, startUpstream} from './support.ts'

const OWNER = {username: 'owner', password: 'right:secret'}
const OWN = basic(OWNER.username, OWNER.password)

/** A token for what is shown to the token server, as clients get it: by the challenge. */
async function tokenFor(stage: Stage, shown: Readonly<Record<string, string>>): Promise<string> {
  const challenged = await stage.send('GET', '/v2/')
  expect(challenged.status).toBe(401)
  const realm = /^Bearer realm="([^"]+)"/.exec(String(challenged.headers['www-authenticate']))?.[1] ?? ''
  const url = new URL(realm)
  const answer = await stage.send('GET', `${url.pathname}?scope=repository:app:pull&service=x`, {
    headers: shown,
  })
  expect([url.origin, answer.status]).toEqual([stage.url, 200])
  return String(answer.json().token)
}

function bearer(token: string): {readonly authorization: string} {
  return {authorization: `Bearer ${token}`}
}

describe.each<RegistryAuth>([
  {kind: 'bearer', ...OWNER},
  {kind: 'basic', ...OWNER},
])('an upstream that wants credentials, by $kind', auth => {
  async function privateStage(): Promise<{upstream: FaultyRegistry; stage: Stage; converted: Answer}> {
    const upstream = await startUpstream({auth})
    await addSampleImage(upstream, 'app', '1')
    const stage = await startStage([upstream.host], {waitMs: 600_000, accessMs: 0})
    const headers = {...ACCEPT, ...bearer(await tokenFor(stage, OWN))}
    const converted = await stage.send('GET', '/v2/app/manifests/1', {headers})
    expect([converted.status, stage.events.map(({kind}) => kind)]).toEqual([200, ['started', 'converted']])
    return {upstream, stage, converted}
  }

  it('gets those of each client, whether they come by a token or at once', async () => {
    const {upstream, stage, converted} = await privateStage()
    const again = await stage.send('GET', '/v2/app/manifests/1', {headers: {...ACCEPT, ...OWN}})
    expect(again.body).toEqual(converted.body)
    const shown = upstream.requests.map(({headers}) => headers.authorization ?? '')
    expect(shown.filter(header => header.startsWith('Basic') && header !== OWN.authorization)).toEqual([])
  })

  it('lets nobody else have what was converted for its owner', async () => {
    const {stage, converted} = await privateStage()
    const {config, layers} = manifestOf(converted)
    const digests = [config, ...layers].map(({digest}) => `blobs/${digest}`)
    const paths = ['manifests/1', `manifests/${converted.headers['docker-content-digest']}`, ...digests]
    const strangers = [
      {},
      basic('owner', 'wrong'),
      bearer(await tokenFor(stage, {})),
      bearer(await tokenFor(stage, basic('stranger', 'right:secret'))),
    ]
    for (const path of paths) {
      for (const headers of strangers) {
        const answer = await stage.send('GET', `/v2/app/${path}`, {headers: {...ACCEPT, ...headers}})
        expect([path, answer.status, answer.json().errors?.[0]?.code]).toEqual([path, 401, 'UNAUTHORIZED'])
        expect(answer.headers['www-authenticate']).toContain(
          `Bearer realm="${stage.url}/token",service="${stage.address}",scope="repository:app:pull"`,
        )
      }
      const owner = await stage.send('GET', `/v2/app/${path}`, {headers: {...ACCEPT, ...OWN}})
      expect(owner.status).toBe(200)
    }
  })

  it('lets nobody have it by another repository, to which it does not belong', async () => {
    const {upstream, stage, converted} = await privateStage()
    await addSampleImage(upstream, 'other', '1', {layers: [{'other.txt': 'other\n'}]})
    const [layer] = manifestOf(converted).layers
    const answer = await stage.send('GET', `/v2/other/blobs/${layer!.digest}`, {headers: OWN})
    expect(answer.status).toBe(404)
  })
})

describe('what an upstream says', () => {
  it('holds for a short time, and no longer', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    for (const [accessMs, status] of [
      [600_000, 200],
      [0, 403],
    ] as const) {
      const stage = await startStage([upstream.host], {waitMs: 600_000, accessMs})
      const {layers} = manifestOf(await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT}))
      const path = `/v2/app/blobs/${layers[0]!.digest}`
      expect((await stage.send('GET', path)).status).toBe(200)
      upstream.inject({method: 'HEAD'}, {kind: 'status', status: 403}, 1000)
      expect((await stage.send('GET', path)).status).toBe(status)
      upstream.heal()
    }
  })

  it('holds while it says nothing, because it is away, for those whom it has let read before', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    const stage = await startStage([upstream.host], {waitMs: 600_000, accessMs: 0})
    const {layers} = manifestOf(await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT}))
    const path = `/v2/app/blobs/${layers[0]!.digest}`
    expect((await stage.send('GET', path)).status).toBe(200)
    upstream.inject({method: 'HEAD'}, {kind: 'status', status: 503}, 1000)
    expect((await stage.send('GET', path)).status).toBe(200)
    expect((await stage.send('GET', path, {headers: basic('new', 'client')})).status).toBe(503)
  })
})

describe('credentials', () => {
  it('never go to a registry that nobody has named', async () => {
    const upstream = await startUpstream({auth: {kind: 'basic', ...OWNER}})
    await addSampleImage(upstream, 'app', '1')
    const stage = await startStage(['*'])
    const answer = await stage.send('GET', `/v2/app/manifests/1?ns=${upstream.host}`, {headers: OWN})
    expect(answer.status).toBe(401)
    expect(upstream.requests.filter(({headers}) => headers.authorization !== undefined)).toEqual([])
  })

  it("of Docker's identity tokens go to the token server of the upstream", async () => {
    const upstream = await startUpstream({auth: {kind: 'bearer', ...OWNER, refreshToken: 'identity'}})
    await addSampleImage(upstream, 'app', '1')
    const stage = await startStage([upstream.host])
    const body = new URLSearchParams({grant_type: 'refresh_token', refresh_token: 'identity'}).toString()
    const {access_token: token} = (await stage.send('POST', '/token', {body})).json()
    const headers = {...ACCEPT, ...bearer(String(token))}
    expect((await stage.send('GET', '/v2/app/manifests/1', {headers})).status).toBe(200)
  })

  it('are sealed in tokens, which are good for a while, here', () => {
    let now = 0
    const tokens = new ClientTokens(() => now)
    const credential = {kind: 'password', ...OWNER} as const
    const token = tokens.seal(credential)
    expect(Buffer.from(token, 'base64url').toString('latin1')).not.toContain('secret')
    expect(tokens.authenticate(`Bearer ${token}`)).toEqual(tokens.clientOf(credential))
    expect(() => new ClientTokens(() => now).authenticate(`Bearer ${token}`)).toThrow('not good')
    const damaged = Buffer.from(token, 'base64url')
    for (const at of damaged.keys()) {
      const changed = Buffer.from(damaged)
      changed[at]! ^= 1
      expect(() => tokens.authenticate(`Bearer ${changed.toString('base64url')}`)).toThrow('not good')
    }
    now = 600_001
    expect(() => tokens.authenticate(`Bearer ${token}`)).toThrow('not good')
    for (const header of ['Bearer x', `Bearer ${'A'.repeat(40_000)}`, 'Basic eA==', 'Digest x', '']) {
      expect(() => tokens.authenticate(header)).toThrow()
    }
  })

  it('that are no token any more are to be shown again, and are not shown to the upstream', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    const stage = await startStage([upstream.host])
    const headers = bearer(new ClientTokens().seal({kind: 'password', ...OWNER}))
    const answer = await stage.send('GET', '/v2/app/manifests/1', {headers})
    expect([answer.status, answer.headers['www-authenticate']]).toEqual([
      401,
      expect.stringContaining('error="invalid_token"'),
    ])
    expect(upstream.requests).toEqual([])
  })
})

describe('the challenge', () => {
  it('leads to where the operator says that clients find us', async () => {
    const upstream = await startUpstream()
    const stage = await startStage([upstream.host], {publicUrl: 'https://mirror.test'})
    const answer = await stage.send('GET', '/v2/', {headers: {host: 'other.test'}})
    expect(answer.headers['www-authenticate']).toBe(
      'Bearer realm="https://mirror.test/token",service="mirror.test"',
    )
  })
})
