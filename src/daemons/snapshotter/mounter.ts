// What mounts layers, made from the configuration.

import {readFileSync} from 'node:fs'
import {mkdir} from 'node:fs/promises'
import {join} from 'node:path'
import {openLayerCache} from '../../lib/cache/layer-cache.ts'
import {GZIP_DECOMPRESSORS} from '../../lib/estargz/decompressor.ts'
import {createFetchQueue} from '../../lib/layer/fetch-queue.ts'
import {createLayerMounter, type RestorableMounter} from '../../lib/layer/layer-mounter.ts'
import {createBulkCodec} from '../../lib/native/bulk-codec.ts'
import {createDockerKeychain} from '../../lib/registry/docker-config.ts'
import {openRegistry, type Registry} from '../../lib/registry/registry.ts'
import {SILENT_OBSERVER} from '../../lib/snapshot/layer-observer.ts'
import {ZSTD_DECOMPRESSORS} from '../../lib/zstdchunked/decompressor.ts'
import {packageVersion} from '../version.ts'
import {openBackend} from './backend.ts'
import type {SnapshotterConfig} from './config.ts'
import type {DaemonFlags} from './flags.ts'
import type {Log} from './log.ts'
import {createRegistryOrigin} from './registry-origin.ts'

export interface MounterOptions {
  readonly config: SnapshotterConfig
  readonly flags: DaemonFlags
  readonly log: Log
  readonly env: Readonly<Record<string, string | undefined>>
}

/** Prefetches at a time, of all layers together. */
const PREFETCHES = 8
/** How long nobody must have waited for the network before layers are filled. */
const QUIET_MS = 1000

/** Opens cache, registries and mounts below the root directory. */
export async function createMounter(options: MounterOptions): Promise<RestorableMounter> {
  const {config, flags, log} = options
  const root = join(flags.root, 'stargz')
  await mkdir(root, {recursive: true, mode: 0o700})
  const registry = openRegistry(registryOptions(options))
  try {
    const mounter = createLayerMounter({
      cache: await openLayerCache({
        root: join(root, 'layers'),
        maxSize: config.directoryCache.maxSize,
        bootId: readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim(),
      }),
      origin: createRegistryOrigin(registry),
      backend: await openBackend(root, config, log),
      decompressors: [...GZIP_DECOMPRESSORS, ...ZSTD_DECOMPRESSORS],
      codec: createBulkCodec(),
      queue: createFetchQueue({
        prefetches: PREFETCHES,
        backgrounds: config.maxConcurrency,
        quietMs: QUIET_MS,
      }),
      log,
      observer: SILENT_OBSERVER,
      verification: verificationOf(config),
      prefetchSize: config.prefetch ? config.prefetchSize : undefined,
      fill: config.backgroundFetch,
    })
    return {...mounter, close: how => closeAll(mounter, registry, how)}
  } catch (error) {
    await registry[Symbol.asyncDispose]()
    throw error
  }
}

async function closeAll(
  mounter: RestorableMounter,
  registry: Registry,
  how: 'leave' | 'unmount',
): Promise<void> {
  try {
    await mounter.close(how)
  } finally {
    await registry[Symbol.asyncDispose]()
  }
}

function verificationOf(config: SnapshotterConfig): 'required' | 'on-request' | 'off' {
  if (config.disableVerification) return 'off'
  return config.allowNoVerification ? 'on-request' : 'required'
}

function registryOptions({config, env}: MounterOptions) {
  const {resolver, blob} = config
  return {
    keychain: createDockerKeychain({env, uid: process.getuid?.()}),
    hostsDir: resolver.hostsDir,
    mirrorsOf: (domain: string) =>
      (resolver.mirrors.get(domain) ?? []).map(({host, insecure, headers, requestTimeoutMs}) => ({
        address: host,
        plainHttp: insecure,
        headers,
        timeouts: requestTimeoutMs === undefined ? undefined : timeoutsOf(requestTimeoutMs),
      })),
    retry: {
      attempts: blob.retry.attempts,
      minDelayMs: blob.retry.minDelayMs,
      maxDelayMs: blob.retry.maxDelayMs,
    },
    timeouts: timeoutsOf(resolver.requestTimeoutMs),
    proxy: {
      httpProxy: env.http_proxy || env.HTTP_PROXY,
      httpsProxy: env.https_proxy || env.HTTPS_PROXY,
      noProxy: env.no_proxy || env.NO_PROXY,
    },
    userAgent: `containerd-stargz-grpc/${packageVersion()}`,
  }
}

function timeoutsOf(ms: number) {
  return {connectMs: ms, headersMs: ms, bodyIdleMs: ms}
}
