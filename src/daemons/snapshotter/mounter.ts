// What mounts layers, made from the configuration.

import {readFileSync} from 'node:fs'
import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {openLayerCache} from '../../lib/cache/layer-cache.ts'
import {createFetchQueue} from '../../lib/layer/fetch-queue.ts'
import {createLayerMounter, type RestorableMounter} from '../../lib/layer/layer-mounter.ts'
import {createBulkCodec} from '../../lib/native/bulk-codec.ts'
import {openRegistry, type Registry, type RegistryOptions} from '../../lib/registry/registry.ts'
import type {LayerObserver} from '../../lib/snapshot/layer-observer.ts'
import {openBackend} from './backend.ts'
import type {SnapshotterConfig} from './config.ts'
import type {DaemonFlags} from './flags.ts'
import {LAYER_FORMATS} from './layer-formats.ts'
import type {Log} from './log.ts'
import {createParserPool, type ParserPool} from './parser-pool.ts'
import {createRegistryOrigin} from './registry-origin.ts'
import {warmUp} from './warm-up.ts'

export interface MounterOptions {
  readonly config: SnapshotterConfig
  readonly flags: DaemonFlags
  readonly log: Log
  readonly observer: LayerObserver
  /** How registries are reached, and with which credentials. */
  readonly registry: RegistryOptions
}

/** Prefetches at a time, of all layers together. */
const PREFETCHES = 8
/** How long nobody must have waited for the network before layers are filled. */
const QUIET_MS = 1000
/** Bytes that fetches may hold, all together. */
const FETCH_MEMORY = 96 << 20

/** Opens cache, registries and mounts below the root directory. */
export async function createMounter(options: MounterOptions): Promise<RestorableMounter> {
  const {config, flags, log} = options
  const root = join(flags.root, 'stargz')
  await mkdir(root, {recursive: true, mode: 0o700})
  const parsers = createParserPool()
  const registry = openRegistry(options.registry)
  try {
    const mounter = createLayerMounter({
      cache: await openLayerCache({
        root: join(root, 'layers'),
        maxSize: config.directoryCache.maxSize,
        bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      }),
      origin: createRegistryOrigin(registry),
      backend: await openBackend(root, config, log),
      decompressors: LAYER_FORMATS,
      parse: parsers.parse,
      codec: createBulkCodec(),
      queue: createFetchQueue({
        prefetches: PREFETCHES,
        backgrounds: config.maxConcurrency,
        quietMs: QUIET_MS,
        memory: FETCH_MEMORY,
      }),
      log,
      observer: options.observer,
      verification: verificationOf(config),
      prefetchSize: config.prefetch ? config.prefetchSize : undefined,
      fill: config.backgroundFetch,
    })
    void warmUp(parsers.parse, parsers.threads)
    return {...mounter, close: how => closeAll(mounter, {registry, parsers}, how)}
  } catch (error) {
    await registry[Symbol.asyncDispose]()
    throw error
  }
}

async function closeAll(
  mounter: RestorableMounter,
  {registry, parsers}: {readonly registry: Registry; readonly parsers: ParserPool},
  how: 'leave' | 'unmount',
): Promise<void> {
  try {
    await mounter.close(how)
  } finally {
    await parsers[Symbol.asyncDispose]()
    await registry[Symbol.asyncDispose]()
  }
}

function verificationOf(config: SnapshotterConfig): 'required' | 'on-request' | 'off' {
  if (config.disableVerification) return 'off'
  return config.allowNoVerification ? 'on-request' : 'required'
}
