// Endpoints: the hosts that can serve a repository, mirrors first, with how to talk to each.

import {CodedError} from '../errors/coded-error.ts'
import {type Reference, registryHostOf} from '../oci/reference.ts'
import type {Timeouts} from './http.ts'
import {isLoopbackHost} from './proxy.ts'
import type {TlsSettings} from './trust.ts'

/** What containerd's hosts.toml lets a host be used for. */
export type Capability = 'pull' | 'resolve' | 'push'
export const ALL_CAPABILITIES: readonly Capability[] = ['pull', 'resolve', 'push']

/** One host for one repository. */
export interface Endpoint {
  /** The API root, with a trailing slash: `https://registry-1.docker.io/v2/`. */
  readonly base: URL
  readonly origin: string
  readonly host: string
  /** The repository's path below the root: `library/debian`. */
  readonly path: string
  /** The right that a request needs: `repository:library/debian:pull`, or `…:pull,push`. */
  readonly scope: string
  /** For a mirror: the domain it stands in for, sent as `?ns=`. */
  readonly namespace: string | undefined
  readonly capabilities: readonly Capability[]
  /** Sent to this origin only. */
  readonly headers: Readonly<Record<string, string>>
  readonly tls: TlsSettings
  /** Where they are not the session's. */
  readonly timeouts: Partial<Timeouts> | undefined
  /** How keychains call the host: `docker.io` for Docker Hub. */
  readonly keychainHost: string
  /** False for plain HTTP to another machine that nobody asked for: credentials stay here. */
  readonly mayAuthenticate: boolean
}

/** How a host is reached, before a repository is chosen. */
export interface HostSettings {
  /** `https://host[:port][/path]`. */
  readonly url: URL
  /** True when the URL's path is the API root itself, without `/v2` (hosts.toml `override_path`). */
  readonly overridePath: boolean
  readonly capabilities: readonly Capability[]
  readonly headers: Readonly<Record<string, string>>
  readonly tls: TlsSettings
  /** Where they are not the session's. */
  readonly timeouts?: Partial<Timeouts> | undefined
  /** True when plain HTTP was asked for by name (an option, or `http://` in hosts.toml). */
  readonly plainHttpAsked: boolean
  /** The repository's path, where this host calls it otherwise; such a host needs no `?ns=`. */
  readonly repository?: string | undefined
}

/** The scheme for a host: HTTP when asked for, or on the loopback interface unless TLS settings say otherwise. */
export function schemeFor(
  host: string,
  options: {readonly plainHttp: boolean; readonly hasTlsSettings: boolean},
): 'http' | 'https' {
  if (options.plainHttp) return 'http'
  // As containerd and nerdctl do: a registry on this machine rarely has a certificate, and needs none.
  return isLoopbackHost(parseHost('https:', host).hostname) &&
    !host.endsWith(':443') &&
    !options.hasTlsSettings
    ? 'http'
    : 'https'
}

/** The endpoint of a host for the repository of `reference`. */
export function endpointFor(settings: HostSettings, reference: Reference, access: 'pull' | 'push'): Endpoint {
  const {url, repository} = settings
  const path = repository ?? reference.path
  const base = new URL(url.origin)
  const prefix = url.pathname.replace(/\/+$/, '')
  base.pathname = settings.overridePath || prefix.endsWith('/v2') ? `${prefix}/` : `${prefix}/v2/`
  const isOrigin = [registryHostOf(reference), reference.domain].some(
    host => url.host === parseHost(url.protocol, host).host,
  )
  return {
    base,
    origin: base.origin,
    host: base.host,
    path,
    scope: `repository:${path}:${access === 'push' ? 'pull,push' : 'pull'}`,
    namespace: isOrigin || repository !== undefined ? undefined : reference.domain,
    capabilities: settings.capabilities,
    headers: settings.headers,
    tls: settings.tls,
    timeouts: settings.timeouts,
    keychainHost: isOrigin ? reference.domain : base.host,
    mayAuthenticate: base.protocol === 'https:' || isLoopbackHost(base.hostname) || settings.plainHttpAsked,
  }
}

/** The URL of an API path of a repository, with the namespace that mirrors need. */
export function endpointUrl(
  endpoint: Endpoint,
  path: string,
  query: Readonly<Record<string, string>> = {},
): URL {
  const url = new URL(`${endpoint.path}/${path}`, endpoint.base)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  if (endpoint.namespace !== undefined) url.searchParams.set('ns', endpoint.namespace)
  return url
}

/** As a URL, so that a scheme's default port does not count. */
function parseHost(protocol: string, host: string): URL {
  const url = URL.parse(`${protocol}//${host}`)
  if (!url) throw new CodedError('invalid-argument', `Cannot use ${JSON.stringify(host)} as a registry host`)
  return url
}
