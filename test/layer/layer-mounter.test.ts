import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import {GZIP_DECOMPRESSORS} from '../../src/lib/estargz/decompressor.ts'
import {FailureMemory} from '../../src/lib/layer/failure-memory.ts'
import {FetchQueue} from '../../src/lib/layer/fetch-queue.ts'
import {LayerMounter, type LayerMounterOptions} from '../../src/lib/layer/layer-mounter.ts'
import {SILENT_OBSERVER} from '../../src/lib/layer/layer-observer.ts'
import {createNativeParser} from '../../src/lib/layer/native-parser.ts'
import type {LayerOrigin, MountableLayer, MountBackend} from '../../src/lib/layer/ports.ts'
import {StartRecorder} from '../../src/lib/layer/start-recorder.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {CallOptions} from '../../src/lib/oci/content-store.ts'
import type {Digest} from '../../src/lib/oci/digest.ts'
import {type ConvertedTar, convertTar} from '../support/layers.ts'
import {openTestCache, type WatchedBlob, watchedBlob} from '../support/lazy-layers.ts'
import {PATIENTLY} from '../support/patience.ts'
import {archive, directory, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const SIGNAL = new AbortController().signal
const REFERENCE = 'containerd.io/snapshot/remote/stargz.reference'

/** A registry of layers in memory. */
class MemoryOrigin implements LayerOrigin {
  readonly blobs = new Map<Digest, WatchedBlob>()
  opened = 0
  onOpen = () => {}
  failure: CodedError | undefined
  /** What reading of an image fails with, and which images were read of. */
  readonly refusals = new Map<string, CodedError>()
  readonly asked: string[] = []

  add(bytes: Uint8Array): void {
    this.blobs.set(digestOf(bytes), watchedBlob(bytes))
  }

  async openBlob({digest}: {digest: Digest}, tailSize: number) {
    this.opened++
    this.onOpen()
    if (this.failure) throw this.failure
    const blob = this.blobs.get(digest)
    if (!blob) throw new CodedError('not-found', `Cannot find ${digest}`)
    const length = Math.min(tailSize, blob.size)
    return {blob, tail: await blob.read(blob.size - length, length)}
  }

  blob({reference, digest}: {reference: string; digest: Digest}, size: number) {
    return {
      size,
      read: (offset: number, length: number, call: CallOptions = {}) => {
        this.asked.push(reference)
        const failure = this.refusals.get(reference)
        if (failure) return Promise.reject(failure)
        return this.blobs.get(digest)!.read(offset, length, call)
      },
    }
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
  lose: (reason: string) => void = () => {}
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

  async check(mountpoint: string) {
    if (!this.mounted.has(mountpoint)) throw new CodedError('unavailable', 'Cannot use it: it is gone')
  }

  onLost(listener: (reason: string) => void) {
    this.lose = listener
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
  const mounter = new LayerMounter({
    cache: await openTestCache(root ?? (await temporaryDirectory())),
    origin,
    backend,
    decompressors: GZIP_DECOMPRESSORS,
    parse: createNativeParser({decompressors: GZIP_DECOMPRESSORS}).parse,
    codec: createBulkCodec(),
    queue: new FetchQueue({prefetches: 2, backgrounds: 1, memory: 1 << 28}),
    failures: new FailureMemory(),
    onClosed: async () => {},
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
    await mounter.check('/m/1')
    await mounter.close('unmount')
  })

  it('opens layers that are announced, which whoever mounts them finds open', async () => {
    const {origin, layer, mounter, backend} = await setUp()
    const top = await convertTar(archive(directory('etc/')))
    origin.add(top.bytes)
    const digests = [layer, top].map(({descriptor}) => descriptor.digest)
    const lists = {
      'containerd.io/snapshot/remote/stargz.layers': digests.join(','),
      'containerd.io/snapshot/remote/stargz.toc-digests': [layer, top].map(tocDigestOf).join(','),
    }
    mounter.announce(labelsOf(layer, lists))
    await expect.poll(() => origin.opened).toBe(2)
    await mounter.mount('/m/1', labelsOf(layer, lists), SIGNAL)
    await mounter.mount('/m/2', labelsOf(top), SIGNAL)
    expect(origin.opened).toBe(2)
    expect([...backend.mounted.values()].map(mounted => mounted.state().digest)).toEqual(digests)
    await mounter.close('unmount')
  })

  it('refuses an announcement of no layer, and survives one of a layer that cannot be had', async () => {
    const {origin, layer, mounter} = await setUp()
    expect(() => mounter.announce({})).toThrow('Cannot mount a layer lazily')
    origin.failure = new CodedError('unavailable', 'Cannot reach it')
    mounter.announce(labelsOf(layer))
    await expect.poll(() => origin.opened).toBe(1)
    origin.failure = undefined
    await mounter.mount('/m/1', labelsOf(layer), SIGNAL)
    await mounter.close('unmount')
  })

  it('tells every step of a start as it happens', async () => {
    const observer = new StartRecorder()
    const {layer, mounter} = await setUp({observer})
    await mounter.mount('/m/1', labelsOf(layer), SIGNAL)
    mounter.expectReads(['/m/1', '/m/of-nobody'])
    await mounter.close('unmount')
    const [start, ...others] = observer.starts()
    expect(others).toEqual([])
    expect(start).toMatchObject({reference: 'registry.example/app:1', layers: [layer.descriptor.digest]})
    expect(start!.spans.map(({step}) => step)).toEqual(['toc-request', 'toc', 'mount', 'layer', 'use'])
    for (const {fromMs, toMs} of start!.spans) expect(fromMs).toBeLessThanOrEqual(toMs)
  })

  describe('an image whose start is expected', () => {
    const PROGRAM = archive(
      directory('usr/'),
      member({name: 'usr/app'}, '#!/bin/sh\n'),
      member({name: 'data'}, 'x'),
    )
    const COMMAND = {
      'containerd.io/snapshot/remote/stargz.start': JSON.stringify({words: ['app', '-x'], path: '/usr'}),
    }

    async function twoLayers(options: Partial<LayerMounterOptions> = {}, prioritizedPaths: string[] = []) {
      const set = await setUp(options)
      const top = await convertTar(PROGRAM, {prioritizedPaths})
      set.origin.add(top.bytes)
      const lists = {
        'containerd.io/snapshot/remote/stargz.layers': `${set.layer.descriptor.digest},${top.descriptor.digest}`,
        'containerd.io/snapshot/remote/stargz.toc-digests': `${tocDigestOf(set.layer)},${tocDigestOf(top)}`,
      }
      const bottom = labelsOf(set.layer, {...lists, ...COMMAND})
      const present = () => mountedBytes(set.mounter)
      return {...set, top, bottom, topLabels: labelsOf(top, COMMAND), present}
    }

    /** Bytes that are here of each mounted layer, by digest. */
    const mountedBytes = (mounter: LayerMounter) =>
      Object.fromEntries(mounter.status().map(({digest, present}) => [digest, present]))

    it('has its program fetched with its interpreter, before anything is mounted or read, and nothing else', async () => {
      const {layer, top, bottom, topLabels, mounter, present} = await twoLayers()
      mounter.expectStart([], bottom)
      await mounter.mount('/m/1', bottom, SIGNAL)
      await mounter.mount('/m/2', topLabels, SIGNAL)
      const [script, shell] = ['#!/bin/sh\n'.length, 'shell'.length]
      await expect
        .poll(present, PATIENTLY)
        .toEqual({[layer.descriptor.digest]: shell, [top.descriptor.digest]: script})
      await mounter.close('unmount')
    })

    it('has the same with the last layer, as a kubelet asks, in those that are mounted below', async () => {
      const {layer, bottom, topLabels, mounter, present} = await twoLayers()
      await mounter.mount('/m/1', bottom, SIGNAL)
      mounter.expectStart(['/m/1'], topLabels)
      await mounter.mount('/m/2', topLabels, SIGNAL)
      await expect.poll(() => present()[layer.descriptor.digest], PATIENTLY).toBe('shell'.length)
      await mounter.close('unmount')
    })

    it('has nothing fetched where that is switched off, nor if a layer of it was optimized', async () => {
      for (const set of [await twoLayers({prefetchSize: undefined}), await twoLayers({}, ['data'])]) {
        const {layer, bottom, topLabels, mounter, present} = set
        mounter.expectStart([], bottom)
        await mounter.mount('/m/1', bottom, SIGNAL)
        await mounter.mount('/m/2', topLabels, SIGNAL)
        await mounter.close('unmount')
        expect(present()[layer.descriptor.digest]).toBe(0)
      }
    })
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
    await expect(mounter.check('/m/3')).rejects.toMatchObject({code: 'unavailable'})
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
    await expect.poll(() => blob.reads.length, PATIENTLY).toBe(2)
    await mounter.mount('/m/2', labelsOf(other, both), SIGNAL)
    expect(origin.opened).toBe(2)
    // Nobody holds it for whoever might come after the last.
    await mounter.unmount('/m/2')
    expect(backend.released).toHaveLength(1)
    await mounter.close('unmount')
  })

  describe('an image with prefetch plans', () => {
    const PLAN = 'containerd.io/snapshot/ctr-remote/prefetch.plan'
    const PRIORITIZED = {prioritizedPaths: ['bin/sh', 'motd']}

    /** Two layers that are prefetched whole by their landmarks, and a plan that names one file of each. */
    async function planned() {
      const set = await setUp()
      const bottom = await convertTar(FILES, {
        ...PRIORITIZED,
        reads: new Map([['motd', [{offset: 0, end: 5, atMs: 1}]]]),
      })
      const top = await convertTar(archive(member({name: 'top'}, 'top'), member({name: 'hat'}, 'hat!')), {
        prioritizedPaths: ['top', 'hat'],
        reads: new Map([['hat', [{offset: 0, end: 4, atMs: 0}]]]),
      })
      for (const {bytes} of [bottom, top]) set.origin.add(bytes)
      const lists = {
        'containerd.io/snapshot/remote/stargz.layers': `${bottom.descriptor.digest},${top.descriptor.digest}`,
        'containerd.io/snapshot/remote/stargz.toc-digests': `${tocDigestOf(bottom)},${tocDigestOf(top)}`,
      }
      const planOf = (layer: ConvertedTar) => layer.descriptor.annotations![PLAN]!
      const present = () => set.mounter.status().map(layer => layer.present)
      return {...set, bottom, top, lists, planOf, present}
    }

    it('has what they name fetched of each layer, and nothing else', async () => {
      const {bottom, top, lists, planOf, mounter, present, backend} = await planned()
      await mounter.mount('/m/1', labelsOf(bottom, {...lists, [PLAN]: planOf(bottom)}), SIGNAL)
      await mounter.mount('/m/2', labelsOf(top, {[PLAN]: planOf(top)}), SIGNAL)
      await expect.poll(present).toEqual(['hello'.length, 'hat!'.length])
      expect([...backend.mounted.values()].map(({hasPlan}) => hasPlan)).toEqual([true, true])
      await mounter.close('unmount')
      expect(present()).toEqual(['hello'.length, 'hat!'.length])
    })

    it('has the layers above fetched by theirs at once, where rpull tells them', async () => {
      const {bottom, top, lists, planOf, origin, mounter, present} = await planned()
      const above = {'containerd.io/snapshot/remote/stargz.plan.1': planOf(top)}
      await mounter.mount('/m/1', labelsOf(bottom, {...lists, ...above, [PLAN]: planOf(bottom)}), SIGNAL)
      const blob = origin.blobs.get(top.descriptor.digest as Digest)!
      await expect.poll(() => blob.reads.length).toBe(2)
      await mounter.mount('/m/2', labelsOf(top, {[PLAN]: planOf(top)}), SIGNAL)
      await expect.poll(present).toEqual(['hello'.length, 'hat!'.length])
      expect(blob.reads).toHaveLength(2)
      await mounter.close('unmount')
    })

    it('has the landmark instead where a plan is damaged, which the log tells', async () => {
      const {bottom, mounter, present, warnings} = await planned()
      await mounter.mount('/m/1', labelsOf(bottom, {[PLAN]: '1.gA'}), SIGNAL)
      await expect.poll(present).toEqual(['shellhello'.length])
      expect(warnings).toEqual(['prefetching without the plan'])
      await mounter.close('unmount')
    })

    it('has what every image needs of a layer that several have, each once', async () => {
      const {bottom, planOf, mounter, present} = await planned()
      await mounter.mount('/m/1', labelsOf(bottom, {[PLAN]: '1.'}), SIGNAL)
      await mounter.mount('/m/2', labelsOf(bottom, {[PLAN]: planOf(bottom)}), SIGNAL)
      await mounter.mount('/m/3', labelsOf(bottom, {[PLAN]: planOf(bottom)}), SIGNAL)
      await expect.poll(present).toEqual([5, 5, 5])
      await mounter.close('unmount')
    })

    it('has nothing prefetched where that is switched off', async () => {
      const {layer, mounter, backend} = await setUp({prefetchSize: undefined})
      await mounter.mount('/m/1', labelsOf(layer, {[PLAN]: '1.AAABAA'}), SIGNAL)
      await mounter.close('unmount')
      expect(mounter.status().map(({present}) => present)).toEqual([0])
      expect(backend.mounted.get('/m/1')?.hasPlan).toBe(false)
    })
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
    await expect.poll(() => backend.released, PATIENTLY).toHaveLength(1)
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
    // Not while the mount looks like the beginning of a container's start.
    await expect.poll(() => backend.mounted.get('/m/1')?.isComplete(), PATIENTLY).toBe(true)
    await expect.poll(() => mounter.status()[0]?.backend, PATIENTLY).toBe('plain')
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

  it('reads a shared layer of whichever image has it, and remembers for a while who refuses', async () => {
    const clock = {now: 0}
    const {origin, backend, layer, mounter} = await setUp({failures: new FailureMemory(() => clock.now)})
    const [a, b] = ['a.example/app:1', 'b.example/app:1']
    await mounter.mount('/m/1', labelsOf(layer, {[REFERENCE]: a}), SIGNAL)
    await mounter.mount('/m/2', labelsOf(layer, {[REFERENCE]: b}), SIGNAL)
    const {device} = backend.mounted.get('/m/1')!
    origin.refusals.set(a, new CodedError('unauthenticated', 'Log in'))
    expect(Buffer.from(await device.read(0, 5, {signal: SIGNAL})).toString()).toBe('shell')
    expect(origin.asked).toEqual([a, b])
    await mounter.close('unmount')
  })

  it('asks seldom for what is refused, however many read it, and at once for what is served again', async () => {
    const clock = {now: 0}
    const {origin, backend, layer, mounter} = await setUp({failures: new FailureMemory(() => clock.now)})
    await mounter.mount('/m/1', labelsOf(layer, {[REFERENCE]: 'a.example/app:1'}), SIGNAL)
    const {device} = backend.mounted.get('/m/1')!
    origin.refusals.set('a.example/app:1', new CodedError('permission-denied', 'No'))
    for (; clock.now < 30_000; clock.now += 100) {
      await expect(device.read(0, 5, {signal: SIGNAL})).rejects.toMatchObject({code: 'permission-denied'})
    }
    // At 0, 1, 3, 7 and 15 seconds.
    expect(origin.asked).toHaveLength(5)
    origin.refusals.clear()
    clock.now += 60_000
    expect(Buffer.from(await device.read(0, 5, {signal: SIGNAL})).toString()).toBe('shell')
    await mounter.close('unmount')
  })

  it('has a layer from the image of a layer above it, when the one that brought it is gone', async () => {
    const {origin, backend, layer, mounter} = await setUp()
    const [a, b] = ['a.example/app:1', 'b.example/app:1']
    mounter.share('/m/2', labelsOf(layer, {[REFERENCE]: b}), ['/m/1'])
    await mounter.mount('/m/1', labelsOf(layer, {[REFERENCE]: a}), SIGNAL)
    expect(mounter.references()).toEqual(new Set([a, b]))
    origin.refusals.set(a, new CodedError('not-found', 'It is gone'))
    const {device} = backend.mounted.get('/m/1')!
    expect(Buffer.from(await device.read(0, 5, {signal: SIGNAL})).toString()).toBe('shell')
    await mounter.unmount('/m/2')
    expect(mounter.references()).toEqual(new Set([a]))
    mounter.share('/m/3', {}, ['/m/1'])
    expect(mounter.references()).toEqual(new Set([a]))
    await mounter.close('unmount')
  })

  it('goes on with the other images of a layer when the first is unmounted', async () => {
    const {origin, backend, layer, mounter} = await setUp()
    await mounter.mount('/m/1', labelsOf(layer, {[REFERENCE]: 'a.example/app:1'}), SIGNAL)
    await mounter.mount('/m/2', labelsOf(layer, {[REFERENCE]: 'b.example/app:1'}), SIGNAL)
    await mounter.unmount('/m/1')
    const {device} = backend.mounted.get('/m/2')!
    expect(Buffer.from(await device.read(0, 5, {signal: SIGNAL})).toString()).toBe('shell')
    expect(origin.asked).toEqual(['b.example/app:1'])
    await mounter.close('unmount')
  })

  it('looks at a blob that is called by the TOC of another layer, once for all time', async () => {
    const root = await temporaryDirectory()
    const {origin, layer, mounter} = await setUp({}, root)
    await mounter.mount('/m/1', labelsOf(layer), SIGNAL)
    const other = await convertTar(OTHERS)
    origin.add(other.bytes)
    const labels = (digest: string) =>
      labelsOf(layer, {'containerd.io/snapshot/remote/stargz.digest': digest})
    const lying = mounter.mount('/m/2', labels(other.descriptor.digest), SIGNAL)
    await expect(lying).rejects.toMatchObject({code: 'corrupt'})
    await mounter.check('/m/1')
    // With another time in the header of its first member it is another blob, and the same layer.
    const same = Uint8Array.from(layer.bytes)
    same[4]! ^= 1
    origin.add(same)
    const opened = origin.opened
    for (const at of ['/m/3', '/m/4']) await mounter.mount(at, labels(digestOf(same)), SIGNAL)
    expect(origin.opened).toBe(opened + 1)
    await mounter.close('leave')
    const after = await setUp({}, root)
    after.origin.failure = new CodedError('unavailable', 'Cannot reach the registry')
    await after.mounter.mount('/m/3', labels(digestOf(same)), SIGNAL)
    await after.mounter.close('leave')
  })

  it('waits once for a host that is silent, and tells the other layers at once', async () => {
    const clock = {now: 0}
    const failures = new FailureMemory(() => clock.now)
    const {origin, layer, mounter} = await setUp({failures})
    const other = await convertTar(OTHERS)
    origin.add(other.bytes)
    origin.failure = new CodedError('unavailable', 'Cannot reach a.example: it did not answer in time')
    origin.onOpen = () => {
      clock.now += 25_000
    }
    const labels = (of: ConvertedTar) => labelsOf(of, {[REFERENCE]: 'a.example/app:1'})
    for (const of of [layer, other, layer]) {
      await expect(mounter.mount('/m/1', labels(of), SIGNAL)).rejects.toMatchObject({code: 'unavailable'})
    }
    expect(origin.opened).toBe(1)
    origin.failure = undefined
    await mounter.mount('/m/2', labelsOf(layer, {[REFERENCE]: 'b.example/app:1'}), SIGNAL)
    clock.now += 60_000
    await mounter.mount('/m/1', labels(other), SIGNAL)
    await mounter.close('unmount')
  })
})
