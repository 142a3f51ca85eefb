// HTTP over undici, the only file that knows it: one request, one response, bounded and abortable.

import type {Dispatcher} from 'undici'
// Not by undici's index, which also loads fetch, WebSockets, caches and mocks: most of it, and of the time that it takes.
import api from 'undici/lib/api/index.js'
import Agent from 'undici/lib/dispatcher/agent.js'
import BaseDispatcher from 'undici/lib/dispatcher/dispatcher.js'
import ProxyAgent from 'undici/lib/dispatcher/proxy-agent.js'
import {connectorFor} from './connect.ts'
import {describeProxy, ProxyFailure, type ProxySettings, proxyFor} from './proxy.ts'
import {createTrust, type TlsSettings} from './trust.ts'

// As undici's index does: dispatchers get their methods there.
Object.assign(BaseDispatcher.prototype, api)

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
  /** The proxy that it came through, which may have answered itself. */
  readonly proxy: string | undefined
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

  function dispatcherFor(url: URL, proxy: URL | undefined): Dispatcher {
    const secure = url.protocol === 'https:'
    const key = `${secure} ${proxy !== undefined}`
    const dispatcher = dispatchers.get(key) ?? createDispatcher({secure, proxy}, options)
    dispatchers.set(key, dispatcher)
    return dispatcher
  }

  return {
    async send(request) {
      const {body, url, signal = null} = request
      const proxy = proxyFor(url, options.proxy)
      const sending = dispatcherFor(url, proxy).request({
        origin: url.origin,
        path: `${url.pathname}${url.search}`,
        method: request.method,
        headers: {...request.headers},
        // Undici takes any async iterable for a body, although its types know only streams.
        body: (typeof body === 'function' ? body() : (body ?? null)) as Uint8Array | null,
        signal,
      })
      if (!proxy) return toResponse(url, await sending, undefined)
      const name = describeProxy(proxy)
      const response = await sending.catch(error => {
        throw signal?.aborted ? error : new ProxyFailure(name, error)
      })
      return toResponse(url, response, name)
    },
    async [Symbol.asyncDispose]() {
      await Promise.all([...dispatchers.values()].map(dispatcher => dispatcher.destroy()))
    },
  }
}

function createDispatcher(
  {secure, proxy}: {readonly secure: boolean; readonly proxy: URL | undefined},
  {tls, timeouts}: HttpClientOptions,
): Dispatcher {
  const trust = secure ? createTrust(tls) : undefined
  const settings = {
    connections: MAX_CONNECTIONS,
    keepAliveTimeout: KEEP_ALIVE_MS,
    headersTimeout: timeouts.headersMs,
    bodyTimeout: timeouts.bodyIdleMs,
  }
  if (!proxy) {
    const {skipVerify} = tls
    return new Agent({...settings, connect: connectorFor({timeoutMs: timeouts.connectMs, skipVerify, trust})})
  }
  const connect = {
    timeout: timeouts.connectMs,
    ...(trust ? {rejectUnauthorized: !tls.skipVerify, secureContext: trust.all()} : {}),
  }
  return new ProxyAgent({...settings, connect, requestTls: connect, uri: proxy.href})
}

function toResponse(url: URL, response: Dispatcher.ResponseData, proxy: string | undefined): HttpResponse {
  const headers = (name: string): readonly string[] => {
    const value = response.headers[name.toLowerCase()]
    return value === undefined ? [] : typeof value === 'string' ? [value] : value
  }
  return {
    url,
    proxy,
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
