// Keys of the reference that have nothing to act on here: accepted, so that an existing file works, and said so.

import type {ConfigFile} from './config-schema.ts'

/** A key that a file sets and that changes nothing, and why. */
export interface KeyWithoutEffect {
  readonly key: string
  readonly reason: string
}

const ONE_CACHE = 'there is one cache of layer data, always on disk and shared by all images'
const NO_DESCRIPTOR_CACHE = 'cached data is one sparse file per layer, which needs no cache of small files'
const IMMUTABLE =
  'layers never change, so the kernel keeps their names and attributes for as long as it likes'

const NO_WAIT = 'the start of a container never waits for prefetches: what it reads is fetched before them'
const NO_PROBES =
  'layers are not probed: cached data need no registry, and what is missing is asked for when it is read'
const ADAPTIVE = 'how much is fetched at once follows how a layer is read'

interface Rule {
  readonly key: string
  readonly reason: string
  /** True for a value that asks for something that is not done. */
  readonly asks: (config: ConfigFile) => boolean
}

const RULES: readonly Rule[] = [
  {key: 'http_cache_type', reason: ONE_CACHE, asks: config => config.http_cache_type === 'memory'},
  {
    key: 'filesystem_cache_type',
    reason: ONE_CACHE,
    asks: config => config.filesystem_cache_type === 'memory',
  },
  {
    key: 'resolve_result_entry_ttl_sec',
    reason: 'what is known of a layer is kept in the cache, until the layer is removed from it',
    asks: config => config.resolve_result_entry_ttl_sec !== 120,
  },
  {
    key: 'resolve_result_entry',
    reason: 'it is deprecated',
    asks: config => config.resolve_result_entry !== 0,
  },
  {
    key: 'prefetch_timeout_sec',
    reason: NO_WAIT,
    asks: config => config.prefetch_timeout_sec !== 10,
  },
  {key: 'prefetch_async_size', reason: NO_WAIT, asks: config => config.prefetch_async_size !== 0},
  {key: 'blob.valid_interval', reason: NO_PROBES, asks: ({blob}) => blob.valid_interval !== 60},
  {key: 'blob.check_always', reason: NO_PROBES, asks: ({blob}) => blob.check_always},
  {key: 'blob.chunk_size', reason: ADAPTIVE, asks: ({blob}) => blob.chunk_size !== 50_000},
  {key: 'blob.prefetch_chunk_size', reason: ADAPTIVE, asks: ({blob}) => blob.prefetch_chunk_size !== 0},
  {
    key: 'log_file_access',
    reason: 'the kernel opens files by itself; "ctr-remote image optimize --record-out" tells what is read',
    asks: config => config.log_file_access,
  },
  {
    key: 'directory_cache.max_lru_cache_entry',
    reason: NO_DESCRIPTOR_CACHE,
    asks: ({directory_cache}) => directory_cache.max_lru_cache_entry !== 10,
  },
  {
    key: 'directory_cache.max_cache_fds',
    reason: NO_DESCRIPTOR_CACHE,
    asks: ({directory_cache}) => directory_cache.max_cache_fds !== 10,
  },
  {
    key: 'directory_cache.sync_add',
    reason: 'a chunk is always written before it counts as cached',
    asks: ({directory_cache}) => directory_cache.sync_add,
  },
  {
    key: 'directory_cache.direct',
    reason: NO_DESCRIPTOR_CACHE,
    asks: ({directory_cache}) => !directory_cache.direct,
  },
  {
    key: 'directory_cache.fadv_dontneed',
    reason: "the kernel's second copy of cached data is always given back",
    asks: ({directory_cache}) => directory_cache.fadv_dontneed,
  },
  {key: 'fuse.attr_timeout', reason: IMMUTABLE, asks: ({fuse}) => fuse.attr_timeout !== 1},
  {key: 'fuse.entry_timeout', reason: IMMUTABLE, asks: ({fuse}) => fuse.entry_timeout !== 1},
  {
    key: 'fuse.merge_buffer_size',
    reason: 'a file is never merged from pieces: it is one range of the cache from the start',
    asks: ({fuse}) => fuse.merge_buffer_size !== 419_430_400,
  },
  {
    key: 'fuse.merge_worker_count',
    reason: 'a file is never merged from pieces: it is one range of the cache from the start',
    asks: ({fuse}) => fuse.merge_worker_count !== 10,
  },
  {
    key: 'fuse_manager.path',
    reason: 'the process that keeps mounts alive is a part of this program',
    asks: ({fuse_manager}) => fuse_manager.path !== '',
  },
  {
    key: 'fuse_manager.metrics_address',
    reason: 'everything is measured in the daemon: see metrics_address',
    asks: ({fuse_manager}) => fuse_manager.metrics_address !== '',
  },
]

/** The keys of a file that ask for something that is not done here. */
export function keysWithoutEffect(config: ConfigFile): readonly KeyWithoutEffect[] {
  return RULES.filter(({asks}) => asks(config)).map(({key, reason}) => ({key, reason}))
}
