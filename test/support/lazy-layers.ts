// Lazily read layers in tests: a converted tar, a cache on disk, and a blob that can misbehave.

import type {FileHandle} from 'node:fs/promises'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {ConvertLayerOptions} from '../../src/lib/convert/convert-layer.ts'
import {CodedError} from '../../src/lib/errors/coded-error.ts'
import {type OpenLayer, openLayer} from '../../src/lib/estargz/open-layer.ts'
import {type ChunkMap, mapChunks} from '../../src/lib/layer/chunk-map.ts'
import {FailureMemory} from '../../src/lib/layer/failure-memory.ts'
import {FetchQueue} from '../../src/lib/layer/fetch-queue.ts'
import {SILENT_OBSERVER} from '../../src/lib/layer/layer-observer.ts'
import {LazyLayer, type LazyLayerOptions} from '../../src/lib/layer/lazy-layer.ts'
import {createOutage} from '../../src/lib/layer/outage.ts'
import type {LayerCache, LayerData} from '../../src/lib/layer/ports.ts'
import {type DeviceLayout, layOutDevice} from '../../src/lib/layer/toc-tree.ts'
import {openLayerCache} from '../../src/lib/layer-cache/layer-cache.ts'
import {createBulkCodec} from '../../src/lib/native/bulk-codec.ts'
import type {BlobSource, CallOptions} from '../../src/lib/oci/content-store.ts'
import {convertTar} from './layers.ts'
import {memoryBlob} from './memory-content.ts'

/** A blob whose every read passes through `behave`, which may throw, wait, or change the bytes. */
export interface WatchedBlob extends BlobSource {
  readonly reads: {readonly offset: number; readonly length: number}[]
  behave: (bytes: Uint8Array, offset: number, call: CallOptions) => Uint8Array | Promise<Uint8Array>
}

export function watchedBlob(bytes: Uint8Array): WatchedBlob {
  const blob = memoryBlob(bytes)
  const watched: WatchedBlob = {
    size: blob.size,
    reads: [],
    behave: read => read,
    read: async (offset, length, call = {}) => {
      watched.reads.push({offset, length})
      return watched.behave(Uint8Array.from(await blob.read(offset, length)), offset, call)
    },
  }
  return watched
}

/** A layer made from a tar, ready to be opened any number of times. */
export interface PreparedLayer {
  readonly bytes: Uint8Array
  readonly open: OpenLayer
  readonly layout: DeviceLayout
  readonly map: ChunkMap
  /** What the whole device holds. */
  readonly device: Uint8Array
}

/** Converts `tar`, and works out from its own contents what its device must hold. */
export async function prepareLayer(
  tar: Uint8Array,
  contents: ReadonlyMap<string, Uint8Array>,
  options: Partial<ConvertLayerOptions> = {},
): Promise<PreparedLayer> {
  const {bytes} = await convertTar(tar, options)
  const open = await openLayer(memoryBlob(bytes), {where: 'the layer'})
  const layout = layOutDevice(open.files.values())
  const device = new Uint8Array(layout.size)
  for (const {file, deviceOffset} of layout.files) device.set(contents.get(file.path)!, deviceOffset)
  return {bytes, open, layout, map: mapChunks(layout, 'the layer', true), device}
}

/** A cache in `root`, as after a boot with this id. */
export function openTestCache(
  root: string,
  options: {maxSize?: number; bootId?: string} = {},
): Promise<LayerCache> {
  // Whatever this machine's disk is like.
  const diskSpace = () => ({total: 1 << 30, free: 1 << 30})
  return openLayerCache({root, maxSize: 0, bootId: 'one boot', diskSpace, ...options})
}

/** Opens the data of `layer` under `key`. */
export async function openTestData(
  cache: LayerCache,
  key: string,
  {bytes, map}: PreparedLayer,
): Promise<LayerData> {
  await cache.add(key, {
    blobDigest: digestOf(bytes),
    blobSize: bytes.length,
    tail: bytes,
    externalToc: undefined,
  })
  return cache.open(key, {deviceSize: map.deviceSize, chunkCount: map.count})
}

export function lazyLayerOf(
  prepared: PreparedLayer,
  data: LayerData,
  blob: BlobSource,
  options: Partial<LazyLayerOptions> = {},
): LazyLayer {
  return new LazyLayer({
    name: 'a1',
    where: 'the layer',
    layer: digestOf(prepared.bytes),
    blob,
    memberKind: 'gzip',
    map: prepared.map,
    data,
    codec: createBulkCodec(),
    queue: new FetchQueue({prefetches: 2, backgrounds: 1, memory: 1 << 28}),
    failures: new FailureMemory(),
    outage: createOutage(() => performance.now()),
    observer: SILENT_OBSERVER,
    onComplete: () => {},
    onUncached: () => {},
    ...options,
  })
}

/** Data on a disk that is full: `device` is `/dev/full`, open for writing. */
export function fullDisk(data: LayerData, device: FileHandle): LayerData {
  return {
    path: data.path,
    chunks: data.chunks,
    read: (offset, length) => data.read(offset, length),
    withFd: work => work(device.fd),
    write: async () => {
      throw new CodedError('unavailable', 'No space left on device')
    },
    note: chunks => data.note(chunks),
    sync: () => data.sync(),
    [Symbol.asyncDispose]: () => data[Symbol.asyncDispose](),
  }
}
