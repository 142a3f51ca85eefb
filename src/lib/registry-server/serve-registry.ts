// A registry over a store: the distribution API (OCI distribution-spec v1.1) on node:http, for tests, for machines
// without a network, and to hand an image from one tool to another.

import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import {createServer as createHttpsServer} from 'node:https'
import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Store} from '../oci/image-store.ts'
import {answerRequest, type Credentials, type RequestLogEntry} from './answer-request.ts'
import type {Registry} from './exchange.ts'
import {createKnownBlobs} from './known-blobs.ts'
import {createUploadSessions} from './upload-sessions.ts'
import {createWriteLease} from './write-lease.ts'

export interface RegistryOptions extends CallOptions {
  /** Address to listen on. Loopback by default: without credentials whoever reaches it may write. */
  readonly host?: string | undefined
  /** TCP port; 0, the default, takes a free one. */
  readonly port?: number | undefined
  /** Domain under which the store keeps images that were pushed without one; `localhost` by default. */
  readonly domain?: string | undefined
  readonly readOnly?: boolean | undefined
  /** Basic authentication for everything; off by default. */
  readonly credentials?: Credentials | undefined
  /** PEM certificate and key; plain HTTP without. */
  readonly tls?: {readonly cert: string; readonly key: string} | undefined
  readonly onRequest?: ((entry: RequestLogEntry) => void) | undefined
}

/** Disposing lets running requests finish for a moment, then ends them; the store stays open, it is the caller's. */
export interface RunningRegistry extends AsyncDisposable {
  /** `127.0.0.1:41234`: what stands before the repository in an image's name. */
  readonly address: string
  readonly port: number
  /** `http://127.0.0.1:41234` */
  readonly url: string
}

/** Multi-range requests of lazy mounts are long: 1000 ranges of 24 characters, and room for the rest. */
const MAX_HEADER_SIZE = 64 * 1024
const HEADERS_TIMEOUT_MS = 30_000
/** As nginx: a lazy mount reads now and then, and opening a connection costs it several round trips. */
const KEEP_ALIVE_TIMEOUT_MS = 75_000
/** How long running requests may take to finish when the registry closes. */
const CLOSE_TIMEOUT_MS = 5_000

/**
 * Starts a registry. `HOST:PORT/app:1` is kept as the image `localhost/app:1`; a repository that begins with a host
 * name (`docker.io/library/debian`) is kept, and found, by that name. Images pulled into the store are found by the
 * name that the client uses, and those of Docker Hub also without `docker.io/library/`. Throws `failed-precondition`
 * when the address cannot be had. Aborting the signal closes it, like disposing it.
 */
export async function serveRegistry(store: Store, options: RegistryOptions = {}): Promise<RunningRegistry> {
  options.signal?.throwIfAborted()
  const registry: Registry = {
    store,
    naming: {domain: options.domain ?? 'localhost'},
    readOnly: options.readOnly ?? false,
    blobs: createKnownBlobs(store.content),
    uploads: createUploadSessions(store.content),
    lease: createWriteLease(store),
  }
  const running = new Set<Promise<void>>()
  const server = createServer(options, (request, response) => {
    const answered = answerRequest(registry, options, request, response).finally(() => {
      running.delete(answered)
    })
    running.add(answered)
  })
  await listen(server, options.host ?? '127.0.0.1', options.port ?? 0)
  let closing: Promise<void> | undefined
  const close = () => (closing ??= closeRegistry(server, registry, running))
  const onAbort = () => void close().catch(() => undefined)
  options.signal?.addEventListener('abort', onAbort, {once: true})
  return {
    ...addressOf(server, options),
    async [Symbol.asyncDispose]() {
      options.signal?.removeEventListener('abort', onAbort)
      await close()
    },
  }
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

function createServer({tls}: RegistryOptions, handler: Handler): Server {
  const settings = {
    maxHeaderSize: MAX_HEADER_SIZE,
    headersTimeout: HEADERS_TIMEOUT_MS,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    // A layer may take an hour to upload over a slow line.
    requestTimeout: 0,
  }
  return tls ? createHttpsServer({...settings, ...tls}, handler) : createHttpServer(settings, handler)
}

function listen(server: Server, host: string, port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', cause => {
      reject(
        new CodedError('failed-precondition', `Cannot listen on ${host}:${port}: ${cause.message}`, {cause}),
      )
    })
    server.listen({host, port}, resolve)
  })
}

function addressOf(
  server: Server,
  {tls}: RegistryOptions,
): Pick<RunningRegistry, 'address' | 'port' | 'url'> {
  const bound = server.address()
  if (bound === null || typeof bound === 'string') throw new CodedError('internal', 'Cannot tell the address')
  const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address
  const address = `${host}:${bound.port}`
  return {address, port: bound.port, url: `${tls ? 'https' : 'http'}://${address}`}
}

async function closeRegistry(
  server: Server,
  registry: Registry,
  running: ReadonlySet<Promise<void>>,
): Promise<void> {
  const closed = new Promise<void>(resolve => void server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), CLOSE_TIMEOUT_MS)
  await closed
  clearTimeout(timer)
  await Promise.allSettled(running)
  await registry.uploads[Symbol.asyncDispose]()
  await registry.lease[Symbol.asyncDispose]()
}
