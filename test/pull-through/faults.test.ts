// What goes wrong behind a converting registry, and in front of it: clients are told what they would be told without it, pulls of
// what is there go on, and nothing wrong is ever served.

import {execFileSync} from 'node:child_process'
import {readdir} from 'node:fs/promises'
import {request as httpRequest} from 'node:http'
import {describe, expect, it, onTestFinished, vi} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {describeError} from '../../src/lib/errors/coded-error.ts'
import type {Fault} from '../support/faulty-registry.ts'
import {PATIENTLY} from '../support/patience.ts'
import {describeWith} from '../support/requires.ts'
import {temporaryDirectory} from '../support/temporary.ts'
import {ACCEPT, addSampleImage, manifestOf, type Stage, startStage, startUpstream} from './support.ts'

function failures({events}: Stage): string[] {
  return events.flatMap(event => (event.kind === 'failed' ? [describeError(event.error)] : []))
}

describe('a refusal of the upstream', () => {
  it.each([
    [401, 401, 'UNAUTHORIZED'],
    [403, 403, 'DENIED'],
    [404, 404, 'MANIFEST_UNKNOWN'],
    [429, 429, 'TOOMANYREQUESTS'],
    [500, 503, 'UNAVAILABLE'],
    [503, 503, 'UNAVAILABLE'],
  ])('of %i is told as %i, at once', async (status, told, code) => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    const headers = {'retry-after': '3600'}
    upstream.inject({}, {kind: 'status', status, headers}, 100)
    const stage = await startStage([upstream.host])
    for (const path of [
      'manifests/1',
      `manifests/sha256:${'0'.repeat(64)}`,
      `blobs/sha256:${'0'.repeat(64)}`,
    ]) {
      const answer = await stage.send('GET', `/v2/app/${path}`, {headers: ACCEPT})
      expect([answer.status, answer.json().errors?.[0]?.code]).toEqual([told, code])
      if (status === 429) expect(answer.headers['retry-after']).toBe('3600')
    }
    expect(stage.events).toEqual([])
  })

  it('is told too when there is nobody to refuse', async () => {
    const upstream = await startUpstream()
    const stage = await startStage([upstream.host])
    await upstream[Symbol.asyncDispose]()
    const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect([answer.status, answer.json().errors?.[0]?.code]).toEqual([503, 'UNAVAILABLE'])
  })
})

describe('an upstream that lies', () => {
  it('about a manifest is told to do so', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    upstream.inject({method: 'GET', url: /manifests/}, {kind: 'corrupt'}, 100)
    const stage = await startStage([upstream.host])
    const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect([answer.status, answer.json().errors?.[0]?.code]).toEqual([502, 'BAD_UPSTREAM'])
  })

  it.each<Fault>([{kind: 'corrupt'}, {kind: 'drop', afterBytes: 20}])(
    'about a blob, or breaks it off, is not believed: $kind',
    async fault => {
      const upstream = await startUpstream()
      const {layers} = await addSampleImage(upstream, 'app', '1')
      const path = `blobs/${layers[0]!.digest}`
      const stage = await startStage([upstream.host])
      upstream.inject({url: new RegExp(path)}, fault, 100)
      await expect(stage.send('GET', `/v2/app/${path}`)).rejects.toThrow(/aborted|hang up|ECONNRESET/)
      // Nor is it converted; the next who asks has the image as it is, and does not wait for another attempt.
      await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
      await stage.ended(1)
      expect(failures(stage)).toEqual([expect.stringContaining(layers[0]!.digest)])
      upstream.heal()
      const {root} = await addSampleImage(upstream, 'app', '1')
      const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
      expect([digestOf(answer.body), stage.events.length]).toEqual([root.digest, 2])
    },
  )
})

describe('a client that goes away', () => {
  it('while it waits takes the conversion from nobody', async () => {
    const upstream = await startUpstream()
    const {layers} = await addSampleImage(upstream, 'app', '1')
    upstream.inject({url: new RegExp(layers[0]!.digest)}, {kind: 'status', status: 500}, 1)
    const stage = await startStage([upstream.host], {waitMs: 600_000})
    const request = httpRequest(`${stage.url}/v2/app/manifests/1`, {headers: ACCEPT}).on('error', () => {})
    request.end()
    await vi.waitUntil(() => stage.events.length > 0, PATIENTLY)
    request.destroy()
    const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(manifestOf(answer).layers.every(({annotations}) => annotations !== undefined)).toBe(true)
    expect(stage.events.map(({kind}) => kind)).toEqual(['started', 'converted'])
  })
})

describe('the end of the registry', () => {
  it('stops a conversion, of which nothing is left', async () => {
    const upstream = await startUpstream()
    const {layers} = await addSampleImage(upstream, 'app', '1')
    upstream.inject({url: new RegExp(layers[1]!.digest)}, {kind: 'stall', afterBytes: 10})
    const directory = await temporaryDirectory()
    const stage = await startStage([upstream.host], {directory})
    await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    const isAsked = () => upstream.requests.some(({url}) => url.includes(layers[1]!.digest))
    await vi.waitUntil(isAsked, PATIENTLY)
    await stage[Symbol.asyncDispose]()
    const again = await startStage([upstream.host], {directory})
    expect(await blobsIn(directory)).toEqual([])
    expect((await again.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})).status).toBe(200)
  })
})

describeWith(['root'], 'a disk that is full', () => {
  it('leaves images as they are, and their pulls alone', async () => {
    const upstream = await startUpstream()
    const text = Array.from({length: 3000}, (_, index) => digestOf(String(index))).join()
    const {root, layers} = await addSampleImage(upstream, 'app', '1', {layers: [{'noise.txt': text}]})
    const directory = await temporaryDirectory()
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', directory])
    onTestFinished(() => void execFileSync('umount', [directory]))
    const stage = await startStage([upstream.host], {directory})
    for (let pull = 0; pull < 2; pull++) {
      const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
      expect(digestOf(answer.body)).toBe(root.digest)
      await stage.ended(1)
      const layer = await stage.send('GET', `/v2/app/blobs/${layers[0]!.digest}`)
      expect(digestOf(layer.body)).toBe(layers[0]!.digest)
    }
    expect(failures(stage)).toEqual([expect.stringContaining('the disk is full')])
    await stage[Symbol.asyncDispose]()
    expect(await blobsIn(directory)).toEqual([])
  })
})

/** Files of blobs, finished or not. */
async function blobsIn(directory: string): Promise<string[]> {
  const paths = await readdir(directory, {recursive: true})
  return paths.filter(path => /^(?:blobs\/sha256|.*ingest)\/./.test(path))
}
