// The daemon's configuration: config.toml as settings with units, and what there is to say about the file.

import {readFile} from 'node:fs/promises'
import {isAbsolute} from 'node:path'
import {parse} from 'smol-toml'
import type * as z from 'zod'
import {CodedError, hasCode} from '../../lib/errors/coded-error.ts'
import {isRecord} from '../../lib/oci/descriptor.ts'
import {type ConfigFile, configSchema, DEFAULT_FETCHING_TIMEOUT} from './config-schema.ts'
import {type KeyWithoutEffect, keysWithoutEffect} from './config-without-effect.ts'

/** A mirror of `[[resolver.host."HOST".mirrors]]`. */
export interface MirrorConfig {
  readonly host: string
  /** Plain HTTP. */
  readonly insecure: boolean
  /** Undefined: as for all hosts; 0: no limit. */
  readonly requestTimeoutMs: number | undefined
  readonly headers: Readonly<Record<string, string>>
}

/** Everything that can be configured. Sizes are bytes; 0 means no limit where nothing else is said. */
export interface SnapshotterConfig {
  readonly debug: boolean
  readonly mountBackend: 'auto' | 'erofs' | 'fuse'
  /** What to prefetch of a layer without landmark, when no label says. */
  readonly prefetchSize: number
  readonly prefetch: boolean
  readonly backgroundFetch: boolean
  /** Background fetches at a time. */
  readonly maxConcurrency: number
  /** Whether layers are read from the IPFS node of the daemon's user where their labels say that they are there. */
  readonly ipfs: boolean
  readonly allowNoVerification: boolean
  readonly disableVerification: boolean
  readonly blob: {
    /** How long a reader waits for data at most; never 0. */
    readonly fetchTimeoutMs: number
    readonly retry: {readonly attempts: number; readonly minDelayMs: number; readonly maxDelayMs: number}
  }
  readonly directoryCache: {readonly maxSize: number}
  readonly fuse: {readonly passthrough: boolean}
  /** Undefined when switched off. An empty path: `$KUBECONFIG`, else `~/.kube/config`. */
  readonly kubeconfigKeychain: {readonly path: string} | undefined
  /** Undefined when switched off. An empty listen path: the daemon's own socket. */
  readonly criKeychain: {readonly imageServicePath: string; readonly listenPath: string} | undefined
  readonly resolver: {
    readonly requestTimeoutMs: number
    readonly mirrors: ReadonlyMap<string, readonly MirrorConfig[]>
    /** A directory of hosts.toml files; undefined without. */
    readonly hostsDir: string | undefined
  }
  readonly allowInvalidMountsOnRestart: boolean
  /** Whether containers are one file system, with inode numbers of 64 bits. */
  readonly oneDevice: boolean
  /** The process that holds mounts while no daemon runs; undefined when switched off. An empty address: ours to choose. */
  readonly keeper: {readonly address: string} | undefined
  /** `host:port` of the metrics; undefined without. */
  readonly metricsAddress: string | undefined
  /** A unix socket; undefined without. */
  readonly debugAddress: string | undefined
}

/** A configuration, and what the log should say about its file. */
export interface LoadedConfig {
  /** Its keys, those that it does not have with their defaults. */
  readonly file: ConfigFile
  readonly config: SnapshotterConfig
  readonly unknownKeys: readonly string[]
  readonly withoutEffect: readonly KeyWithoutEffect[]
}

/** Larger files are no configuration. */
const MAX_CONFIG_FILE = 1024 * 1024

/** Reads the file at `path`; one that is missing is empty where `mayBeMissing`. Throws `invalid-argument`. */
export async function loadConfig(path: string, mayBeMissing: boolean): Promise<LoadedConfig> {
  const text = await readFile(path, 'utf8').catch(cause => {
    if (mayBeMissing && hasCode(cause, 'not-found')) return ''
    throw new CodedError('invalid-argument', `Cannot read configuration "${path}"`, {cause})
  })
  return parseConfig(text, path)
}

/** Parses the text of a config.toml; throws `invalid-argument` naming `path` and every key that is wrong. */
export function parseConfig(text: string, path: string): LoadedConfig {
  if (text.length > MAX_CONFIG_FILE) throw invalid(path, `it is larger than ${MAX_CONFIG_FILE} bytes`)
  let table: unknown
  try {
    table = parse(text)
  } catch (cause) {
    throw new CodedError('invalid-argument', `Cannot parse configuration "${path}"`, {cause})
  }
  const unknownKeys = dropUnknownKeys(table)
  const parsed = configSchema.safeParse(table)
  if (!parsed.success) throw invalid(path, parsed.error.issues.map(describeIssue).join('; '))
  refuseUnsupported(parsed.data, path)
  return {
    file: parsed.data,
    config: configOf(parsed.data),
    unknownKeys,
    withoutEffect: keysWithoutEffect(parsed.data),
  }
}

