// The store over containerd, with a fake containerd that anybody can run and, as root, with the real one.

import {randomBytes} from 'node:crypto'
import {rm, writeFile} from 'node:fs/promises'
import {join} from 'node:path'
import {afterAll, beforeAll, describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {type ContainerdStore, openContainerdStore} from '../../src/lib/containerd/store.ts'
import {copyBlob} from '../../src/lib/copy/copy-image.ts'
import {codeOf, messageOf} from '../../src/lib/errors/coded-error.ts'
import type {ContentStore} from '../../src/lib/oci/content-store.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {encodeJson} from '../../src/lib/oci/manifest.ts'
import {CONTAINERDS, startContainerd} from '../support/containerd.ts'
import {startFakeContainerd} from '../support/fake-containerd.ts'
import {describeWith} from '../support/requires.ts'
import {readBlob, writeBlob, writeSampleImage, writeSampleIndex} from '../support/sample-image.ts'

const ANY = 'application/octet-stream'
/** Longer than several messages, and no multiple of anything. */
const LARGE = 6 * 1024 * 1024 + 4321

const describeBlob = (bytes: Uint8Array): Descriptor => ({
  mediaType: ANY,
  digest: digestOf(bytes),
  size: bytes.length,
})

const isThere = async (content: ContentStore, descriptor: Descriptor): Promise<boolean> =>
  (await content.info(descriptor)) !== undefined

/** What every containerd must do; each test has a namespace of its own. */
function itIsAStore(addressOf: () => string): void {
  let count = 0
  const open = (): Promise<ContainerdStore> => {
    count += 1
    return openContainerdStore({address: addressOf(), namespace: `test-${count}`})
  }
  const reopen = (): Promise<ContainerdStore> =>
    openContainerdStore({address: addressOf(), namespace: `test-${count}`})

  it.each([0, 1, 65536, 1024 * 1024, LARGE])('keeps a blob of %i bytes', async size => {
    await using store = await open()
    await using _ = await store.lease()
    const bytes = randomBytes(size)
    const blob = await writeBlob(store.content, bytes)
    expect(await store.content.info(blob)).toEqual({digest: blob.digest, size, labels: {}})
    expect(Buffer.compare(await readBlob(store.content, blob), bytes)).toBe(0)
  })

  it('puts a blob together from pieces of any size, and the writer copies them', async () => {
    await using store = await open()
    await using _ = await store.lease()
    const bytes = randomBytes(LARGE)
    const blob = describeBlob(bytes)
    await using writer = await store.content.write({mediaType: ANY})
    for (let offset = 0, size = 1; offset < LARGE; offset += size, size = size * 3 + 1) {
      const piece = Buffer.from(bytes.subarray(offset, offset + size))
      await writer.write(piece)
      piece.fill(0)
    }
    await writer.commit(blob)
    expect(Buffer.compare(await readBlob(store.content, blob), bytes)).toBe(0)
  })

  it('reads ranges', async () => {
    await using store = await open()
    await using _ = await store.lease()
    const bytes = randomBytes(LARGE)
    await using blob = await store.content.open(await writeBlob(store.content, bytes))
    for (const [offset, length] of [
      [0, 0],
      [LARGE, 0],
      [0, 10],
      [65530, 12],
      [1048575, 2097154],
      [LARGE - 1, 1],
    ] as const) {
      expect(Buffer.compare(await blob.read(offset, length), bytes.subarray(offset, offset + length))).toBe(0)
    }
  })

  it.each([
    [-1, 1],
    [0, -1],
    [0, 11],
    [10, 1],
    [0.5, 1],
  ])('refuses the range %d+%d of ten bytes', async (offset, length) => {
    await using store = await open()
    await using _ = await store.lease()
    await using blob = await store.content.open(await writeBlob(store.content, randomBytes(10)))
    expect(codeOf(await blob.read(offset, length).catch(error => error))).toBe('invalid-argument')
  })

  it('does not find what is not there', async () => {
    await using store = await open()
    const absent = describeBlob(randomBytes(8))
    expect(await isThere(store.content, absent)).toBe(false)
    const error = await store.content.open(absent).catch(failure => failure)
    expect(codeOf(error)).toBe('not-found')
    expect(messageOf(error)).toMatch(/^Cannot find sha256:.* in containerd ".*", namespace "test-\d+"$/)
    expect(codeOf(await store.content.setLabels(absent.digest, {a: 'b'}).catch(failure => failure))).toBe(
      'not-found',
    )
  })

  it('takes a blob of another size for absent, and refuses to open it', async () => {
    await using store = await open()
    await using _ = await store.lease()
    const blob = await writeBlob(store.content, randomBytes(10))
    expect(await isThere(store.content, {...blob, size: 11})).toBe(false)
    expect(codeOf(await store.content.open({...blob, size: 11}).catch(error => error))).toBe('corrupt')
  })

  it('merges labels, and an empty value removes one', async () => {
    await using store = await open()
    await using _ = await store.lease()
    const bytes = randomBytes(10)
    const blob = describeBlob(bytes)
    await using writer = await store.content.write(blob)
    await writer.write(bytes)
    await writer.commit(blob, {labels: {'a.b/c': '1', d: '2'}})
    await store.content.setLabels(blob.digest, {'a.b/c': '3', 'e.f/g': '4', d: ''})
    expect((await store.content.info(blob))?.labels).toEqual({'a.b/c': '3', 'e.f/g': '4'})
    await store.content.setLabels(blob.digest, {})
  })

  describe('a writer', () => {
    it.each([
      ['another digest', {...describeBlob(Buffer.from('other')), size: 4}],
      ['fewer bytes', {...describeBlob(Buffer.from('data')), size: 5}],
      ['more bytes', {...describeBlob(Buffer.from('data')), size: 3}],
    ])('refuses to commit %s', async (_, expected) => {
      await using store = await open()
      await using _lease = await store.lease()
      await using writer = await store.content.write({mediaType: ANY})
      await writer.write(Buffer.from('data'))
      expect(codeOf(await writer.commit(expected).catch(error => error))).toBe('corrupt')
      expect(await isThere(store.content, {...expected, size: -1})).toBe(false)
    })

    it('of a blob that is there succeeds, and adds its labels', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const bytes = randomBytes(LARGE)
      const blob = await writeBlob(store.content, bytes)
      for (const hint of [blob, {mediaType: ANY}]) {
        await using writer = await store.content.write(hint)
        await writer.write(bytes)
        await writer.commit(blob, {labels: {again: 'yes'}})
      }
      expect((await store.content.info(blob))?.labels).toEqual({again: 'yes'})
    })

    it('of a blob that is there still checks what it is given', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const blob = await writeBlob(store.content, Buffer.from('data'))
      await using writer = await store.content.write(blob)
      await writer.write(Buffer.from('fata'))
      expect(codeOf(await writer.commit(blob).catch(error => error))).toBe('corrupt')
    })

    it('does not mind another writer of the same blob', async () => {
      await using first = await open()
      await using second = await reopen()
      await using _first = await first.lease()
      await using _second = await second.lease()
      const bytes = randomBytes(LARGE)
      const blob = describeBlob(bytes)
      const stores = [first, second, first, second]
      await Promise.all(stores.map(store => writeBlob(store.content, bytes)))
      expect(Buffer.compare(await readBlob(first.content, blob), bytes)).toBe(0)
    })

    it('stops when aborted', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const abort = new AbortController()
      await using writer = await store.content.write({mediaType: ANY}, {signal: abort.signal})
      await writer.write(randomBytes(LARGE))
      abort.abort()
      expect(codeOf(await writer.write(randomBytes(LARGE)).catch(error => error))).toBe('cancelled')
    })
  })

  describe('images', () => {
    it('are created, replaced, listed and removed', async () => {
      await using store = await open()
      const lease = await store.lease()
      const {root} = await writeSampleImage(store.content)
      const {root: other} = await writeSampleImage(store.content, {layers: [{x: 'y'}]})
      const created = await store.images.put('b', root, {labels: {l: '1'}})
      expect(created).toMatchObject({name: 'b', target: root, labels: {l: '1'}})
      const replaced = await store.images.put('b', other)
      expect(replaced).toMatchObject({target: other, labels: {l: '1'}, createdAt: created.createdAt})
      await store.images.put('a', root)
      await lease[Symbol.asyncDispose]()
      expect((await store.images.list()).map(({name}) => name)).toEqual(['a', 'b'])
      expect(await store.images.get('b')).toEqual(replaced)
      await store.images.remove('b')
      expect(await store.images.get('b')).toBeUndefined()
      expect(codeOf(await store.images.remove('b').catch(error => error))).toBe('not-found')
    })

    it('keep their whole tree through a collection, and without them it goes', async () => {
      await using store = await open()
      const lease = await store.lease()
      const {root, images} = await writeSampleIndex(store.content, ['amd64', 'arm64'])
      const stray = await writeBlob(store.content, randomBytes(1000))
      await store.images.put('index', root)
      await lease[Symbol.asyncDispose]()
      await store.collectGarbage()
      const all = [root, ...images.flatMap(image => [image.root, image.config, ...image.layers])]
      for (const blob of all) expect(await isThere(store.content, blob)).toBe(true)
      expect(await isThere(store.content, stray)).toBe(false)
      await store.images.remove('index', {sync: true})
      for (const blob of all) expect(await isThere(store.content, blob)).toBe(false)
    })

    it('label what they need as containerd does', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const {root, images} = await writeSampleIndex(store.content, ['amd64', 'arm64'])
      await store.images.put('index', root)
      expect((await store.content.info(root))?.labels).toEqual({
        'containerd.io/gc.ref.content.m.0': images[0]!.root.digest,
        'containerd.io/gc.ref.content.m.1': images[1]!.root.digest,
      })
      expect((await store.content.info(images[0]!.root))?.labels).toEqual({
        'containerd.io/gc.ref.content.config': images[0]!.config.digest,
        'containerd.io/gc.ref.content.l.0': images[0]!.layers[0]!.digest,
      })
    })

    it('may lack the manifests of other platforms, but not their own root', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const {root: manifest} = await writeSampleImage(store.content)
      const absent = {...manifest, ...describeBlob(randomBytes(9)), mediaType: manifest.mediaType}
      const mediaType = 'application/vnd.oci.image.index.v1+json'
      const index = encodeJson({schemaVersion: 2, mediaType, manifests: [manifest, absent]})
      const root = await writeBlob(store.content, index, mediaType)
      expect((await store.images.put('sparse', root)).target).toEqual(root)
      const error = await store.images.put('broken', absent).catch(failure => failure)
      expect(codeOf(error)).toBe('not-found')
    })

    it('need a name', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const {root} = await writeSampleImage(store.content)
      expect(codeOf(await store.images.put('', root).catch(error => error))).toBe('invalid-argument')
    })

    it('may be a hundred', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const {root} = await writeSampleImage(store.content)
      const names = Array.from(
        {length: 100},
        (_, index) => `docker.io/library/i:${String(index).padStart(3, '0')}`,
      )
      await Promise.all(names.map(name => store.images.put(name, root)))
      expect((await store.images.list()).map(({name}) => name)).toEqual(names)
    })

    it('may be put and removed by two at once', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const {root} = await writeSampleImage(store.content)
      const puts = Array.from({length: 20}, () => store.images.put('same', root))
      for (const record of await Promise.all(puts)) expect(record.target).toEqual(root)
    })
  })

  describe('a lease', () => {
    it('keeps what is written under it, and what is found', async () => {
      await using store = await open()
      await using other = await reopen()
      const lease = await store.lease()
      const written = await writeBlob(store.content, randomBytes(100))
      {
        await using _ = await other.lease()
        expect(await isThere(other.content, written)).toBe(true)
        await lease[Symbol.asyncDispose]()
        await store.collectGarbage()
        expect(await isThere(other.content, written)).toBe(true)
      }
      await store.collectGarbage()
      expect(await isThere(store.content, written)).toBe(false)
    })

    it('lasts until its last holder is done, and may be taken again', async () => {
      await using store = await open()
      const first = await store.lease()
      const second = await store.lease()
      const written = await writeBlob(store.content, randomBytes(100))
      await first[Symbol.asyncDispose]()
      await first[Symbol.asyncDispose]()
      await store.collectGarbage()
      expect(await isThere(store.content, written)).toBe(true)
      await second[Symbol.asyncDispose]()
      await store.collectGarbage()
      expect(await isThere(store.content, written)).toBe(false)
      await using _third = await store.lease()
      const again = await writeBlob(store.content, randomBytes(100))
      await store.collectGarbage()
      expect(await isThere(store.content, again)).toBe(true)
    })

    it('keeps a blob that is half written', async () => {
      await using store = await open()
      await using _ = await store.lease()
      const bytes = randomBytes(LARGE)
      const blob = describeBlob(bytes)
      await using writer = await store.content.write(blob)
      await writer.write(bytes.subarray(0, LARGE / 2))
      await store.collectGarbage()
      await writer.write(bytes.subarray(LARGE / 2))
      await writer.commit(blob)
      expect(Buffer.compare(await readBlob(store.content, blob), bytes)).toBe(0)
    })
  })
}

