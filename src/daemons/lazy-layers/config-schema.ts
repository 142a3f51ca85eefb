// The keys of config.toml, with their types and defaults: the reference's, and a few of ours.
// Source: stargz-snapshotter cmd/containerd-stargz-grpc, fs/config and service/config, as of v0.18.

import * as z from 'zod'

/** Longest time that timers can measure, seconds; what is longer is as good as this. */
const MAX_SECONDS = 2_000_000

/** Seconds. */
export const DEFAULT_FETCHING_TIMEOUT = 300

const seconds = z.int().transform(value => Math.min(value, MAX_SECONDS))
const count = z.int().min(0)
const size = z.int().min(0)

const mirror = z.strictObject({
  /** `host[:port]`, or a URL. */
  host: z.string().min(1),
  insecure: z.boolean().default(false),
  /** 0: as `resolver.request_timeout_sec` says; negative: no limit. */
  request_timeout_sec: seconds.default(0),
  header: z.record(z.string(), z.union([z.string(), z.array(z.string())])).default({}),
})

/** What a file may say; unknown keys are issues that the caller turns into warnings. */
export const configSchema = z.strictObject({
  http_cache_type: z.string().default(''),
  filesystem_cache_type: z.string().default(''),
  resolve_result_entry_ttl_sec: seconds.default(120),
  resolve_result_entry: z.int().default(0),
  prefetch_size: size.default(0),
  prefetch_timeout_sec: seconds.default(10),
  prefetch_async_size: size.default(0),
  noprefetch: z.boolean().default(false),
  no_background_fetch: z.boolean().default(false),
  debug: z.boolean().default(false),
  allow_no_verification: z.boolean().default(false),
  disable_verification: z.boolean().default(false),
  max_concurrency: count.default(2),
  no_prometheus: z.boolean().default(false),
  log_file_access: z.boolean().default(false),
  metrics_address: z.string().default(''),
  debug_address: z.string().default(''),
  ipfs: z.boolean().default(false),
  metadata_store: z.enum(['', 'memory', 'db']).default(''),
  /** Ours. */
  mount_backend: z.enum(['auto', 'erofs', 'fuse']).default('auto'),
  blob: z
    .strictObject({
      valid_interval: seconds.default(60),
      check_always: z.boolean().default(false),
      chunk_size: size.default(50_000),
      /** As the key of the same name at the top: the reference's documents have it here. */
      ipfs: z.boolean().default(false),
      /** 0 or less: the default, because without time every read of what is missing would fail. */
      fetching_timeout_sec: seconds.default(DEFAULT_FETCHING_TIMEOUT),
      force_single_range_mode: z.boolean().default(false),
      prefetch_chunk_size: size.default(0),
      max_retries: count.default(5),
      min_wait_msec: count.default(30),
      max_wait_msec: count.default(300_000),
    })
    .prefault({}),
  directory_cache: z
    .strictObject({
      max_lru_cache_entry: z.int().default(10),
      max_cache_fds: z.int().default(10),
      sync_add: z.boolean().default(false),
      direct: z.boolean().default(true),
      fadv_dontneed: z.boolean().default(false),
      /** Ours: the cache is kept below this many MiB; 0 means no limit. */
      max_size_mb: size.default(0),
    })
    .prefault({}),
  fuse: z
    .strictObject({
      attr_timeout: z.int().default(1),
      entry_timeout: z.int().default(1),
      passthrough: z.boolean().default(false),
      merge_buffer_size: z.int().default(419_430_400),
      merge_worker_count: z.int().default(10),
    })
    .prefault({}),
  kubeconfig_keychain: z
    .strictObject({
      enable_keychain: z.boolean().default(false),
      kubeconfig_path: z.string().default(''),
    })
    .prefault({}),
  cri_keychain: z
    .strictObject({
      enable_keychain: z.boolean().default(false),
      image_service_path: z.string().default('/run/containerd/containerd.sock'),
      listen_path: z.string().default(''),
    })
    .prefault({}),
  resolver: z
    .strictObject({
      request_timeout_sec: seconds.default(30),
      host: z.record(z.string(), z.strictObject({mirrors: z.array(mirror).max(64).default([])})).default({}),
      /** Ours: a directory of hosts.toml files, as containerd's `registry.config_path`. */
      config_path: z.string().default(''),
    })
    .prefault({}),
  snapshotter: z
    .strictObject({
      allow_invalid_mounts_on_restart: z.boolean().default(false),
      /** Ours: overlayfs's `xino=on`. */
      one_device: z.boolean().default(true),
    })
    .prefault({}),
  fuse_manager: z
    .strictObject({
      enable: z.boolean().default(true),
      address: z.string().default(''),
      path: z.string().default(''),
      metrics_address: z.string().default(''),
    })
    .prefault({}),
})

/** A file's content with defaults filled in. */
export type ConfigFile = z.output<typeof configSchema>
