// What mounts layers, and what that stands on, made from the configuration.

import {readFileSync} from 'node:fs'
import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import type {Keeper} from '../../lib/fuse/keeper.ts'
import {findIpfsApi} from '../../lib/ipfs/api-address.ts'
import {IpfsNode} from '../../lib/ipfs/ipfs-node.ts'
import {FailureMemory} from '../../lib/layer/failure-memory.ts'
import {FetchQueue} from '../../lib/layer/fetch-queue.ts'
import {LayerMounter} from '../../lib/layer/layer-mounter.ts'
import type {LayerObserver} from '../../lib/layer/layer-observer.ts'
import {createNativeParser} from '../../lib/layer/native-parser.ts'
import type {LayerOrigin} from '../../lib/layer/ports.ts'
import {type DiskLayerCache, openLayerCache} from '../../lib/layer-cache/layer-cache.ts'
import {createBulkCodec} from '../../lib/native/bulk-codec.ts'
import {openRegistry, type Registry, type RegistryOptions} from '../../lib/registry/registry.ts'
import type {Log} from '../process/log.ts'
import {openBackend, openKeeperOf} from './backend.ts'
import type {SnapshotterConfig} from './config.ts'
import {countingRepetitions} from './counting-log.ts'
import {sparingDescriptors} from './descriptors.ts'
import {createIpfsOrigin} from './ipfs-origin.ts'
import {LAYER_FORMATS} from './layer-formats.ts'
import {createRegistryOrigin} from './registry-origin.ts'

export interface LazyLayersOptions {
  readonly config: SnapshotterConfig
  /** The daemon's root directory. */
  readonly root: string
  readonly log: Log
  readonly observer: LayerObserver
  /** Says where the IPFS node is, if one is used. */
  readonly env: Readonly<Record<string, string | undefined>>
  /** How registries are reached, and with which credentials. */
  readonly registry: RegistryOptions
  /** Throws why nobody could use what is mounted, where that is so. */
  readonly requireUse?: () => void
}

/** Prefetches at a time, of all layers together. */
const PREFETCHES = 8
/** Bytes that what readers wait for may hold, all together; what is fetched ahead may hold as much. */
const FETCH_MEMORY = 64 << 20

/** A mounter, what it stands on, and what makes room on the disk that its cache shares with others. */
export interface LazyLayers extends Pick<DiskLayerCache, 'tidy' | 'prune'> {
  /** Closing it closes the others too. */
  readonly mounter: LayerMounter
  readonly registry: Registry
  readonly origin: LayerOrigin
  /** Undefined when it is switched off. */
  readonly keeper: Keeper | undefined
}

/** Opens cache, registries and mounts below the root directory. */
export async function openLazyLayers(options: LazyLayersOptions): Promise<LazyLayers> {
  const {config, log} = options
  const root = join(options.root, 'stargz')
  await mkdir(root, {recursive: true, mode: 0o700})
  const parser = createNativeParser({decompressors: LAYER_FORMATS})
  const registry = openRegistry(options.registry)
  const node = config.ipfs ? openIpfsNode(options) : undefined
  const origin = createIpfsOrigin(createRegistryOrigin(registry), node)
  const closeOrigins = async () => {
    await node?.[Symbol.asyncDispose]()
    await registry[Symbol.asyncDispose]()
  }
  try {
    const keeper = await openKeeperOf(root, config)
    const cache = await openLayerCache({
      root: join(root, 'layers'),
      maxSize: config.directoryCache.maxSize,
      bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
    })
    const mounter = new LayerMounter({
      cache: sparingDescriptors(cache),
      origin,
      backend: await openBackend(root, {config, keeper, log: countingRepetitions(log)}),
      decompressors: LAYER_FORMATS,
      parse: parser.parse,
      codec: createBulkCodec(),
      queue: new FetchQueue({
        prefetches: PREFETCHES,
        backgrounds: config.maxConcurrency,
        memory: FETCH_MEMORY,
        requireRoom: () => cache.requireRoom(),
        spareRoom: () => cache.spareRoom(),
      }),
      failures: new FailureMemory(),
      requireUse: options.requireUse,
      log,
      observer: options.observer,
      verification: verificationOf(config),
      prefetchSize: config.prefetch ? config.prefetchSize : undefined,
      fill: config.backgroundFetch,
      onClosed: async () => {
        await parser[Symbol.asyncDispose]()
        await closeOrigins()
      },
    })
    const prune = async () => {
      await mounter.endAhead()
      return await cache.prune()
    }
    return {mounter, tidy: () => cache.tidy(), prune, registry, origin, keeper}
  } catch (error) {
    await closeOrigins()
    throw error
  }
}

function openIpfsNode({env, registry}: LazyLayersOptions): IpfsNode {
  const {userAgent = '', timeouts = {}} = registry
  return new IpfsNode({findApi: () => findIpfsApi(env), userAgent, timeouts})
}

function verificationOf(config: SnapshotterConfig): 'required' | 'on-request' | 'off' {
  if (config.disableVerification) return 'off'
  return config.allowNoVerification ? 'on-request' : 'required'
}
