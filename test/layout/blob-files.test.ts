import {readdir, readFile, truncate, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {hexOf} from '../../src/lib/oci/digest.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import {readBlob, writeBlob} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const BYTES = Buffer.from('some bytes of a blob')

async function openWithBlob() {
  const directory = await temporaryDirectory()
  const store = await openLocalStore(directory)
  const blob = await writeBlob(store.content, BYTES)
  return {directory, store, blob, path: join(directory, 'blobs/sha256', hexOf(blob.digest))}
}

async function filesIn(directory: string): Promise<string[]> {
  const entries = await readdir(directory, {recursive: true, withFileTypes: true})
  return entries.filter(entry => entry.isFile()).map(entry => entry.name)
}

describe('a blob being written', () => {
  const failing = async (write: (store: Store) => Promise<void>) => {
    const directory = await temporaryDirectory()
    const store = await openLocalStore(directory)
    await write(store)
    expect((await filesIn(directory)).sort()).toEqual(['index.json', 'lock', 'oci-layout'])
  }

  it('leaves nothing when it is given up', () =>
    failing(async store => {
      await using writer = await store.content.write({mediaType: ''})
      await writer.write(BYTES)
    }))

  it('is refused, and gone, when its digest is another', () =>
    failing(async store => {
      await using writer = await store.content.write({mediaType: ''})
      await writer.write(BYTES)
      const expected = {digest: digestOf('other'), size: BYTES.length}
      await expect(writer.commit(expected)).rejects.toMatchObject({code: 'corrupt'})
    }))

  it('is refused, and gone, when its size is another', () =>
    failing(async store => {
      await using writer = await store.content.write({mediaType: ''})
      await writer.write(BYTES)
      const expected = {digest: digestOf(BYTES), size: BYTES.length + 1}
      await expect(writer.commit(expected)).rejects.toMatchObject({code: 'corrupt'})
    }))

  it('may be there already', async () => {
    const {store, blob} = await openWithBlob()
    expect(await writeBlob(store.content, BYTES)).toEqual(blob)
  })

  it('may be written twice at once', async () => {
    const store = await openLocalStore(await temporaryDirectory())
    await Promise.all([1, 2, 3, 4].map(() => writeBlob(store.content, BYTES)))
    const blob = {mediaType: '', digest: digestOf(BYTES), size: BYTES.length}
    expect(await readBlob(store.content, blob)).toEqual(BYTES)
  })

  it('may be empty', async () => {
    const store = await openLocalStore(await temporaryDirectory())
    const blob = await writeBlob(store.content, Buffer.alloc(0))
    expect(await readBlob(store.content, blob)).toHaveLength(0)
  })
})

describe('a blob being read', () => {
  it('gives any range', async () => {
    const {store, blob} = await openWithBlob()
    await using open = await store.content.open(blob)
    expect(Buffer.from(await open.read(5, 5)).toString()).toBe('bytes')
    expect(await open.read(BYTES.length, 0)).toHaveLength(0)
  })

  it('refuses ranges outside of it', async () => {
    const {store, blob} = await openWithBlob()
    await using open = await store.content.open(blob)
    for (const [offset, length] of [
      [0, BYTES.length + 1],
      [-1, 1],
      [BYTES.length, 1],
      [0.5, 1],
      [0, Number.POSITIVE_INFINITY],
    ] as const) {
      await expect(open.read(offset, length)).rejects.toMatchObject({code: 'invalid-argument'})
    }
  })

  it('is not-found when it is not there', async () => {
    const {store} = await openWithBlob()
    const blob = {mediaType: '', digest: digestOf('nowhere'), size: 7}
    await expect(store.content.open(blob)).rejects.toMatchObject({code: 'not-found'})
    expect(await store.content.info(blob)).toBeUndefined()
  })

  it('ends with an error when its bytes changed', async () => {
    const {store, blob, path} = await openWithBlob()
    const damaged = await readFile(path)
    damaged[3] = damaged[3]! ^ 1
    await writeFile(path, damaged)
    await expect(readBlob(store.content, blob)).rejects.toMatchObject({code: 'corrupt'})
  })

  it('is corrupt when truncated, and writing it again heals it', async () => {
    const {store, blob, path} = await openWithBlob()
    await truncate(path, 4)
    await expect(store.content.open(blob)).rejects.toMatchObject({code: 'corrupt'})
    expect(await store.content.info(blob)).toBeUndefined()
    await writeBlob(store.content, BYTES)
    expect(await readBlob(store.content, blob)).toEqual(BYTES)
  })

  it('stops when it is cancelled', async () => {
    const {store, blob} = await openWithBlob()
    await using open = await store.content.open(blob)
    const signal = AbortSignal.abort()
    await expect(open.read(0, 1, {signal})).rejects.toMatchObject({name: 'AbortError'})
    await expect(open.stream({signal})[Symbol.asyncIterator]().next()).rejects.toMatchObject({
      name: 'AbortError',
    })
  })
})
