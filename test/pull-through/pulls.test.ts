// What a pull through a converting registry gives: plain at once, converted later, and source digests unchanged.

import {readdir, stat, truncate} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {tocDigestOf} from '../../src/lib/oci/annotations.ts'
import {DOCKER_MANIFEST, OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {temporaryDirectory} from '../support/temporary.ts'
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

describe('a pull by tag', () => {
  it('gets the image as it is at once, and converted from the next time on', async () => {
    const upstream = await startUpstream()
    const {root} = await addSampleImage(upstream, 'app', '1')
    const stage = await startStage([upstream.host])
    const first = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(first.headers['docker-content-digest']).toBe(root.digest)
    expect(digestOf(first.body)).toBe(root.digest)
    await stage.ended(1)
    const second = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(second.headers['content-type']).toBe(OCI_MANIFEST)
    expect(second.headers['docker-content-digest']).toBe(digestOf(second.body))
    const {layers, config} = manifestOf(second)
    expect(layers.map(({annotations}) => tocDigestOf(annotations))).toEqual([
      expect.stringMatching(/^sha256:/),
      expect.stringMatching(/^sha256:/),
    ])
    for (const blob of [config, ...layers]) {
      const answer = await stage.send('GET', `/v2/app/blobs/${blob.digest}`)
      expect([answer.status, digestOf(answer.body)]).toEqual([200, blob.digest])
    }
  })

  it('waits for the conversion where that is wanted, also to ask which digest it is', async () => {
    const upstream = await startUpstream()
    const {root} = await addSampleImage(upstream, 'app', '1')
    const stage = await startStage([upstream.host], {waitMs: 600_000})
    const head = await stage.send('HEAD', '/v2/app/manifests/1', {headers: ACCEPT})
    const digest = String(head.headers['docker-content-digest'])
    expect([head.status, digest === root.digest]).toEqual([200, false])
    const byDigest = await stage.send('GET', `/v2/app/manifests/${digest}`, {headers: ACCEPT})
    expect(digestOf(byDigest.body)).toBe(digest)
    expect(Number(head.headers['content-length'])).toBe(byDigest.body.length)
  })

  it('waits no longer than it is told', async () => {
    const upstream = await startUpstream()
    const {root, layers} = await addSampleImage(upstream, 'app', '1')
    upstream.inject({url: new RegExp(layers[0]!.digest)}, {kind: 'stall', afterBytes: 0})
    const stage = await startStage([upstream.host], {waitMs: 1})
    const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(digestOf(answer.body)).toBe(root.digest)
  })

  it('gets what the source is when it asks for a digest of the source', async () => {
    const upstream = await startUpstream()
    const {root, layers} = await addSampleImage(upstream, 'app', '1')
    const stage = await converted(upstream.host, 'app')
    const manifest = await stage.send('GET', `/v2/app/manifests/${root.digest}`, {headers: ACCEPT})
    expect(digestOf(manifest.body)).toBe(root.digest)
    const layer = await stage.send('GET', `/v2/app/blobs/${layers[0]!.digest}`)
    expect(digestOf(layer.body)).toBe(layers[0]!.digest)
  })

  it('finds the new image when the tag has moved', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    const stage = await converted(upstream.host, 'app')
    await addSampleImage(upstream, 'app', '1', {layers: [{'c.txt': 'c\n'}]})
    const moved = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(manifestOf(moved).layers).toHaveLength(1)
  })

  it('gets Docker schema 2 where the client reads nothing else', async () => {
    const upstream = await startUpstream()
    const {root} = await addSampleImage(upstream, 'app', '1', {family: 'docker'})
    const stage = await converted(upstream.host, 'app')
    const old = await stage.send('GET', '/v2/app/manifests/1', {headers: {accept: DOCKER_MANIFEST}})
    expect(old.headers['content-type']).toBe(DOCKER_MANIFEST)
    expect(digestOf(old.body)).toBe(root.digest)
    const current = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(current.headers['content-type']).toBe(OCI_MANIFEST)
    expect(current.headers['docker-content-digest']).not.toBe(root.digest)
  })

  it('leaves alone what can be read lazily already, and what is no image', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    const first = await converted(upstream.host, 'app')
    const again = await startStage([first.address], {waitMs: 600_000})
    const answer = await again.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    const source = await first.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(digestOf(answer.body)).toBe(digestOf(source.body))
    const config = upstream.addBlob('chart', Buffer.from('{}'), 'application/vnd.cncf.helm.config.v1+json')
    const layer = upstream.addBlob('chart', Buffer.from('chart'), 'application/vnd.cncf.helm.chart')
    const chart = {schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [layer]}
    const {digest} = upstream.addManifest('chart', '1', chart)
    const stage = await startStage([upstream.host], {waitMs: 600_000})
    const artifact = await stage.send('GET', '/v2/chart/manifests/1', {headers: ACCEPT})
    expect(digestOf(artifact.body)).toBe(digest)
    expect([...again.events, ...stage.events]).toEqual([])
  })
})

