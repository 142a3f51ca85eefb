import {readdir, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {hexOf} from '../../src/lib/oci/digest.ts'
import {readBlob, writeBlob, writeSampleImage, writeSampleIndex} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

describe('garbage collection', () => {
  it('keeps what images reach through indexes, and frees the rest', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const kept = await writeSampleIndex(store.content, ['amd64', 'arm64'])
    await store.images.put('example.com/app:1', kept.root)
    const garbage = await writeBlob(store.content, Buffer.alloc(1000))
    await store.content.setLabels(garbage.digest, {a: '1'})
    expect(await store.collectGarbage()).toBe(1000)
    expect(await store.content.info(garbage)).toBeUndefined()
    expect(await readdir(join(directory, '.ctr-remote/labels'))).toEqual([])
    for (const image of kept.images) {
      for (const blob of [image.root, image.config, ...image.layers]) await readBlob(store.content, blob)
    }
  })

  it('frees an image that was removed, but not the parts of others', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const shared = {'shared.txt': 'shared'}
    const first = await writeSampleImage(store.content, {layers: [shared, {'1.txt': '1'}]})
    const second = await writeSampleImage(store.content, {layers: [shared, {'2.txt': '2'}]})
    await store.images.put('example.com/app:1', first.root)
    await store.images.put('example.com/app:2', second.root)
    await store.images.remove('example.com/app:1', {sync: true})
    expect(await store.content.info(first.layers[1]!)).toBeUndefined()
    for (const blob of [second.root, second.config, ...second.layers]) await readBlob(store.content, blob)
  })

  it('takes platforms that were not pulled for nothing', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const {root, images} = await writeSampleIndex(store.content, ['amd64', 'arm64'])
    await store.images.put('example.com/app:1', root)
    await rm(join(directory, 'blobs/sha256', hexOf(images[1]!.root.digest)))
    expect(await store.collectGarbage()).toBeGreaterThan(0)
    await readBlob(store.content, images[0]!.layers[0]!)
  })

  it('stops, and removes nothing, at a manifest that it cannot understand', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const {root} = await writeSampleImage(store.content)
    await store.images.put('example.com/app:1', root)
    const garbage = await writeBlob(store.content, Buffer.from('garbage'))
    await writeFile(join(directory, 'blobs/sha256', hexOf(root.digest)), '{"damaged":')
    await expect(store.collectGarbage()).rejects.toMatchObject({code: 'corrupt'})
    expect(await store.content.info(garbage)).toBeDefined()
    // Removing the image is the way out.
    await store.images.remove('example.com/app:1')
    expect(await store.collectGarbage()).toBeGreaterThan(0)
  })

  it('leaves alone what is no blob', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    await writeBlob(store.content, Buffer.from('garbage'))
    await writeFile(join(directory, 'blobs/sha256/README'), 'not ours')
    await store.collectGarbage()
    expect(await readdir(join(directory, 'blobs/sha256'))).toEqual(['README'])
  })

  it('stops when it is cancelled', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const {root} = await writeSampleImage(store.content)
    await store.images.put('example.com/app:1', root)
    const signal = AbortSignal.abort()
    await expect(store.collectGarbage({signal})).rejects.toMatchObject({name: 'AbortError'})
  })
})
