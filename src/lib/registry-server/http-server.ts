// The HTTP server below a registry: where it listens, how long it waits for clients, how it ends.

import {
  createServer as createHttpServer,
  type IncomingMessage,
  type Server,
  type ServerResponse,
} from 'node:http'
import {createServer as createHttpsServer} from 'node:https'
import {CodedError} from '../errors/coded-error.ts'

export interface ListenOptions {
  /** Address to listen on; loopback by default. */
  readonly host?: string | undefined
  /** TCP port; 0, the default, takes a free one. */
  readonly port?: number | undefined
  /** PEM certificate and key; plain HTTP without. */
  readonly tls?: {readonly cert: string; readonly key: string} | undefined
}

/** Where a server is reached. Disposing lets running requests finish for a moment, then ends them. */
export interface RunningServer extends AsyncDisposable {
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
/** How long running requests may take to finish when the server closes. */
const CLOSE_TIMEOUT_MS = 5_000

/** Starts to listen; `answer` never rejects. Throws `failed-precondition` when the address cannot be had. */
export async function startServer(
  options: ListenOptions,
  answer: (request: IncomingMessage, response: ServerResponse) => Promise<void>,
): Promise<RunningServer> {
  const running = new Set<Promise<void>>()
  const server = createServer(options, (request, response) => {
    const answered = answer(request, response).finally(() => {
      running.delete(answered)
    })
    running.add(answered)
  })
  await listen(server, options.host ?? '127.0.0.1', options.port ?? 0)
  return {
    ...addressOf(server, options),
    [Symbol.asyncDispose]: () => closeServer(server, running),
  }
}

type Handler = (request: IncomingMessage, response: ServerResponse) => void

function createServer({tls}: ListenOptions, handler: Handler): Server {
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

function addressOf(server: Server, {tls}: ListenOptions): Pick<RunningServer, 'address' | 'port' | 'url'> {
  const bound = server.address()
  if (bound === null || typeof bound === 'string') throw new CodedError('internal', 'Cannot tell the address')
  const host = bound.family === 'IPv6' ? `[${bound.address}]` : bound.address
  const address = `${host}:${bound.port}`
  return {address, port: bound.port, url: `${tls ? 'https' : 'http'}://${address}`}
}

async function closeServer(server: Server, running: ReadonlySet<Promise<void>>): Promise<void> {
  const closed = new Promise<void>(resolve => void server.close(() => resolve()))
  server.closeIdleConnections()
  const timer = setTimeout(() => server.closeAllConnections(), CLOSE_TIMEOUT_MS)
  await closed
  clearTimeout(timer)
  await Promise.allSettled(running)
}
