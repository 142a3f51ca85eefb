import {describe, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {findImage, openStoreSource, openStoreTarget} from '../../src/lib/transport/store-image.ts'
import {readBlob, writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

describe('a name of the store', () => {
  it('is kept in full, and found as it was written', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    await using target = await openStoreTarget(store, 'debian')
    const {root} = await writeSampleImage(target.content)
    await target.publish(root)
    expect(target.name).toBe('docker.io/library/debian:latest')
    expect((await findImage(store, 'debian')).target).toEqual(root)
    expect((await findImage(store, 'docker.io/library/debian:latest')).target).toEqual(root)
  })

  it('is first of all literal: other tools have images of any name', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const {root} = await writeSampleImage(store.content)
    const other = await writeSampleImage(store.content, {layers: [{x: 'x'}]})
    await store.images.put('docker.io/library/app:latest', root)
    await store.images.put('app', other.root)
    expect((await findImage(store, 'app')).target).toEqual(other.root)
  })

  it('that nobody has is not-found', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    await using source = await openStoreSource(store, 'debian')
    await expect(source.resolve()).rejects.toMatchObject({code: 'not-found'})
  })

  it('stays readable to the end when its image is removed meanwhile', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const {root, layers} = await writeSampleImage(store.content)
    await store.images.put('docker.io/library/debian:latest', root)
    await using reader = await openLocalStore(directory)
    await using source = await openStoreSource(reader, 'debian')
    await source.resolve()
    await store.images.remove('docker.io/library/debian:latest', {sync: true})
    for (const layer of layers) await readBlob(source.content, layer)
  })

  it('keeps what is written until it is published', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    await using writer = await openLocalStore(directory)
    await using target = await openStoreTarget(writer, 'debian')
    const {root, layers} = await writeSampleImage(target.content)
    expect(await store.collectGarbage()).toBe(0)
    await target.publish(root)
    for (const layer of layers) await readBlob(store.content, layer)
  })
})