describe('with a fake containerd', () => {
  let fake: Awaited<ReturnType<typeof startFakeContainerd>>
  beforeAll(async () => {
    fake = await startFakeContainerd()
  })
  afterAll(() => fake[Symbol.asyncDispose]())

  itIsAStore(() => fake.address)

  it('tells how many bytes a collection frees', async () => {
    await using store = await openContainerdStore({address: fake.address, namespace: 'freed'})
    const lease = await store.lease()
    await writeBlob(store.content, randomBytes(1000))
    expect(await store.collectGarbage()).toBe(0)
    await lease[Symbol.asyncDispose]()
    expect(await store.collectGarbage()).toBe(1000)
    expect(await store.collectGarbage()).toBe(0)
  })

  it('leaves neither lease nor ingest behind, however writing ends', async () => {
    {
      await using store = await openContainerdStore({address: fake.address, namespace: 'tidy'})
      await using _ = await store.lease()
      const abort = new AbortController()
      await using _unfinished = await store.content.write({mediaType: ANY})
      await using aborted = await store.content.write({mediaType: ANY}, {signal: abort.signal})
      await aborted.write(randomBytes(LARGE))
      expect(fake.namespace('tidy').ingests.size).toBe(2)
      abort.abort()
    }
    expect(fake.namespace('tidy').leases.size).toBe(0)
    expect(fake.namespace('tidy').ingests.size).toBe(0)
  })

  it('removes the leases of processes that were killed, and no others', async () => {
    const {leases} = fake.namespace('stale')
    const lease = (owner: string) => ({labels: {'ctr-remote.io/owner': owner}, resources: new Set<string>()})
    leases.set('killed', lease('00000000.1.2.3'))
    leases.set('ours', lease('nonsense'))
    leases.set('theirs', {labels: {}, resources: new Set()})
    await using store = await openContainerdStore({address: fake.address, namespace: 'stale'})
    await using _ = await store.lease()
    expect([...leases.keys()]).toEqual(['theirs', expect.stringMatching(/^ctr-remote-[0-9a-f]{16}$/)])
    await using other = await openContainerdStore({address: fake.address, namespace: 'stale'})
    await using _other = await other.lease()
    expect(leases.size).toBe(3)
  })

  it.each([
    ['Content.Write', 'unavailable'],
    ['Images.Create', 'unavailable'],
    ['Content.Info', 'unavailable'],
  ])('a %s that fails fails the work, and running it again succeeds', async (method, code) => {
    await using store = await openContainerdStore({address: fake.address, namespace: 'again'})
    await using _ = await store.lease()
    const work = async (): Promise<unknown> => {
      const {root} = await writeSampleImage(store.content, {layers: [{[method]: 'x'}]})
      return store.images.put('again', root)
    }
    fake.failNext(method, 14, 'the disk is full')
    const error = await work().catch(failure => failure)
    expect(codeOf(error)).toBe(code)
    expect(messageOf(error)).toMatch(/^Cannot .* \(containerd ".*", namespace "again"\): the disk is full$/)
    await work()
  })

  it('is unavailable when containerd dies in the middle of a blob', async () => {
    await using mortal = await startFakeContainerd()
    await using store = await openContainerdStore({address: mortal.address})
    await using _ = await store.lease()
    await using writer = await store.content.write({mediaType: ANY})
    await writer.write(randomBytes(LARGE))
    mortal.crash()
    const error = await writer.write(randomBytes(4 * LARGE)).catch(failure => failure)
    expect(codeOf(error)).toBe('unavailable')
  })
})

