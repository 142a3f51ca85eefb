// Unpacking: the snapshots that `ctr` would make, by several at once too, and nothing of a layer that is not what it claims.

import {existsSync} from 'node:fs'
import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {childLabels} from '../../src/lib/containerd/gc-labels.ts'
import {type ContainerdStore, openContainerdStore} from '../../src/lib/containerd/store.ts'
import {chainIdsOf, unpackImage} from '../../src/lib/containerd/unpack.ts'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import type {ImageConfig, ImageManifest} from '../../src/lib/oci/manifest.ts'
import {CONTAINERDS, startContainerd, type TestContainerd} from '../support/containerd.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, type SampleImage, writeSampleImage} from '../support/sample-image.ts'

describe('chain ids', () => {
  const [a, b, c] = ['a', 'b', 'c'].map(digestOf) as [Digest, Digest, Digest]

  it('start with the DiffID of the lowest layer, and go on with the hash of those below', () => {
    const two = digestOf(`${a} ${b}`)
    expect(chainIdsOf([a, b, c])).toEqual([a, two, digestOf(`${two} ${c}`)])
  })
  it('are none without layers', () => expect(chainIdsOf([])).toEqual([]))
})

describe('labels of children', () => {
  const child = (mediaType: string) => ({mediaType, digest: digestOf(mediaType), size: 1})
  const config = child('application/vnd.oci.image.config.v1+json')

  it('tell configs, layers and everything else apart', () => {
    const layers = [
      child('application/vnd.oci.image.layer.v1.tar+gzip'),
      child('application/vnd.docker.image.rootfs.foreign.diff.tar.gzip'),
      child('application/vnd.in-toto+json'),
    ]
    const manifest = {schemaVersion: 2, mediaType: '', config, layers} as const
    expect(childLabels({kind: 'manifest', manifest})).toEqual({
      'containerd.io/gc.ref.content.config': config.digest,
      'containerd.io/gc.ref.content.l.0': layers[0]!.digest,
      'containerd.io/gc.ref.content.l.1': layers[1]!.digest,
      'containerd.io/gc.ref.content.0': layers[2]!.digest,
    })
  })
})

for (const {release, needs, programs} of CONTAINERDS) {
  describeWith(['root', ...needs], `unpacking with ${release}`, () => {
    let containerd: TestContainerd
    let count = 0
    beforeAll(async () => {
      containerd = await startContainerd({programs})
    })
    afterAll(() => containerd?.[Symbol.asyncDispose]())

    const open = (): Promise<ContainerdStore> =>
      openContainerdStore({address: containerd.address, namespace: `unpack-${++count}`})

    async function documentsOf(
      store: ContainerdStore,
      {root, config}: SampleImage,
    ): Promise<{manifest: ImageManifest; config: ImageConfig}> {
      const read = async (blob: typeof root) => JSON.parse((await readBlob(store.content, blob)).toString())
      return {manifest: await read(root), config: await read(config)}
    }

    const snapshots = (store: ContainerdStore) =>
      containerd.ctr('-n', store.client.namespace, 'snapshots', 'ls')

    it('makes what survives a collection with the image, and goes with it', async () => {
      await using store = await open()
      const image = await writeSampleImageUnderLease(store)
      const images = await containerd.ctr('-n', store.client.namespace, 'images', 'check')
      expect(images).toMatch(/sample:1 .* complete \(3\/3\) .* true/)
      await store.collectGarbage()
      expect(await snapshots(store)).toContain(image.top)
      await store.images.remove('sample:1', {sync: true})
      expect(await snapshots(store)).not.toContain('sha256')
    })

    it('is not stopped by directories that a killed containerd left behind', async () => {
      await using fresh = await startContainerd({programs})
      const root = join(fresh.directory, 'root', 'io.containerd.snapshotter.v1.overlayfs', 'snapshots')
      for (const number of ['1', '2', '3']) await mkdir(join(root, number, 'fs', 'left'), {recursive: true})
      await using store = await openContainerdStore({address: fresh.address, namespace: 'default'})
      const {top} = await writeSampleImageUnderLease(store)
      expect(await fresh.ctr('snapshots', 'ls')).toContain(top)
      expect(existsSync(join(root, '1', 'fs', 'left'))).toBe(false)
    })

    async function writeSampleImageUnderLease(store: ContainerdStore): Promise<{readonly top: string}> {
      await using _ = await store.lease()
      const image = await writeSampleImage(store.content)
      const documents = await documentsOf(store, image)
      const top = await unpackImage(store, {snapshotter: 'overlayfs', ...documents})
      expect(top).toBe(chainIdsOf(documents.config.rootfs.diff_ids).at(-1))
      await store.images.put('sample:1', image.root)
      return {top}
    }

    it('does nothing the second time, and the same for four at once', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const documents = await documentsOf(store, await writeSampleImage(store.content))
      const unpack = () => unpackImage(store, {snapshotter: 'overlayfs', ...documents})
      const tops = await Promise.all([unpack(), unpack(), unpack(), unpack()])
      expect(new Set(tops)).toEqual(new Set([await unpack()]))
      expect(await snapshots(store)).not.toContain('Active')
    })

    it('refuses a layer with another DiffID, and leaves no snapshot of it', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const {manifest, config} = await documentsOf(store, await writeSampleImage(store.content))
      const [first] = config.rootfs.diff_ids
      const wrong = {...config, rootfs: {...config.rootfs, diff_ids: [first!, digestOf('another')]}}
      const error = await unpackImage(store, {snapshotter: 'overlayfs', manifest, config: wrong}).catch(
        e => e,
      )
      expect(codeOf(error)).toBe('corrupt')
      expect(messageOf(error)).toMatch(/Cannot unpack the layer sha256:.* its DiffID is sha256:/)
      expect(await snapshots(store)).not.toContain('Active')
      expect(await snapshots(store)).not.toContain(chainIdsOf(wrong.rootfs.diff_ids)[1])
    })

    it('names the snapshotter that is not there', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const documents = await documentsOf(store, await writeSampleImage(store.content))
      const error = await unpackImage(store, {snapshotter: 'nothing', ...documents}).catch(e => e)
      expect(messageOf(error)).toMatch(/"nothing"/)
      expect(codeOf(error)).toMatch(/not-found|invalid-argument/)
    })

    it('stops when aborted', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const documents = await documentsOf(store, await writeSampleImage(store.content))
      const abort = new AbortController()
      const contentReady = async () => abort.abort()
      const options = {snapshotter: 'overlayfs', ...documents, contentReady, signal: abort.signal}
      expect(codeOf(await unpackImage(store, options).catch(e => e))).toBe('cancelled')
      expect(await snapshots(store)).not.toContain('Active')
    })
  })
}
