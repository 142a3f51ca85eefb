import {describe, expect, it} from 'vitest'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import {GZIP_DECOMPRESSORS} from '../../src/lib/estargz/decompressor.ts'
import {digestOf} from '../../src/lib/io/sha256.ts'
import {createFetchQueue} from '../../src/lib/layer/fetch-queue.ts'
import {createLayerMounter, type LayerMounterOptions} from '../../src/lib/layer/layer-mounter.ts'
import {createLayerParser} from '../../src/lib/layer/parse-layer.ts'
import type {LayerOrigin, MountableLayer, MountBackend} from '../../src/lib/layer/ports.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import {SILENT_OBSERVER} from '../../src/lib/snapshot/layer-observer.ts'
import {type ConvertedTar, convertTar} from '../support/layers.ts'
import {openTestCache, type WatchedBlob, watchedBlob} from '../support/lazy-layers.ts'
import {archive, directory, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const SIGNAL = new AbortController().signal

/** A registry of layers in memory. */
class MemoryOrigin implements LayerOrigin {
  readonly blobs = new Map<Digest, WatchedBlob>()
  opened = 0
  failure: CodedError | undefined

  add(bytes: Uint8Array): void {
    this.blobs.set(digestOf(bytes), watchedBlob(bytes))
  }

  async openBlob({digest}: {digest: Digest}, tailSize: number) {
    this.opened++
    if (this.failure) throw this.failure
    const blob = this.blobs.get(digest)
    if (!blob) throw new CodedError('not-found', `Cannot find ${digest}`)
    const length = Math.min(tailSize, blob.size)
    return {blob, tail: await blob.read(blob.size - length, length)}
  }

  blob({digest}: {digest: Digest}) {
    return this.blobs.get(digest)!
  }

  async externalToc(): Promise<Uint8Array> {
    throw new CodedError('not-found', 'Cannot find the TOC image')
  }
}

/** Mounts nothing, and remembers what it was told. */
class RecordingBackend implements MountBackend {
  readonly mounted = new Map<string, MountableLayer>()
  readonly released: string[] = []
  releasing: Promise<void> | undefined
  onClose = () => {}
  readonly settled: string[] = []
  readonly wantsImages = true
  failure: Error | undefined

  async mount(layer: MountableLayer, mountpoint: string) {
    if (this.failure) throw this.failure
    this.mounted.set(mountpoint, layer)
    return 'erofs' as const
  }

  async settle(_layer: MountableLayer, mountpoint: string) {
    this.settled.push(mountpoint)
    return 'plain' as const
  }

  async unmount(mountpoint: string) {
    this.mounted.delete(mountpoint)
  }

  async release(name: string) {
    this.released.push(name)
    await this.releasing
  }

  resume() {}

  async close() {
    this.onClose()
  }
}

const FILES = archive(directory('bin/'), member({name: 'bin/sh'}, 'shell'), member({name: 'motd'}, 'hello'))
const OTHERS = archive(member({name: 'etc'}, 'others'))

async function setUp(options: Partial<LayerMounterOptions> = {}, root?: string) {
  const origin = new MemoryOrigin()
  const backend = new RecordingBackend()
  const layer = await convertTar(FILES)
  origin.add(layer.bytes)
  const warnings: string[] = []
  const mounter = createLayerMounter({
    cache: await openTestCache(root ?? (await temporaryDirectory())),
    origin,
    backend,
    decompressors: GZIP_DECOMPRESSORS,
    parse: createLayerParser(GZIP_DECOMPRESSORS),
    codec: createBulkCodec(),
    queue: createFetchQueue({prefetches: 2, backgrounds: 1, quietMs: 0, memory: 1 << 28}),
    log: {info: () => {}, debug: () => {}, warn: (_, message) => void warnings.push(message)},
    observer: SILENT_OBSERVER,
    verification: 'required',
    prefetchSize: 0,
    fill: false,
    ...options,
  })
  return {origin, backend, layer, mounter, warnings}
}

const tocDigestOf = (layer: ConvertedTar) =>
  layer.descriptor.annotations!['containerd.io/snapshot/stargz/toc.digest']!

function labelsOf(layer: ConvertedTar, extra: Record<string, string> = {}): Record<string, string> {
  return {
    'containerd.io/snapshot/remote/stargz.reference': 'registry.example/app:1',
    'containerd.io/snapshot/remote/stargz.digest': layer.descriptor.digest,
    'containerd.io/snapshot/stargz/toc.digest': tocDigestOf(layer),
    ...extra,
  }
}

describe('the mounter of layers', () => {
  it('mounts a layer with its tree and its data, and tells how it is doing', async () => {
    const {backend, layer, mounter} = await setUp()
    await mounter.mount('/m/1', labelsOf(layer), SIGNAL)
    const mounted = backend.mounted.get('/m/1')!
    const tree = await mounted.tree()
    expect([...tree.children.keys()].sort()).toEqual(['bin', 'motd'])
    const bytes = await mounted.device.read(0, 5, {signal: SIGNAL})
    expect(Buffer.from(bytes).toString()).toBe('shell')
    expect(mounter.status()).toMatchObject([
      {
        mountpoint: '/m/1',
        lazy: true,
        format: 'eStargz',
        backend: 'erofs',
        reference: 'registry.example/app:1',
      },
    ])
    await mounter.check('/m/1', {}, SIGNAL)
    await mounter.close('unmount')
  })

  it('opens a layer once for all its mounts, and closes it with the last', async () => {
    const {origin, backend, layer, mounter} = await setUp()
    await Promise.all(['/m/1', '/m/2', '/m/3'].map(at => mounter.mount(at, labelsOf(layer), SIGNAL)))
    expect(origin.opened).toBe(1)
    expect(new Set([...backend.mounted.values()].map(({device}) => device)).size).toBe(1)
    await mounter.unmount('/m/1')
    await mounter.unmount('/m/2')
    expect(backend.released).toEqual([])
    await mounter.unmount('/m/3')
    expect(backend.released).toHaveLength(1)
    await expect(mounter.check('/m/3', {}, SIGNAL)).rejects.toMatchObject({code: 'unavailable'})
  })

  it('needs no registry for a layer that an earlier process has opened', async () => {
    const root = await temporaryDirectory()
    const before = await setUp({}, root)
    await before.mounter.mount('/m/1', labelsOf(before.layer), SIGNAL)
    await before.mounter.close('leave')
    const after = await setUp({}, root)
    after.origin.failure = new CodedError('unavailable', 'Cannot reach the registry')
    await after.mounter.mount('/m/1', labelsOf(after.layer), SIGNAL)
    expect(after.origin.opened).toBe(0)
    await after.mounter.close('leave')
  })

  it('fetches the metadata of all layers of an image with the first, and asks once for each', async () => {
    const {origin, layer, mounter} = await setUp()
    const other = await convertTar(OTHERS)
    origin.add(other.bytes)
    const layers = `${layer.descriptor.digest},${other.descriptor.digest}`
    const both = {'containerd.io/snapshot/remote/stargz.layers': layers}
    await mounter.mount('/m/1', labelsOf(layer, both), SIGNAL)
    expect(origin.opened).toBe(2)
    await mounter.mount('/m/2', labelsOf(other, both), SIGNAL)
    expect(origin.opened).toBe(2)
    await mounter.close('unmount')
  })

  it('opens and prefetches all layers of an image with the first, where their TOCs can be verified', async () => {
    const {origin, backend, layer, mounter} = await setUp()
    const other = await convertTar(OTHERS, {prioritizedPaths: ['etc']})
    origin.add(other.bytes)
    const both = {
      'containerd.io/snapshot/remote/stargz.layers': `${layer.descriptor.digest},${other.descriptor.digest}`,
      'containerd.io/snapshot/remote/stargz.toc-digests': `${tocDigestOf(layer)},${tocDigestOf(other)}`,
    }
    await mounter.mount('/m/1', labelsOf(layer, both), SIGNAL)
    const blob = origin.blobs.get(other.descriptor.digest as Digest)!
    await expect.poll(() => blob.reads.length).toBe(2)
    await mounter.mount('/m/2', labelsOf(other, both), SIGNAL)
    expect(origin.opened).toBe(2)
    await mounter.unmount('/m/2')
    expect(backend.released).toEqual([])
    await mounter.close('unmount')
  })

  it('asks again for a layer whose metadata could not be fetched ahead', async () => {
    const {origin, layer, mounter} = await setUp()
    const other = await convertTar(OTHERS)
    const both = {
      'containerd.io/snapshot/remote/stargz.layers': `${layer.descriptor.digest},${other.descriptor.digest}`,
    }
    await mounter.mount('/m/1', labelsOf(layer, both), SIGNAL)
    origin.add(other.bytes)
    await mounter.mount('/m/2', labelsOf(other, both), SIGNAL)
    await mounter.close('unmount')
  })

  it('refuses a layer whose TOC is another than was promised, and keeps nothing of it', async () => {
    const root = await temporaryDirectory()
    const {layer, mounter, backend} = await setUp({}, root)
    const wrong = labelsOf(layer, {'containerd.io/snapshot/stargz/toc.digest': digestOf('another')})
    await expect(mounter.mount('/m/1', wrong, SIGNAL)).rejects.toMatchObject({code: 'corrupt'})
    expect(backend.mounted.size).toBe(0)
    expect((await openTestCache(root)).hasBlob(layer.descriptor.digest)).toBe(false)
    expect(mounter.status()).toMatchObject([{lazy: false, reason: expect.stringContaining('digest')}])
  })

  it('refuses a layer that is not made to be read lazily, and says so', async () => {
    const {origin, layer, mounter} = await setUp()
    const plain = Buffer.from('not a layer at all')
    origin.add(plain)
    const labels = labelsOf(layer, {'containerd.io/snapshot/remote/stargz.digest': digestOf(plain)})
    await expect(mounter.mount('/m/1', labels, SIGNAL)).rejects.toMatchObject({code: 'unsupported'})
    expect(mounter.status()).toMatchObject([{lazy: false, digest: digestOf(plain)}])
    await mounter.mount('/m/2', labelsOf(layer), SIGNAL)
    expect(mounter.status().map(({lazy}) => lazy)).toEqual([true, false])
    await mounter.close('unmount')
  })

  it('mounts without verification only where that is allowed and asked for, and keeps such layers apart', async () => {
    const {'containerd.io/snapshot/stargz/toc.digest': _, ...unverified} = labelsOf(await convertTar(FILES))
    const skipping = {...unverified, 'containerd.io/snapshot/remote/stargz.skipverify': 'true'}
    for (const [verification, labels, isAllowed] of [
      ['required', unverified, false],
      ['required', skipping, false],
      ['on-request', unverified, false],
      ['on-request', skipping, true],
      ['off', unverified, true],
    ] as const) {
      const {mounter, backend, layer} = await setUp({verification})
      const mounting = mounter.mount('/m/1', labels, SIGNAL)
      if (isAllowed) await mounting
      else await expect(mounting).rejects.toMatchObject({code: 'unsupported'})
      if (isAllowed && verification === 'on-request') {
        await mounter.mount('/m/2', labelsOf(layer), SIGNAL)
        const names = [...backend.mounted.values()].map(({device}) => device.name)
        expect(new Set(names).size).toBe(2)
      }
      await mounter.close('unmount')
    }
  })

  it('leaves nothing open behind a mount that fails', async () => {
    const {backend, layer, mounter} = await setUp()
    backend.failure = new CodedError('internal', 'Cannot mount')
    await expect(mounter.mount('/m/1', labelsOf(layer), SIGNAL)).rejects.toThrow('Cannot mount')
    expect(backend.released).toHaveLength(1)
    backend.failure = undefined
    await mounter.mount('/m/1', labelsOf(layer), SIGNAL)
    await mounter.close('unmount')
  })

  it('opens a layer anew that is just being closed, and serves it then', async () => {
    const {backend, layer, mounter} = await setUp()
    await mounter.mount('/m/1', labelsOf(layer), SIGNAL)
    const first = backend.mounted.get('/m/1')!.device
    const releasing = Promise.withResolvers<void>()
    backend.releasing = releasing.promise
    const unmounting = mounter.unmount('/m/1')
    await expect.poll(() => backend.released).toHaveLength(1)
    const mounting = mounter.mount('/m/2', labelsOf(layer), SIGNAL)
    await new Promise(setImmediate)
    expect(backend.mounted.size).toBe(0)
    releasing.resolve()
    await Promise.all([unmounting, mounting])
    const second = backend.mounted.get('/m/2')!.device
    expect(second).not.toBe(first)
    expect(Buffer.from(await second.read(0, 5, {signal: SIGNAL})).toString()).toBe('shell')
    await mounter.close('unmount')
  })

  it('leaves readers who wait to the backend when it ends, instead of failing them', async () => {
    const {origin, backend, layer, mounter} = await setUp()
    await mounter.mount('/m/1', labelsOf(layer), SIGNAL)
    const blob = origin.blobs.get(layer.descriptor.digest)!
    const asked = Promise.withResolvers<void>()
    blob.behave = async (_bytes, _offset, {signal}) => {
      asked.resolve()
      return new Promise((_, reject) => signal!.addEventListener('abort', () => reject(signal!.reason)))
    }
    const order: string[] = []
    backend.onClose = () => void order.push('backend')
    const {device} = backend.mounted.get('/m/1')!
    const read = device.read(0, 5, {signal: SIGNAL}).catch(() => void order.push('reader'))
    await asked.promise
    await mounter.close('leave')
    await read
    expect(order).toEqual(['backend', 'reader'])
  })

  it('fills a layer when it is told to, and needs nobody for it afterwards', async () => {
    const {origin, backend, layer, mounter} = await setUp({fill: true})
    await mounter.mount('/m/1', labelsOf(layer), SIGNAL)
    await expect.poll(() => backend.mounted.get('/m/1')?.isComplete()).toBe(true)
    await expect.poll(() => mounter.status()[0]?.backend).toBe('plain')
    expect(backend.settled).toEqual(['/m/1'])
    const blob = origin.blobs.get(layer.descriptor.digest)!
    const reads = blob.reads.length
    const {device} = backend.mounted.get('/m/1')!
    expect(Buffer.from(await device.read(0, 5, {signal: SIGNAL})).toString()).toBe('shell')
    expect(blob.reads).toHaveLength(reads)
    await mounter.close('unmount')
  })

  it('takes a cached layer that is damaged for one that is not there', async () => {
    const root = await temporaryDirectory()
    const before = await setUp({}, root)
    await before.mounter.mount('/m/1', labelsOf(before.layer), SIGNAL)
    await before.mounter.close('leave')
    const cache = await openTestCache(root)
    const key = tocDigestOf(before.layer).slice('sha256:'.length)
    const record = (await cache.find(key))!
    await cache.remove(key)
    await cache.add(key, {...record, tail: Buffer.alloc(record.tail.length)})
    const after = await setUp({}, root)
    await after.mounter.mount('/m/1', labelsOf(after.layer), SIGNAL)
    expect(after.origin.opened).toBe(1)
    await after.mounter.close('leave')
  })
})
