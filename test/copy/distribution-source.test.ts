// Where blobs came from: remembered in labels as containerd has them, and found again for a push.

import {describe, expect, it} from 'vitest'
import {knownSources, labelledTarget} from '../../src/lib/copy/distribution-source.ts'
import {openLocalStore} from '../../src/lib/layout/local-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import type {Store} from '../../src/lib/oci/image-store.ts'
import {openStoreTarget} from '../../src/lib/transport/store-image.ts'
import {writeBlob} from '../support/sample-image.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const bytes = Buffer.from('layer')
const KEY = 'containerd.io/distribution.source.'

/** Writes or finds the blob as a pull of each of `references` does. */
async function pull(store: Store, references: readonly string[]): Promise<Descriptor> {
  let blob: Descriptor | undefined
  for (const reference of references) {
    await using target = await openStoreTarget(store, 'x')
    const {content} = labelledTarget(target, reference)
    if (!blob || !(await content.info(blob))) blob = await writeBlob(content, bytes)
  }
  return blob!
}

async function checkLabel(references: readonly string[], host: string, value: string): Promise<void> {
  await using store = await openLocalStore(await temporaryDirectory())
  const blob = await pull(store, references)
  expect((await store.content.info(blob))?.labels[`${KEY}${host}`]).toBe(value)
}

async function checkSources(
  references: readonly string[],
  to: string,
  expected: readonly string[],
): Promise<void> {
  await using store = await openLocalStore(await temporaryDirectory())
  const blob = await pull(store, references)
  expect(await knownSources(store.content, [blob], to)).toEqual(expected)
}

describe('the label of a blob', () => {
  it('names host and repository', () => checkLabel(['ghcr.io/o/app:1'], 'ghcr.io', 'o/app'))
  it('fills in Docker Hub', () => checkLabel(['debian'], 'docker.io', 'library/debian'))
  it('has no port', () => checkLabel(['127.0.0.1:5000/app:1'], '127.0.0.1', 'app'))
  it('lists repositories in order, each once', () =>
    checkLabel(['h.io/b', 'h.io/a', 'h.io/b:2', 'h.io/c'], 'h.io', 'a,b,c'))
  it('stays within what containerd accepts', async () => {
    const long = Array.from({length: 40}, (_, index) => `h.io/${'x'.repeat(200)}${index}`)
    await using store = await openLocalStore(await temporaryDirectory())
    const blob = await pull(store, long)
    const label = (await store.content.info(blob))!.labels[`${KEY}h.io`]!
    expect(label.length).toBeGreaterThan(3000)
    expect(KEY.length + 'h.io'.length + label.length).toBeLessThanOrEqual(4096)
  })
})

describe('the sources of a push', () => {
  it('are the repositories of the same host', () =>
    checkSources(['h.io/a', 'other.io/b'], 'h.io/new:1', ['h.io/a']))
  it('are on the registry of the push, whatever its port', () =>
    checkSources(['h.io:1/a'], 'h.io:2/new', ['h.io:2/a']))
  it('are none for another host', () => checkSources(['h.io/a'], 'other.io/a', []))
  it('are no more than three', async () => {
    const many = ['h.io/a', 'h.io/b', 'h.io/c', 'h.io/d']
    await checkSources(many, 'h.io/new', ['h.io/a', 'h.io/b', 'h.io/c'])
  })
  it('skip labels that are no repositories, and blobs that are not there', async () => {
    await using store = await openLocalStore(await temporaryDirectory())
    const blob = await pull(store, ['h.io/a'])
    await store.content.setLabels(blob.digest, {[`${KEY}h.io`]: 'a,UPPER,../x,,a b'})
    const absent = {...blob, size: blob.size + 1}
    expect(await knownSources(store.content, [blob, absent], 'h.io/new')).toEqual(['h.io/a'])
  })
})
