import {execFileSync} from 'node:child_process'
import {mkdir, readFile, rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import {OCI_MANIFEST} from '../../src/lib/oci/media-type.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeBlob, writeSampleImage} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const NAME = 'docker.io/library/sample:1'

describe('images of the local store', () => {
  it('are found by name after the store is opened again', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const {root} = await writeSampleImage(store.content)
    const put = await store.images.put(NAME, root, {labels: {'a/b': 'c'}})
    await using again = await openLocalStore(directory)
    expect(await again.images.get(NAME)).toEqual(put)
    expect(put).toMatchObject({name: NAME, target: root, labels: {'a/b': 'c'}})
    expect(await again.images.list()).toEqual([put])
  })

  it('keep creation time and labels when their name moves', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const first = await writeSampleImage(store.content)
    const second = await writeSampleImage(store.content, {layers: [{'other.txt': 'x'}]})
    const before = await store.images.put(NAME, first.root, {labels: {kept: 'yes'}})
    const after = await store.images.put(NAME, second.root)
    expect(after.target).toEqual(second.root)
    expect(after.createdAt).toBe(before.createdAt)
    expect(after.labels).toEqual({kept: 'yes'})
    expect(await store.images.list()).toHaveLength(1)
  })

  it("keep annotations of the root, and none of the store's own", async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const {root} = await writeSampleImage(store.content)
    const target = {...root, annotations: {mine: '1'}}
    await store.images.put(NAME, target)
    expect((await store.images.get(NAME))?.target).toEqual(target)
  })

  it('cannot be named before their root is there', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const elsewhere = await openLocalStore(await temporaryDirectory())
    const {root} = await writeSampleImage(elsewhere.content)
    await expect(store.images.put(NAME, root)).rejects.toMatchObject({code: 'not-found'})
  })

  it('are gone once removed, and removing them again is not-found', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const {root} = await writeSampleImage(store.content)
    await store.images.put(NAME, root)
    await store.images.remove(NAME)
    expect(await store.images.get(NAME)).toBeUndefined()
    await expect(store.images.remove(NAME)).rejects.toMatchObject({code: 'not-found'})
  })

  it('can be hundreds', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const {root} = await writeSampleImage(store.content)
    for (let index = 0; index < 200; index++) await store.images.put(`example.com/app:${index}`, root)
    expect(await store.images.list()).toHaveLength(200)
    expect(await store.collectGarbage()).toBe(0)
  })

  it('do not make a directory when there are none to list', async () => {
    const directory = join(await temporaryDirectory(), 'nothing')
    await using store = await openLocalStore(directory)
    expect(await store.images.list()).toEqual([])
    expect(await store.collectGarbage()).toBe(0)
    await expect(readFile(join(directory, 'index.json'))).rejects.toMatchObject({code: 'ENOENT'})
  })
})

describe('a damaged store', () => {
  const check = async (file: string, text: string | undefined, code: string) => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const {root} = await writeSampleImage(store.content)
    await store.images.put(NAME, root)
    const path = join(directory, file)
    if (text === undefined) await rm(path)
    else await writeFile(path, text)
    await expect(openLocalStore(directory)).rejects.toMatchObject({code})
    await expect(store.images.put('other:1', root)).rejects.toMatchObject({code})
    await expect(store.images.remove(NAME)).rejects.toMatchObject({code})
    await expect(store.collectGarbage()).rejects.toMatchObject({code})
    // Nothing was overwritten, nothing removed.
    if (text !== undefined) expect(await readFile(path, 'utf8')).toBe(text)
    expect(await readBlob(store.content, root)).toHaveLength(root.size)
  }

  it('with a truncated index.json is corrupt', () =>
    check('index.json', '{"schemaVersion":2,"mani', 'corrupt'))
  it('with an empty index.json is corrupt', () => check('index.json', '', 'corrupt'))
  it('with a list for an index.json is corrupt', () => check('index.json', '[]', 'corrupt'))
  it('with a bad digest in index.json is corrupt', () =>
    check(
      'index.json',
      `{"schemaVersion":2,"manifests":[{"mediaType":"${OCI_MANIFEST}","digest":"sha256:zz","size":1}]}`,
      'corrupt',
    ))
  it('that lost its index.json is corrupt, not empty', () => check('index.json', undefined, 'corrupt'))
  it('with a damaged oci-layout is corrupt', () => check('oci-layout', 'x', 'corrupt'))
  it('of a future version is unsupported', () =>
    check('oci-layout', '{"imageLayoutVersion":"2.0.0"}', 'unsupported'))
})

describe('blobs of the local store', () => {
  it('keep labels, merged and removed one by one', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const blob = await writeBlob(store.content, Buffer.from('labelled'))
    await store.content.setLabels(blob.digest, {a: '1', b: '2'})
    await store.content.setLabels(blob.digest, {b: '', c: '3'})
    expect(await store.content.info(blob)).toMatchObject({size: 8, labels: {a: '1', c: '3'}})
  })

  it('survive the loss and the damage of their labels', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const blob = await writeBlob(store.content, Buffer.from('labelled'))
    await store.content.setLabels(blob.digest, {a: '1'})
    const [file] = execFileSync('find', [join(directory, '.ctr-remote/labels'), '-name', '*.json'])
      .toString()
      .split('\n')
    await writeFile(file!, '{"a":')
    expect(await store.content.info(blob)).toMatchObject({labels: {}})
    await rm(join(directory, '.ctr-remote'), {recursive: true})
    expect(await store.content.info(blob)).toMatchObject({labels: {}})
    await store.content.setLabels(blob.digest, {b: '2'})
    expect(await store.content.info(blob)).toMatchObject({labels: {b: '2'}})
  })

  it('cannot be labelled when they are not there', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const blob = await writeBlob(store.content, Buffer.from('here'))
    const digest = `${blob.digest.slice(0, -1)}${blob.digest.endsWith('0') ? '1' : '0'}` as typeof blob.digest
    await expect(store.content.setLabels(digest, {a: '1'})).rejects.toMatchObject({code: 'not-found'})
  })

  it('of a directory that cannot be made are permission-denied or not possible', async () => {
    const directory = await temporaryDirectory()
    await writeFile(join(directory, 'file'), '')
    const store = await openLocalStore(join(directory, 'file', 'store'))
    await expect(writeBlob(store.content, Buffer.from('x'))).rejects.toThrow()
  })
})

describeWith(['skopeo'], 'the local store as a layout', () => {
  it('shows its images to skopeo by their full names', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const {root, layers} = await writeSampleImage(store.content)
    await store.images.put(NAME, root)
    const output = execFileSync('skopeo', ['inspect', `oci:${directory}:${NAME}`]).toString()
    expect(JSON.parse(output)).toMatchObject({Digest: root.digest, Layers: layers.map(layer => layer.digest)})
  })

  it('has the images that skopeo copies into it', async () => {
    const directory = await temporaryDirectory()
    await using store = await openLocalStore(directory)
    const {root} = await writeSampleImage(store.content)
    await store.images.put(NAME, root)
    execFileSync('skopeo', ['copy', `oci:${directory}:${NAME}`, `oci:${directory}:example.com/copy:2`])
    await using again = await openLocalStore(directory)
    expect((await again.images.get('example.com/copy:2'))?.target.digest).toBe(root.digest)
    await mkdir(join(directory, 'unrelated'))
    expect(await again.collectGarbage()).toBe(0)
  })
})