for (const {release, needs, programs} of CONTAINERDS) {
  describeWith(['root', ...needs], `with ${release}`, () => {
    let containerd: Awaited<ReturnType<typeof startContainerd>>
    beforeAll(async () => {
      containerd = await startContainerd({programs})
    })
    afterAll(() => containerd[Symbol.asyncDispose]())

    itIsAStore(() => containerd.address)

    it('shows ctr what was written, and sees what ctr wrote', async () => {
      await using store = await openContainerdStore({address: containerd.address, namespace: 'judge'})
      await using _ = await store.lease()
      const {root, layers} = await writeSampleImage(store.content)
      await store.images.put('docker.io/library/sample:1', root, {labels: {a: 'b'}})
      const ctr = (...args: string[]) => containerd.ctr('-n', 'judge', ...args)
      expect(await ctr('images', 'ls')).toMatch(
        /docker\.io\/library\/sample:1 +application\/vnd\.oci\.image\.manifest.*a=b/,
      )
      expect(await ctr('images', 'check')).toMatch(/docker\.io\/library\/sample:1 .* complete \(3\/3\)/)
      expect(await ctr('content', 'ls', '-q')).toContain(layers[0]!.digest)
      await ctr('images', 'tag', 'docker.io/library/sample:1', 'by-ctr')
      expect((await store.images.get('by-ctr'))?.target).toEqual(root)
    })

    it('takes what another namespace has without reading it', async () => {
      const bytes = randomBytes(LARGE)
      await using other = await openContainerdStore({address: containerd.address, namespace: 'has-it'})
      await using _other = await other.lease()
      const blob = await writeBlob(other.content, bytes)
      await using store = await openContainerdStore({address: containerd.address, namespace: 'wants-it'})
      await using _ = await store.lease()
      const reported: number[] = []
      await copyBlob(other.content, store.content, blob, {onBytes: done => reported.push(done)})
      expect(reported).toEqual([])
      expect((await readBlob(store.content, blob)).equals(bytes)).toBe(true)
    })

    it('leaves neither lease nor ingest behind, however writing ends', async () => {
      {
        await using store = await openContainerdStore({address: containerd.address, namespace: 'tidy'})
        await using _ = await store.lease()
        await using unfinished = await store.content.write({mediaType: ANY})
        await unfinished.write(randomBytes(LARGE))
        expect(await containerd.ctr('-n', 'tidy', 'content', 'active')).toContain('ctr-remote-')
      }
      expect(await containerd.ctr('-n', 'tidy', 'content', 'active')).not.toContain('ctr-remote-')
      expect(await containerd.ctr('-n', 'tidy', 'leases', 'ls', '-q')).toBe('')
    })

    it('reads the files of blobs, and notices when they are damaged', async () => {
      await using store = await openContainerdStore({address: containerd.address, namespace: 'files'})
      await using _ = await store.lease()
      const bytes = randomBytes(LARGE)
      const blob = await writeBlob(store.content, bytes)
      const root = join(containerd.directory, 'root/io.containerd.content.v1.content/blobs/sha256')
      const file = join(root, blob.digest.slice('sha256:'.length))
      await using opened = await store.content.open(blob)
      await writeFile(file, bytes.fill(0, 0, 100))
      expect(Buffer.compare(await opened.read(0, 4), Buffer.alloc(4))).toBe(0)
      expect(codeOf(await readBlob(store.content, blob).catch(error => error))).toBe('corrupt')
      await rm(file)
      expect(codeOf(await readBlob(store.content, blob).catch(error => error))).toBe('not-found')
    })

    it('reads through the socket for a user who may not read the files', async () => {
      await using store = await openContainerdStore({address: containerd.address, namespace: 'socket'})
      await using _ = await store.lease()
      const bytes = randomBytes(LARGE)
      const blob = await writeBlob(store.content, bytes)
      process.seteuid!(65534)
      try {
        await using opened = await store.content.open(blob)
        expect(Buffer.compare(await opened.read(1048575, 2097154), bytes.subarray(1048575, 3145729))).toBe(0)
        expect((await readBlob(store.content, blob)).equals(bytes)).toBe(true)
      } finally {
        process.seteuid!(0)
      }
    })

    it('is unavailable when containerd is killed in the middle of a blob, and goes on after a restart', async () => {
      await using mortal = await startContainerd({programs})
      const bytes = randomBytes(LARGE)
      {
        await using store = await openContainerdStore({address: mortal.address})
        await using _ = await store.lease()
        await using writer = await store.content.write({mediaType: ANY})
        await writer.write(bytes)
        await mortal.kill()
        const error = await writer.commit(describeBlob(bytes)).catch(failure => failure)
        expect(codeOf(error)).toBe('unavailable')
        expect(messageOf(error)).toMatch(/namespace "default"/)
      }
      await mortal.restart()
      await using store = await openContainerdStore({address: mortal.address})
      {
        await using _ = await store.lease()
        await writeBlob(store.content, bytes)
      }
      // Who collects does not matter: containerd also does by itself soon after its start.
      await store.collectGarbage()
      expect(await isThere(store.content, describeBlob(bytes))).toBe(false)
      expect(await mortal.ctr('content', 'ls', '-q')).toBe('')
    })
  })
}
