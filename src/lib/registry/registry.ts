// Registries: one session for any number of repositories, opened with the options that `ctr` has flags for.

import {tmpdir} from 'node:os'
import type {CallOptions} from '../oci/content-store.ts'
import {parseReference, type Reference, repositoryOf} from '../oci/reference.ts'
import {ALL_CAPABILITIES, endpointFor, type HostSettings} from './endpoint.ts'
import {findHosts, type HostOptions} from './hosts.ts'
import type {Timeouts} from './http.ts'
import {ANONYMOUS, type Credential, type Keychain} from './keychain.ts'
import type {RepositoryLocation} from './location.ts'
import type {ProxySettings} from './proxy.ts'
import {createRepository, type Repository} from './repository.ts'
import {Session} from './repository-session.ts'
import {DEFAULT_RETRY, type RetryPolicy} from './retry.ts'
import type {RequestListener} from './trace.ts'

export interface RegistryOptions extends HostOptions {
  /** Where credentials come from; anonymous when absent. See `createDockerKeychain`. */
  readonly keychain?: Keychain | undefined
  /** What `--user` says: for the registry of every reference opened here, but never for its mirrors. */
  readonly credential?: Credential | undefined
  readonly proxy?: ProxySettings | undefined
  readonly userAgent?: string | undefined
  readonly retry?: Partial<RetryPolicy>
  readonly timeouts?: Partial<Timeouts>
  /** Told of every request, with credentials taken out. */
  readonly onRequest?: RequestListener | undefined
  /** Bytes of an upload held in memory, and size of an upload's chunk; 8 MiB. */
  readonly chunkSize?: number
  /** Uploads from this many bytes on are sent in chunks; 1 GiB, since some proxies limit the size of one request. */
  readonly chunkedFrom?: number
  /** Where large blobs wait for their digest; the system's temporary directory. */
  readonly spoolDirectory?: string
}

export interface RepositoryOptions {
  readonly access: 'pull' | 'push'
  /** References of images that may have the same blobs; those of the same registry are used for mounting. */
  readonly mountFrom?: readonly string[]
}

/** Connections, tokens and what was learnt of hosts; shared by the repositories, and closed with it. */
export interface Registry extends AsyncDisposable {
  /** Makes no request. */
  repository(reference: string | Reference, options: RepositoryOptions): Repository
}

const DEFAULT_TIMEOUTS: Timeouts = {connectMs: 30_000, headersMs: 120_000, bodyIdleMs: 60_000}
const DEFAULT_CHUNK_SIZE = 8 * 1024 * 1024
const DEFAULT_CHUNKED_FROM = 1024 * 1024 * 1024

/** Opens registries; nothing is read or connected before it is needed. */
export function openRegistry(options: RegistryOptions = {}): Registry {
  const session = new Session({
    keychain: options.keychain ?? ANONYMOUS,
    credential: options.credential,
    retry: {...DEFAULT_RETRY, ...options.retry},
    timeouts: {...DEFAULT_TIMEOUTS, ...options.timeouts},
    proxy: options.proxy,
    userAgent: options.userAgent ?? 'ctr-remote',
    onRequest: options.onRequest,
  })
  return {
    repository(text, {access, mountFrom = []}) {
      const reference = typeof text === 'string' ? parseReference(text) : text
      const name = `docker://${repositoryOf(reference)}`
      // Found once per repository: a process that runs for long sees changes of hosts.toml with its next image.
      let found: Promise<RepositoryLocation> | undefined
      const find = async (call: CallOptions): Promise<RepositoryLocation> => {
        const hosts = await findHosts(reference, options, call)
        const used = access === 'push' ? pushHosts(hosts) : hosts
        const endpoints = used.map(host => endpointFor(host, reference, access))
        return {session, endpoints, name, served: new Map()}
      }
      const locate = (call: CallOptions) => {
        found ??= find(call).catch(error => {
          found = undefined
          throw error
        })
        return found
      }
      return createRepository(name, locate, {
        chunkSize: options.chunkSize ?? DEFAULT_CHUNK_SIZE,
        chunkedFrom: options.chunkedFrom ?? DEFAULT_CHUNKED_FROM,
        spoolDirectory: options.spoolDirectory ?? tmpdir(),
        mountFrom: mountPaths(reference, mountFrom),
      })
    },
    [Symbol.asyncDispose]: () => session[Symbol.asyncDispose](),
  }
}

/** The first host that may be written to; whoever writes also looks at what is there. */
function pushHosts(hosts: readonly HostSettings[]): HostSettings[] {
  const able = hosts.find(({capabilities}) => capabilities.includes('push'))
  return able ? [{...able, capabilities: ALL_CAPABILITIES}] : []
}

function mountPaths(target: Reference, sources: readonly string[]): string[] {
  const others = sources.map(parseReference)
  const paths = others.filter(({domain, path}) => domain === target.domain && path !== target.path)
  return [...new Set(paths.map(({path}) => path))]
}
