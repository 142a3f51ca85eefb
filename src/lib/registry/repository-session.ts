// A session: requests to registries with retries, authorization and redirects. Everything above it only names paths.

import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {Authorizer, type CredentialSources} from './authorizer.ts'
import type {Endpoint} from './endpoint.ts'
import {createHostHealth, type HostHealth} from './host-health.ts'
import {
  createHttpClient,
  type HttpClient,
  type HttpRequest,
  type HttpResponse,
  type Timeouts,
} from './http.ts'
import type {ProxySettings} from './proxy.ts'
import {errorFromConnection, isRefusal, isRetryableConnectionError} from './registry-error.ts'
import {isRetryableStatus, parseRetryAfter, pause, type RetryPolicy, retryDelayMs} from './retry.ts'
import {type RequestListener, traceRequest} from './trace.ts'

export interface SessionOptions extends CredentialSources {
  readonly retry: RetryPolicy
  readonly timeouts: Timeouts
  readonly proxy?: ProxySettings | undefined
  readonly userAgent: string
  readonly onRequest?: RequestListener | undefined
}

/** A request to an endpoint. `url` is on it, or where it sent us (an upload location, a remembered redirect). */
export interface SessionRequest {
  readonly method: HttpRequest['method']
  readonly url: URL
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: HttpRequest['body']
  /** Rights that the request needs beside the endpoint's own: `repository:library/debian:pull`. */
  readonly moreScopes?: readonly string[] | undefined
  /** What is being done, for errors: `read blob sha256:… of docker.io/library/debian`. */
  readonly action: string
  /** Attempts on trouble that may pass; 1 for a request that must not be repeated. Default: the policy's. */
  readonly attempts?: number | undefined
  /** Called for everything that is sent: redirects and repetitions too. */
  readonly onSend?: (() => void) | undefined
}

/** Redirects followed for one request; registries need one, sometimes two. */
const MAX_REDIRECTS = 5
/** 401s answered for one request: one to learn the method, one for a token that has just expired. */
const MAX_CHALLENGES = 2

/** Attempts to connect to a host that has never answered and refuses: mostly the address is wrong. */
const REFUSED_ATTEMPTS = 3

export class Session implements AsyncDisposable {
  readonly retry: RetryPolicy
  readonly health: HostHealth = createHostHealth()
  readonly #options: SessionOptions
  readonly #authorizer: Authorizer
  readonly #clients = new Map<string, HttpClient>()
  /** The same by identity: certificates make long keys, and a lazy mount makes many requests. */
  readonly #clientsOf = new WeakMap<Connection, HttpClient>()
  readonly #foreign = new WeakMap<Endpoint, Connection>()
  /** Origins that have answered a request: where one refuses connections later, it is being restarted. */
  readonly #answered = new Set<string>()