describe('names', () => {
  it("are those of the registry in the path, a short name, containerd's mirror form, and no registry at all", async () => {
    const upstream = await startUpstream()
    const other = await startUpstream()
    const {root} = await addSampleImage(upstream, 'team/app', '1')
    await addSampleImage(other, 'team/app', '1', {layers: [{'other.txt': 'other\n'}]})
    const stage = await startStage([upstream.host, `far.test=${other.host}`])
    const digests = await Promise.all(
      [
        '/v2/team/app/manifests/1',
        `/v2/team/app/manifests/1?ns=${upstream.host}`,
        '/v2/far.test/team/app/manifests/1',
        `/v2/team/app/manifests/1?ns=${other.host}`,
        '/v2/team/app/manifests/1?ns=far.test',
      ].map(async path => digestOf((await stage.send('GET', path, {headers: ACCEPT})).body)),
    )
    expect(digests.map(digest => digest === root.digest)).toEqual([true, true, false, false, false])
  })

  it('of other registries are refused, and those registries are not asked', async () => {
    const upstream = await startUpstream()
    const other = await startUpstream()
    await addSampleImage(other, 'app', '1')
    const stage = await startStage([upstream.host])
    for (const path of [`/v2/app/manifests/1?ns=${other.host}`, '/v2/registry.test/app/manifests/1']) {
      const answer = await stage.send('GET', path, {headers: ACCEPT})
      expect([answer.status, answer.json().errors?.[0]?.code]).toEqual([404, 'NAME_UNKNOWN'])
    }
    expect(other.requests).toEqual([])
    const open = await startStage([upstream.host, '*'])
    expect((await open.send('GET', `/v2/app/manifests/1?ns=${other.host}`, {headers: ACCEPT})).status).toBe(
      200,
    )
  })
})

