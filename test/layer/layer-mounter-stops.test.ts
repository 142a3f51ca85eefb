// The mounter is closed, or a mount given up, between any two awaits of a mount and of reading what is mounted.

import {describe, expect, it} from 'vitest'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import {GZIP_DECOMPRESSORS} from '../../src/lib/estargz/decompressor.ts'
import {FailureMemory} from '../../src/lib/layer/failure-memory.ts'
import {FetchQueue} from '../../src/lib/layer/fetch-queue.ts'
import {LayerMounter} from '../../src/lib/layer/layer-mounter.ts'
import {SILENT_OBSERVER} from '../../src/lib/layer/layer-observer.ts'
import {createLayerParser} from '../../src/lib/layer/parse-layer.ts'
import type {MountableLayer, MountBackend} from '../../src/lib/layer/ports.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {CallOptions} from '../../src/lib/oci/content-store.ts'
import {convertTar} from '../support/layers.ts'
import {openTestCache, watchedBlob} from '../support/lazy-layers.ts'
import {openBelow} from '../support/open-files.ts'
import {atEveryPoint, type Stage, watched} from '../support/stop-points.ts'
import {archive, member} from '../support/tar.ts'
import {temporaryDirectory} from '../support/temporary.ts'

/** Each run syncs files. */
const SOME = {ticks: [0, 1, 3, 8]}
const NEVER = new AbortController().signal
const prepared = convertTar(archive(member({name: 'a'}, 'hello'), member({name: 'b'}, Buffer.alloc(9000, 1))))

/** Mounts nothing; fails what was mounted through it when it is closed, as FUSE's descriptors do. */
function createBackend(): MountBackend & {readonly mounted: Map<string, MountableLayer>; released: number} {
  const mounted = new Map<string, MountableLayer>()
  const backend = {
    wantsImages: true,
    mounted,
    released: 0,
    mount: async (layer: MountableLayer, mountpoint: string) => {
      await layer.image()
      mounted.set(mountpoint, layer)
      return 'erofs' as const
    },
    settle: async () => 'plain' as const,
    check: async () => {},
    onLost: () => {},
    unmount: async (mountpoint: string) => void mounted.delete(mountpoint),
    release: async () => void backend.released++,
    resume: () => {},
    close: async () => {},
  }
  return backend
}

async function staged(stage: Stage, root: string) {
  const layer = await prepared
  const blob = watched(stage, watchedBlob(layer.bytes), ['read'])
  const origin = {
    openBlob: async (_request: unknown, tailSize: number, call: CallOptions) => {
      const length = Math.min(tailSize, blob.size)
      return {blob, tail: await blob.read(blob.size - length, length, call)}
    },
    blob: () => blob,
    externalToc: () => Promise.reject(new Error('There is none')),
  }
  const backend = createBackend()
  const cache = await openTestCache(root)
  const mounter = new LayerMounter({
    cache: watched(stage, cache, ['find', 'add', 'open', 'file', 'hasFile']),
    origin,
    backend: watched(stage, backend, ['mount', 'unmount', 'release', 'close']),
    decompressors: GZIP_DECOMPRESSORS,
    parse: createLayerParser(GZIP_DECOMPRESSORS),
    codec: createBulkCodec(),
    queue: new FetchQueue({prefetches: 2, backgrounds: 1, memory: 1 << 28}),
    failures: new FailureMemory(),
    onClosed: async () => {},
    log: {info: () => {}, debug: () => {}, warn: () => {}},
    observer: SILENT_OBSERVER,
    verification: 'required',
    prefetchSize: 0,
    fill: true,
  })
  const labels = {
    'containerd.io/snapshot/remote/stargz.reference': 'registry.example/app:1',
    'containerd.io/snapshot/remote/stargz.digest': digestOf(layer.bytes),
    'containerd.io/snapshot/stargz/toc.digest':
      layer.descriptor.annotations!['containerd.io/snapshot/stargz/toc.digest']!,
  }
  return {backend, mounter, labels}
}

/** What stopped work may come to. */
async function ended(work: Promise<unknown>): Promise<void> {
  const failure = await work.then(
    () => undefined,
    error => error,
  )
  if (failure !== undefined && failure.name !== 'AbortError')
    expect(failure).toMatchObject({code: 'cancelled'})
}

describe('a mounter that is stopped anywhere', () => {
  it('closes all that it has opened, and leaves nothing going on', async () => {
    const root = await temporaryDirectory()
    let run = 0
    const stops = await atEveryPoint(async stage => {
      const directory = `${root}/${run++}`
      const {backend, mounter, labels} = await staged(stage, directory)
      stage.on(() => mounter.close('leave'))
      await ended(mounter.mount('/m/1', labels, NEVER))
      const device = backend.mounted.get('/m/1')?.device
      if (device) await ended(device.read(0, 5, {signal: NEVER}))
      await ended(mounter.unmount('/m/1'))
      await (stage.fault ?? mounter.close('leave'))
      expect(openBelow(directory)).toEqual([])
    }, SOME)
    expect(stops).toBeGreaterThan(50)
  })

  it('gives up a mount whose caller is gone, and mounts for the next', async () => {
    const root = await temporaryDirectory()
    let run = 0
    await atEveryPoint(async stage => {
      const directory = `${root}/${run++}`
      const {backend, mounter, labels} = await staged(stage, directory)
      const gone = new AbortController()
      stage.on(async () => gone.abort())
      const both = [mounter.mount('/m/1', labels, gone.signal), mounter.mount('/m/2', labels, NEVER)]
      await ended(both[0]!)
      await both[1]
      const bytes = await backend.mounted.get('/m/2')!.device.read(0, 5, {signal: NEVER})
      expect(Buffer.from(bytes).toString()).toBe('hello')
      await mounter.close('leave')
      expect(openBelow(directory)).toEqual([])
    }, SOME)
  })
})
