// The built program: `registry serve --upstream`, from its flags to its end, however that comes.

import {once} from 'node:events'
import {readdir} from 'node:fs/promises'
import {join} from 'node:path'
import {afterEach, beforeEach, describe, expect, it, vi} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {send} from '../registry-server/support.ts'
import {createUser, type Running, type User} from '../support/ctr-remote.ts'
import {PATIENTLY} from '../support/patience.ts'
import {ACCEPT, addSampleImage, manifestOf, startUpstream} from './support.ts'

let user: User
beforeEach(async () => {
  user = await createUser()
})
afterEach(() => user[Symbol.asyncDispose]())

async function serve(...flags: readonly string[]): Promise<{running: Running; url: string}> {
  const running = user.start('registry', 'serve', '--listen', '127.0.0.1:0', ...flags)
  return {running, url: await running.line('stdout', /^http/)}
}

describe('registry serve --upstream', () => {
  it('converts while a client waits, says so, and ends when it is told to', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    const {running, url} = await serve(
      '--upstream',
      upstream.host,
      '--platform',
      'linux/amd64',
      '--wait',
      '10m',
    )
    const answer = await send(`${url}/v2/app/manifests/1`, 'GET', {headers: ACCEPT})
    expect(await running.line('stderr', /^converted /)).toContain(`${upstream.host}/app@sha256:`)
    for (const {digest} of manifestOf(answer).layers) {
      expect(digestOf((await send(`${url}/v2/app/blobs/${digest}`, 'GET', {})).body)).toBe(digest)
    }
    running.child.kill('SIGTERM')
    expect((await running.finished).exitCode).toBe(0)
  })

  it('tells Prometheus what it does', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    const flags = [
      '--upstream',
      upstream.host,
      '--platform',
      'linux/amd64',
      '--metrics',
      '127.0.0.1:0',
      '--quiet',
    ]
    const {running, url} = await serve(...flags)
    await send(`${url}/v2/app/manifests/1`, 'GET', {headers: ACCEPT})
    await running.line('stderr', /^converted /)
    await send(`${url}/v2/app/manifests/1`, 'GET', {headers: ACCEPT})
    await send(`${url}/v2/app/manifests/2`, 'GET', {headers: ACCEPT})
    const metrics = /http.*/.exec(await running.line('stderr', /^metrics /))![0]
    const read = async () => String((await send(metrics, 'GET', {})).body)
    // Requests are counted when their connections know that they have ended.
    for (const line of [
      'requests_total{method="GET",what="manifests",status="200"} 2',
      'requests_total{method="GET",what="manifests",status="404"} 1',
      'pulls_total{form="plain"} 1',
      'pulls_total{form="converted"} 1',
      'conversions_total{result="converted"} 1',
      'kept_images 1',
      'pending_conversions 0',
    ]) {
      await expect.poll(read, PATIENTLY).toContain(`ctr_remote_registry_${line}\n`)
    }
    running.child.kill('SIGTERM')
    expect((await running.finished).exitCode).toBe(0)
  })

  it('leaves nothing of a conversion that a kill ends, and makes it when it is back', async () => {
    const upstream = await startUpstream()
    const {root, layers} = await addSampleImage(upstream, 'app', '1')
    upstream.inject({url: new RegExp(layers[1]!.digest)}, {kind: 'stall', afterBytes: 10})
    const flags = ['--upstream', upstream.host]
    const first = await serve(...flags)
    await send(`${first.url}/v2/app/manifests/1`, 'GET', {headers: ACCEPT})
    const isAsked = () => upstream.requests.some(({url}) => url.includes(layers[1]!.digest))
    await vi.waitUntil(isAsked, PATIENTLY)
    first.running.child.kill('SIGKILL')
    await once(first.running.child, 'close')
    const second = await serve(...flags)
    const store = join(user.home, '.local/share/ctr-remote/pull-through')
    expect(
      (await readdir(store, {recursive: true})).filter(path => /[0-9a-f]{64}|ingest\/./.test(path)),
    ).toEqual([])
    const plain = await send(`${second.url}/v2/app/manifests/1`, 'GET', {headers: ACCEPT})
    expect(digestOf(plain.body)).toBe(root.digest)
    await second.running.line('stderr', /^converted /)
    const answer = await send(`${second.url}/v2/app/manifests/1`, 'GET', {headers: ACCEPT})
    expect(answer.headers['docker-content-digest']).not.toBe(root.digest)
    second.running.child.kill('SIGTERM')
    await second.running.finished
  })

  it('says what is wrong with its flags', async () => {
    for (const [flags, message] of [
      [['--wait', '1s'], '--upstream'],
      [['--upstream', 'no domain'], 'no registry'],
      [['--upstream', 'a=docker.io', '--upstream', 'a=ghcr.io'], 'named twice'],
      [['--upstream', 'docker.io', '--max-size', 'much'], '20GiB'],
      [['--upstream', 'docker.io', '--url', 'mirror.test'], 'https://mirror.example.com'],
      [['--upstream', 'docker.io', '--user', 'a:b'], '--upstream'],
    ] as const) {
      const {exitCode, stderr} = await user.run('registry', 'serve', ...flags)
      expect([flags, exitCode === 0, stderr]).toEqual([flags, false, expect.stringContaining(message)])
    }
  })
})