describe('an index', () => {
  it('has the platforms that are wanted converted, and others when they have been pulled', async () => {
    const upstream = await startUpstream()
    const {root, images} = await addSampleIndex(upstream, 'app', '1', ['amd64', 'arm64', 's390x'])
    const stage = await startStage([upstream.host], {waitMs: 600_000})
    const digests = async () => {
      const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
      expect(answer.headers['docker-content-digest']).toBe(digestOf(answer.body))
      return indexOf(answer).manifests.map(({digest}) => digest)
    }
    const sources = images.map(image => image.root.digest)
    const first = await digests()
    expect(first.map(digest => sources.includes(digest))).toEqual([false, true, true])
    expect(stage.events.filter(({kind}) => kind === 'converted')).toHaveLength(1)
    await stage.send('GET', `/v2/app/manifests/${sources[1]}`, {headers: ACCEPT})
    await stage.ended(2)
    expect((await digests()).map(digest => sources.includes(digest))).toEqual([false, false, true])
    // Who pulls the source's index by digest has it whole.
    const whole = await stage.send('GET', `/v2/app/manifests/${root.digest}`, {headers: ACCEPT})
    expect(digestOf(whole.body)).toBe(root.digest)
  })

  it('stays what it was for whoever has its digest, however it goes on', async () => {
    const upstream = await startUpstream()
    const {images} = await addSampleIndex(upstream, 'app', '1', ['amd64', 'arm64'])
    const stage = await startStage([upstream.host], {waitMs: 600_000})
    const head = await stage.send('HEAD', '/v2/app/manifests/1', {headers: ACCEPT})
    const digest = String(head.headers['docker-content-digest'])
    await stage.send('GET', `/v2/app/manifests/${images[1]!.root.digest}`, {headers: ACCEPT})
    await stage.ended(2)
    const later = await stage.send('HEAD', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(later.headers['docker-content-digest']).not.toBe(digest)
    const answer = await stage.send('GET', `/v2/app/manifests/${digest}`, {headers: ACCEPT})
    expect(digestOf(answer.body)).toBe(digest)
  })

  it('is converted whole when that is wanted', async () => {
    const upstream = await startUpstream()
    const {images} = await addSampleIndex(upstream, 'app', '1', ['amd64', 'arm64'])
    const stage = await startStage([upstream.host], {waitMs: 600_000, platforms: 'all'})
    const answer = await stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    const sources = images.map(image => image.root.digest)
    expect(indexOf(answer).manifests.filter(({digest}) => sources.includes(digest))).toEqual([])
  })
})

describe('the store', () => {
  it('has after a restart what was converted before it', async () => {
    const upstream = await startUpstream()
    await addSampleIndex(upstream, 'app', '1', ['amd64', 'arm64'])
    const directory = await temporaryDirectory()
    const before = await startStage([upstream.host], {directory, waitMs: 600_000})
    const index = await before.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    await before[Symbol.asyncDispose]()
    const after = await startStage([upstream.host], {directory})
    const again = await after.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    expect(digestOf(again.body)).toBe(digestOf(index.body))
    const child = indexOf(again).manifests[0]!.digest
    const manifest = await after.send('GET', `/v2/app/manifests/${child}`, {headers: ACCEPT})
    const layer = manifestOf(manifest).layers[0]!
    const answer = await after.send('GET', `/v2/app/blobs/${layer.digest}`, {headers: {range: 'bytes=2-9'}})
    expect([answer.status, answer.body.length, answer.headers['content-range']]).toEqual([
      206,
      8,
      `bytes 2-9/${layer.size}`,
    ])
    expect(after.events).toEqual([])
  })

  it('takes away what was not used for the longest time, and makes it again when it is read', async () => {
    const upstream = await startUpstream()
    const noise = (seed: number) => Array.from({length: 300}, (_, i) => digestOf(`${seed} ${i}`)).join()
    for (const seed of [0, 1, 2]) {
      await addSampleImage(upstream, `app${seed}`, '1', {layers: [{'noise.txt': noise(seed)}]})
    }
    const bytes = (await converted(upstream.host, 'app0')).events.map(event =>
      event.kind === 'converted' ? event.bytes : 0,
    )
    const maxSize = 2.5 * Math.max(...bytes)
    const directory = await temporaryDirectory()
    const stage = await startStage([upstream.host], {directory, waitMs: 600_000, maxSize})
    const digests: string[] = []
    for (const name of ['app0', 'app1', 'app0', 'app2']) {
      const answer = await stage.send('GET', `/v2/${name}/manifests/1`, {headers: ACCEPT})
      digests.push(digestOf(answer.body))
    }
    // app1 was taken away, as the one that was not used for the longest time, and is made again for whoever reads it.
    const count = () => stage.events.filter(({kind}) => kind === 'started').length
    expect([count(), await layersIn(directory)]).toEqual([3, 2])
    const manifest = await stage.send('GET', `/v2/app0/manifests/${digests[0]}`, {headers: ACCEPT})
    const whole = await stage.send('GET', `/v2/app0/blobs/${manifestOf(manifest).layers[0]!.digest}`)
    expect([whole.status, count()]).toEqual([200, 3])
    await stage[Symbol.asyncDispose]()
    const again = await startStage([upstream.host], {directory, maxSize})
    const gone = await again.send('GET', `/v2/app1/manifests/${digests[1]}`, {headers: ACCEPT})
    expect(digestOf(gone.body)).toBe(digests[1])
    const [layer] = manifestOf(gone).layers
    const read = await again.send('GET', `/v2/app1/blobs/${layer!.digest}`)
    expect(digestOf(read.body)).toBe(layer!.digest)
    expect(again.events.map(({kind}) => kind)).toEqual(['started', 'converted'])
  })

  it('makes an image again of which a file was damaged', async () => {
    const upstream = await startUpstream()
    await addSampleImage(upstream, 'app', '1')
    const directory = await temporaryDirectory()
    const stage = await startStage([upstream.host], {directory, waitMs: 600_000})
    const pull = () => stage.send('GET', '/v2/app/manifests/1', {headers: ACCEPT})
    const {layers} = manifestOf(await pull())
    const read = () => stage.send('GET', `/v2/app/blobs/${layers[0]!.digest}`)
    await truncate(join(directory, 'blobs/sha256', layers[0]!.digest.slice('sha256:'.length)), 10)
    await expect(read()).rejects.toThrow()
    expect(manifestOf(await pull()).layers).toEqual(layers)
    expect(digestOf((await read()).body)).toBe(layers[0]!.digest)
  })
})

/** A stage before `host` where `name:1` has been converted. */
async function converted(host: string, name: string): Promise<Stage> {
  const stage = await startStage([host], {waitMs: 600_000})
  await stage.send('GET', `/v2/${name}/manifests/1`, {headers: ACCEPT})
  return stage
}

/** Blobs in a store that are as large as the layers of these tests. */
async function layersIn(directory: string): Promise<number> {
  const blobs = join(directory, 'blobs/sha256')
  const sizes = await Promise.all(
    (await readdir(blobs)).map(async name => (await stat(join(blobs, name))).size),
  )
  return sizes.filter(size => size > 8192).length
}