  constructor(options: SessionOptions) {
    this.retry = options.retry
    this.#options = options
    this.#authorizer = new Authorizer(options, (request, {endpoint, action, signal}) =>
      this.#exchange(this.#connectionTo(endpoint, 'foreign'), request, {action, signal}),
    )
  }

  /**
   * Sends a request, and sends it again after trouble that may pass and after a 401 that credentials can answer.
   * Resolves with the last response, whatever its status; throws when there was none.
   */
  async send(endpoint: Endpoint, request: SessionRequest, {signal}: CallOptions): Promise<HttpResponse> {
    const scopes = [endpoint.scope, ...(request.moreScopes ?? [])]
    let url = request.url
    let challenges = 0
    for (let redirects = 0; ; ) {
      const own = url.origin === endpoint.origin
      const sent = own ? await this.#authorizer.header(endpoint, scopes, {signal}) : undefined
      const headers = {
        ...(own ? endpoint.headers : {}),
        ...request.headers,
        ...(sent === undefined ? {} : {authorization: sent}),
      }
      const response = await this.#exchange(
        this.#connectionTo(endpoint, own ? 'own' : 'foreign'),
        {method: request.method, url, headers, body: request.body},
        {action: request.action, signal, attempts: request.attempts, onSend: request.onSend},
      )
      if (response.status === 401 && own && challenges < MAX_CHALLENGES) {
        challenges++
        if (await this.#authorizer.learn(endpoint, response, {scopes, sent}, {signal})) {
          await response.discard()
          continue
        }
      }
      const location = redirectOf(request, response, url)
      if (location === undefined) return response
      if (redirects++ >= MAX_REDIRECTS) {
        throw new CodedError('unavailable', `Cannot ${request.action}: more than ${MAX_REDIRECTS} redirects`)
      }
      await response.discard()
      url = location
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#clients.values()].map(client => client[Symbol.asyncDispose]()))
  }

  /** One request with retries; the last response or error counts. */
  async #exchange(
    connection: Connection,
    bare: HttpRequest,
    {action, signal, attempts = this.retry.attempts, onSend}: ExchangeOptions,
  ): Promise<HttpResponse> {
    const request = {...bare, headers: this.#withBaseHeaders(bare.headers)}
    const {origin} = request.url
    for (let attempt = 1; ; attempt++) {
      signal?.throwIfAborted()
      const last = attempt >= attempts
      let retryAfterMs: number | undefined
      onSend?.()
      try {
        const response = await traceRequest(this.#options.onRequest, request, () =>
          this.#clientFor(connection).send({...request, signal}),
        )
        this.#answered.add(origin)
        if (last || !isRetryableStatus(response.status)) return response
        retryAfterMs = parseRetryAfter(response.header('retry-after'), Date.now())
        await response.discard()
      } catch (error) {
        signal?.throwIfAborted()
        const nobody = attempt >= REFUSED_ATTEMPTS && !this.#answered.has(origin) && isRefusal(error)
        if (last || nobody || !isRetryableConnectionError(error)) {
          throw errorFromConnection(error, action, request.url)
        }
      }
      await pause(retryDelayMs(this.retry, attempt + 1, retryAfterMs), {signal})
    }
  }

  #withBaseHeaders(headers: Readonly<Record<string, string>> = {}): Record<string, string> {
    return {'user-agent': this.#options.userAgent, 'accept-encoding': 'identity', ...headers}
  }

  /** Hosts that an endpoint sends us to are met with its trust, but without our client certificates. */
  #connectionTo(endpoint: Endpoint, host: 'own' | 'foreign'): Connection {
    if (host === 'own') return endpoint
    const known = this.#foreign.get(endpoint)
    if (known) return known
    const connection = {tls: {...endpoint.tls, clients: []}, timeouts: endpoint.timeouts}
    this.#foreign.set(endpoint, connection)
    return connection
  }

  #clientFor(connection: Connection): HttpClient {
    const known = this.#clientsOf.get(connection)
    if (known) return known
    const {tls, timeouts} = connection
    const key = JSON.stringify([tls, timeouts])
    const client = this.#clients.get(key) ?? this.#newClient(connection)
    this.#clients.set(key, client)
    this.#clientsOf.set(connection, client)
    return client
  }

  #newClient({tls, timeouts}: Connection): HttpClient {
    const {timeouts: common, proxy} = this.#options
    return createHttpClient({tls, timeouts: {...common, ...timeouts}, proxy})
  }
}

interface ExchangeOptions extends CallOptions {
  readonly action: string
  readonly attempts?: number | undefined
  readonly onSend?: (() => void) | undefined
}

/** Where a response sends a read; undefined when it does not. Writes are never redirected: their bytes are ours. */
function redirectOf(request: SessionRequest, response: HttpResponse, from: URL): URL | undefined {
  const {method} = request
  const redirects = [301, 302, 303, 307, 308].includes(response.status)
  if (!redirects || (method !== 'GET' && method !== 'HEAD')) return undefined
  const location = response.header('location')
  const url = location === undefined ? null : URL.parse(location, from.href)
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new CodedError('unavailable', `Cannot ${request.action}: ${from.host} redirects to no usable URL`)
  }
  if (from.protocol === 'https:' && url.protocol === 'http:') {
    throw new CodedError(
      'permission-denied',
      `Cannot ${request.action}: ${from.host} redirects from HTTPS to plain HTTP at ${url.host}`,
    )
  }
  url.username = ''
  url.password = ''
  url.hash = ''
  return url
}

/** What decides which connections a request may use. */
type Connection = Pick<Endpoint, 'tls' | 'timeouts'>