/** Removes keys that no section has, and names them. */
function dropUnknownKeys(table: unknown): string[] {
  const issues = configSchema.safeParse(table).error?.issues ?? []
  return issues.flatMap(issue => {
    if (issue.code !== 'unrecognized_keys') return []
    const section = issue.path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown>)[key], table)
    if (isRecord(section)) for (const key of issue.keys) delete section[key]
    return issue.keys.map(key => nameOf([...issue.path, key]))
  })
}

function describeIssue(issue: z.core.$ZodIssue): string {
  return `"${nameOf(issue.path)}": ${issue.message}`
}

/** `blob.chunk_size`, `resolver.host."docker.io".mirrors[0].host`. */
function nameOf(path: readonly PropertyKey[]): string {
  return path
    .map((key, index) => {
      if (typeof key === 'number') return `[${key}]`
      const name = /^[\w-]+$/.test(String(key)) ? String(key) : JSON.stringify(String(key))
      return index === 0 ? name : `.${name}`
    })
    .join('')
}

/** What would silently be something else than was asked for. */
function refuseUnsupported(file: ConfigFile, path: string): void {
  const {cri_keychain, fuse_manager} = file
  for (const [key, value] of [
    ['cri_keychain.listen_path', cri_keychain.listen_path],
    ['fuse_manager.address', fuse_manager.address],
    ['debug_address', file.debug_address],
  ] as const) {
    if (value !== '' && !isAbsolute(value)) throw invalid(path, `"${key}": it is no absolute path`)
  }
  for (const [registry, {mirrors}] of Object.entries(file.resolver.host)) {
    const header = mirrors.flatMap(mirror => Object.keys(mirror.header)).find(name => !/^[\w-]+$/.test(name))
    if (header !== undefined) {
      throw invalid(
        path,
        `"${nameOf(['resolver', 'host', registry])}": ${JSON.stringify(header)} is no header`,
      )
    }
  }
}

function configOf(file: ConfigFile): SnapshotterConfig {
  const {blob, kubeconfig_keychain, cri_keychain, resolver, fuse_manager} = file
  return {
    debug: file.debug,
    mountBackend: file.mount_backend,
    prefetchSize: file.prefetch_size,
    prefetch: !file.noprefetch,
    backgroundFetch: !file.no_background_fetch,
    maxConcurrency: file.max_concurrency || 2,
    ipfs: file.ipfs || blob.ipfs,
    allowNoVerification: file.allow_no_verification,
    disableVerification: file.disable_verification,
    blob: {
      fetchTimeoutMs:
        (blob.fetching_timeout_sec > 0 ? blob.fetching_timeout_sec : DEFAULT_FETCHING_TIMEOUT) * 1000,
      retry: {
        attempts: blob.max_retries + 1,
        minDelayMs: blob.min_wait_msec,
        maxDelayMs: blob.max_wait_msec,
      },
    },
    directoryCache: {maxSize: file.directory_cache.max_size_mb * 1024 * 1024},
    fuse: {passthrough: file.fuse.passthrough},
    kubeconfigKeychain: kubeconfig_keychain.enable_keychain
      ? {path: kubeconfig_keychain.kubeconfig_path}
      : undefined,
    criKeychain: cri_keychain.enable_keychain
      ? {imageServicePath: cri_keychain.image_service_path, listenPath: cri_keychain.listen_path}
      : undefined,
    resolver: {
      requestTimeoutMs: resolver.request_timeout_sec * 1000,
      mirrors: new Map(
        Object.entries(resolver.host).map(([host, {mirrors}]) => [host, mirrors.map(mirrorOf)]),
      ),
      hostsDir: resolver.config_path || undefined,
    },
    allowInvalidMountsOnRestart: file.snapshotter.allow_invalid_mounts_on_restart,
    oneDevice: file.snapshotter.one_device,
    keeper: fuse_manager.enable ? {address: fuse_manager.address} : undefined,
    metricsAddress: (!file.no_prometheus && file.metrics_address) || undefined,
    debugAddress: file.debug_address || undefined,
  }
}

function mirrorOf(mirror: ConfigFile['resolver']['host'][string]['mirrors'][number]): MirrorConfig {
  const {host, insecure, request_timeout_sec, header} = mirror
  return {
    host,
    insecure,
    requestTimeoutMs: request_timeout_sec === 0 ? undefined : Math.max(0, request_timeout_sec) * 1000,
    headers: Object.fromEntries(
      Object.entries(header).map(([name, value]) => [
        name,
        typeof value === 'string' ? value : value.join(', '),
      ]),
    ),
  }
}

function invalid(path: string, problem: string): CodedError {
  return new CodedError('invalid-argument', `Cannot use configuration "${path}": ${problem}`)
}
