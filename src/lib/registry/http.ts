// HTTP over undici, the only file that knows it: one request, one response, bounded and abortable.

import {createSecureContext, getCACertificates, type SecureContextOptions} from 'node:tls'
import {Agent, type Dispatcher, EnvHttpProxyAgent} from 'undici'

/** What a request carries: bytes, or a function that starts the same byte stream anew for every attempt. */
export type RequestBody = Uint8Array | (() => AsyncIterable<Uint8Array>)

export interface HttpRequest {
  readonly method: 'GET' | 'HEAD' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  readonly url: URL
  readonly headers: Readonly<Record<string, string>>
  /** A streamed body needs a Content-Length among the headers. */
  readonly body?: RequestBody | undefined
  readonly signal?: AbortSignal | undefined
}

export interface HttpResponse {
  /** What was asked; after redirects, what answered. */
  readonly url: URL
  readonly status: number
  /** The first value of a header; names are case-insensitive. */
  header(name: string): string | undefined
  /** Every value of a header that may be repeated. */
  headers(name: string): readonly string[]
  /** The body, once. Leaving the loop early closes the connection. */
  readonly body: AsyncIterable<Uint8Array>
  /** Gives up the body: a small rest is read so that the connection can be used again, a big one is cut. */
  discard(): Promise<void>
}

/** TLS settings of a connection; certificates and keys are PEM text. */
export interface TlsSettings {
  readonly skipVerify: boolean
  /** Trusted beside the system's authorities. */
  readonly ca: readonly string[]
  readonly clients: readonly {readonly cert: string; readonly key: string}[]
}

/** Proxy URLs as in HTTP_PROXY, HTTPS_PROXY and NO_PROXY; entry points read those. */
export interface ProxySettings {
  readonly httpProxy?: string | undefined
  readonly httpsProxy?: string | undefined
  readonly noProxy?: string | undefined
}

/** Limits in milliseconds. */
export interface Timeouts {
  readonly connectMs: number
  /** From the end of the request to the response's headers. */
  readonly headersMs: number
  /** Longest silence inside a body. */
  readonly bodyIdleMs: number
}

export interface HttpClient extends AsyncDisposable {
  /** Resolves with any status; redirects are not followed. Rejects when the connection or TLS fails. */
  send(request: HttpRequest): Promise<HttpResponse>
}

export interface HttpClientOptions {
  readonly tls: TlsSettings
  readonly timeouts: Timeouts
  readonly proxy?: ProxySettings | undefined
}

/**
 * Connections to one host. Each costs both ends a handshake, so a burst of small reads shares these; one that many
 * long downloads fill is rare, and the next request then waits for the first of them to end.
 */
const MAX_CONNECTIONS = 32
/** How long an idle connection is kept for a host that does not say how long it keeps it. */
const KEEP_ALIVE_MS = 30_000
/** Rest of an unread body that is worth reading to keep a connection, bytes. */
const MAX_DISCARDED_BYTES = 64 * 1024

/** A client with its own connection pools; disposing it closes the connections. */
export function createHttpClient(options: HttpClientOptions): HttpClient {
  const dispatchers = new Map<string, Dispatcher>()

  function dispatcherFor(url: URL): Dispatcher {
    const route = {secure: url.protocol === 'https:', proxied: usesProxy(url, options.proxy)}
    const key = `${route.secure} ${route.proxied}`
    const dispatcher = dispatchers.get(key) ?? createDispatcher(route, options)
    dispatchers.set(key, dispatcher)
    return dispatcher
  }

  return {
    async send(request) {
      const {body, url} = request
      const response = await dispatcherFor(url).request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: request.method,
        headers: {...request.headers},
        // Undici takes any async iterable for a body, although its types know only streams.
        body: (typeof body === 'function' ? body() : (body ?? null)) as Uint8Array | null,
        signal: request.signal ?? null,
      })
      return toResponse(url, response)
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([...dispatchers.values()].map(dispatcher => dispatcher.destroy()))
    },
  }
}

/** True for `localhost`, 127.0.0.0/8 and ::1. Names that DNS decides about are never loopback. */
export function isLoopbackHost(hostname: string): boolean {
  const name = hostname.replace(/^\[|\]$/g, '').toLowerCase()
  return name === 'localhost' || name === '::1' || /^127(?:\.\d{1,3}){3}$/.test(name)
}

/** Go's rules, which registries' users know: each scheme has its own proxy, and this machine needs none. */
function usesProxy(url: URL, proxy: ProxySettings | undefined): boolean {
  const own = url.protocol === 'https:' ? proxy?.httpsProxy : proxy?.httpProxy
  return Boolean(own) && !isLoopbackHost(url.hostname)
}

function createDispatcher(
  {secure, proxied}: {readonly secure: boolean; readonly proxied: boolean},
  {tls, timeouts, proxy}: HttpClientOptions,
): Dispatcher {
  const connect = {
    timeout: timeouts.connectMs,
    // Made once: parsing the authorities for every connection would cost tens of milliseconds each.
    ...(secure
      ? {rejectUnauthorized: !tls.skipVerify, secureContext: createSecureContext(trustOf(tls))}
      : {}),
  }
  const settings = {
    connect,
    connections: MAX_CONNECTIONS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: timeouts.headersMs,
    bodyTimeout: timeouts.bodyIdleMs,
  }
  if (!proxied) return new Agent(settings)
  const {httpProxy = '', httpsProxy = '', noProxy = ''} = proxy ?? {}
  return new EnvHttpProxyAgent({...settings, requestTls: connect, httpProxy, httpsProxy, noProxy})
}

/** Node's own authorities and the system's, as Go programs trust them, beside those that were given. */
function trustOf({ca, clients}: TlsSettings): SecureContextOptions {
  return {
    ca: [...new Set([...getCACertificates('default'), ...getCACertificates('system'), ...ca])],
    ...(clients.length > 0 ? {cert: clients.map(pair => pair.cert), key: clients.map(pair => pair.key)} : {}),
  }
}

function toResponse(url: URL, response: Dispatcher.ResponseData): HttpResponse {
  const headers = (name: string): readonly string[] => {
    const value = response.headers[name.toLowerCase()]
    return value === undefined ? [] : typeof value === 'string' ? [value] : value
  }
  return {
    url,
    status: response.statusCode,
    headers,
    header: name => headers(name)[0],
    body: response.body,
    async discard() {
      // What goes wrong with bytes that nobody wants is of no interest; undici has already dropped the connection.
      await response.body.dump({limit: MAX_DISCARDED_BYTES}).catch(() => undefined)
    },
  }
}
