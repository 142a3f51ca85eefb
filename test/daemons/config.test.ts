// The configuration file: every key of the reference is known, what is unknown or wrong is named, and nothing is silent.

import {readFileSync} from 'node:fs'
import {join} from 'node:path'
import {describe, expect, it} from 'vitest'
import {loadConfig, parseConfig} from '../../src/daemons/lazy-layers/config.ts'
import {temporaryDirectory} from '../support/temporary.ts'

const parse = (text: string) => parseConfig(text, 'config.toml')
const EXAMPLES = join(import.meta.dirname, '../../examples/snapshotter')

describe('a configuration', () => {
  it('that is empty gives the defaults of the reference', () => {
    const {config, unknownKeys, withoutEffect} = parse('')
    expect({unknownKeys, withoutEffect}).toEqual({unknownKeys: [], withoutEffect: []})
    expect(config).toMatchObject({
      prefetch: true,
      backgroundFetch: true,
      maxConcurrency: 2,
      allowNoVerification: false,
      disableVerification: false,
      mountBackend: 'auto',
      blob: {fetchTimeoutMs: 300_000, retry: {attempts: 6, minDelayMs: 30, maxDelayMs: 300_000}},
      kubeconfigKeychain: undefined,
      criKeychain: undefined,
      resolver: {requestTimeoutMs: 30_000},
      allowInvalidMountsOnRestart: false,
      oneDevice: true,
      metricsAddress: undefined,
    })
  })

  it('may say in either place that layers are read from IPFS', () => {
    expect(
      [parse('ipfs = true'), parse('[blob]\nipfs = true'), parse('')].map(({config}) => config.ipfs),
    ).toEqual([true, true, false])
  })

  it('that names every default, as the example does, says nothing', () => {
    const text = readFileSync(join(EXAMPLES, 'config.toml'), 'utf8')
    expect(parse(text)).toEqual(parse(''))
  })

  it('that switches everything in the example on is understood', () => {
    const text = readFileSync(join(EXAMPLES, 'config.toml'), 'utf8')
    const uncommented = text.replace(/^# ?(?=[\w"[]+ ?=|\[)/gm, '')
    expect(parse(uncommented).unknownKeys).toEqual([])
  })

  it('keeps mirrors with their headers and time limits', () => {
    const {config} = parse(`
[[resolver.host."docker.io".mirrors]]
host = "mirror.example"
insecure = true
request_timeout_sec = -1
[resolver.host."docker.io".mirrors.header]
x-key = ["a", "b"]
[[resolver.host."docker.io".mirrors]]
host = "other.example"
`)
    expect(config.resolver.mirrors.get('docker.io')).toEqual([
      {host: 'mirror.example', insecure: true, requestTimeoutMs: 0, headers: {'x-key': 'a, b'}},
      {host: 'other.example', insecure: false, requestTimeoutMs: undefined, headers: {}},
    ])
  })

  it('takes keychains only when they are switched on', () => {
    const {config} = parse(`
[kubeconfig_keychain]
enable_keychain = true
kubeconfig_path = "/etc/kubernetes/snapshotter.conf"
[cri_keychain]
enable_keychain = true
listen_path = "/run/cri.sock"
`)
    expect(config.kubeconfigKeychain).toEqual({path: '/etc/kubernetes/snapshotter.conf'})
    expect(config.criKeychain).toEqual({
      imageServicePath: '/run/containerd/containerd.sock',
      listenPath: '/run/cri.sock',
    })
  })

  it.each([
    [0, 300_000],
    [-1, 300_000],
    [1, 1000],
  ])('with %d seconds to fetch gives readers %d ms', (seconds, expected) => {
    const {config} = parse(`[blob]\nfetching_timeout_sec = ${seconds}`)
    expect(config.blob.fetchTimeoutMs).toBe(expected)
  })

  it('measures nothing with no_prometheus', () => {
    expect(parse('metrics_address = "127.0.0.1:1"\nno_prometheus = true').config.metricsAddress).toBe(
      undefined,
    )
  })
})

describe('an unknown key is named with its section, and nothing else', () => {
  const check = (text: string, ...keys: string[]) =>
    it(keys.join(', '), () => expect(parse(text).unknownKeys.toSorted()).toEqual(keys))

  check('prefetchsize = 1', 'prefetchsize')
  check('[blob]\nchunk_sise = 1', 'blob.chunk_sise')
  check('[nosuch]\na = 1', 'nosuch')
  check('a = 1\n[fuse]\nb = 2\nc = 3', 'a', 'fuse.b', 'fuse.c')
  check('[resolver.host."a.example:5000"]\nmirror = 1', 'resolver.host."a.example:5000".mirror')
  check('[[resolver.host."a".mirrors]]\nhost = "b"\nplain = true', 'resolver.host.a.mirrors[0].plain')

  it('the known ones beside it count', () => {
    expect(parse('nosuch = 1\nnoprefetch = true').config.prefetch).toBe(false)
  })
})

describe('a key that has nothing to act on is told with the reason', () => {
  const check = (text: string, key: string) =>
    it(key, () => {
      const {withoutEffect, unknownKeys} = parse(text)
      expect(unknownKeys).toEqual([])
      expect(withoutEffect).toEqual([{key, reason: expect.stringMatching(/\w+ \w+/)}])
    })

  check('http_cache_type = "memory"', 'http_cache_type')
  check('filesystem_cache_type = "memory"', 'filesystem_cache_type')
  check('resolve_result_entry = 30', 'resolve_result_entry')
  check('resolve_result_entry_ttl_sec = 60', 'resolve_result_entry_ttl_sec')
  check('prefetch_timeout_sec = 1', 'prefetch_timeout_sec')
  check('prefetch_async_size = 1', 'prefetch_async_size')
  check('[blob]\nvalid_interval = 1', 'blob.valid_interval')
  check('[blob]\ncheck_always = true', 'blob.check_always')
  check('[blob]\nchunk_size = 1', 'blob.chunk_size')
  check('[blob]\nprefetch_chunk_size = 1', 'blob.prefetch_chunk_size')
  check('log_file_access = true', 'log_file_access')
  check('[directory_cache]\nmax_lru_cache_entry = 1', 'directory_cache.max_lru_cache_entry')
  check('[directory_cache]\nmax_cache_fds = 1', 'directory_cache.max_cache_fds')
  check('[directory_cache]\nsync_add = true', 'directory_cache.sync_add')
  check('[directory_cache]\ndirect = false', 'directory_cache.direct')
  check('[directory_cache]\nfadv_dontneed = true', 'directory_cache.fadv_dontneed')
  check('[fuse]\nattr_timeout = 2', 'fuse.attr_timeout')
  check('[fuse]\nentry_timeout = 2', 'fuse.entry_timeout')
  check('[fuse]\nmerge_buffer_size = 2', 'fuse.merge_buffer_size')
  check('[fuse]\nmerge_worker_count = 2', 'fuse.merge_worker_count')
  check('[fuse_manager]\npath = "/usr/bin/stargz-fuse-manager"', 'fuse_manager.path')
  check('[fuse_manager]\nmetrics_address = "127.0.0.1:1"', 'fuse_manager.metrics_address')
})

it('force_single_range_mode is always the case', () => {
  expect(parse('[blob]\nforce_single_range_mode = true').withoutEffect).toEqual([])
})

describe('what cannot be used is refused, naming file and key', () => {
  const check = (text: string, message: RegExp) =>
    it(message.source, () => {
      expect(() => parse(text)).toThrow(expect.objectContaining({code: 'invalid-argument'}))
      expect(() => parse(text)).toThrow(message)
      expect(() => parse(text)).toThrow(/"config\.toml"/)
    })

  check('noprefetch = "yes"', /"noprefetch": .*boolean/)
  check('prefetch_size = "1MB"', /"prefetch_size": .*number/)
  check('max_concurrency = 1.5', /"max_concurrency": .*int/)
  check('max_concurrency = -1', /"max_concurrency": /)
  check('blob = 3', /"blob": .*object/)
  check('[blob]\nchunk_size = true', /"blob\.chunk_size"/)
  check('metadata_store = "redis"', /"metadata_store"/)
  check('mount_backend = "overlay"', /"mount_backend"/)
  check('debug_address = "debug.sock"', /"debug_address": it is no absolute path/)
  check('[cri_keychain]\nlisten_path = "x"', /"cri_keychain\.listen_path"/)
  check('[fuse_manager]\naddress = "x"', /"fuse_manager\.address"/)
  check('[[resolver.host."a".mirrors]]\ninsecure = true', /"resolver\.host\.a\.mirrors\[0\]\.host"/)
  check('[[resolver.host."a".mirrors]]\nhost = "b"\nheader = {"a b" = "c"}', /"a b" is no header/)
  check('a = [', /Cannot parse configuration/)
  check('noprefetch = 1\n[blob]\nchunk_size = "x"', /"noprefetch".*"blob\.chunk_size"/)
})

describe('the file', () => {
  it('may be missing only where nobody has named it', async () => {
    const path = join(await temporaryDirectory(), 'config.toml')
    await expect(loadConfig(path, false)).rejects.toMatchObject({code: 'invalid-argument'})
    expect((await loadConfig(path, true)).unknownKeys).toEqual([])
  })

  it('cannot be a directory, not even the default one', async () => {
    await expect(loadConfig(await temporaryDirectory(), true)).rejects.toMatchObject({
      code: 'invalid-argument',
    })
  })
})
