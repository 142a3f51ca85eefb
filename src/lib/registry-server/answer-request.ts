// One request from its arrival to its log entry: credentials, route, handler, refusal.

import {timingSafeEqual} from 'node:crypto'
import type {IncomingMessage, ServerResponse} from 'node:http'
import {performance} from 'node:perf_hooks'
import {digestOf} from '../io/sha256.ts'
import {cancelUpload, continueUpload, finishUpload, sendBlob, sendUploadStatus, startUpload} from './blobs.ts'
import {type Exchange, type Registry, reply} from './exchange.ts'
import {sendCatalog, sendReferrers, sendTags} from './listings.ts'
import {deleteManifest, putManifest, sendManifest} from './manifests.ts'
import {describeProblem, encodeProblem, Problem, problemOf} from './problem.ts'
import {parseRoute, type Route} from './route.ts'

/** One answered request. Sizes are bytes of bodies. */
export interface RequestLogEntry {
  /** When it arrived, RFC 3339. */
  readonly time: string
  readonly remote: string
  readonly method: string
  /** Path and query, as sent. */
  readonly path: string
  readonly range?: string
  /** 499 when the client went away before the answer was complete. */
  readonly status: number
  readonly receivedBytes: number
  readonly sentBytes: number
  readonly durationMs: number
  readonly error?: string
}

export interface Credentials {
  readonly username: string
  readonly password: string
}

export interface AnswerOptions {
  readonly credentials?: Credentials | undefined
  readonly onRequest?: ((entry: RequestLogEntry) => void) | undefined
}

type Handler = (registry: Registry, exchange: Exchange) => Promise<void> | void

/** Answers one request and reports it; what goes wrong becomes an answer, or ends the connection. */
export async function answerRequest(
  registry: Registry,
  options: AnswerOptions,
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  const startedAt = performance.now()
  const arrival = {time: new Date().toISOString(), remote: request.socket.remoteAddress ?? ''}
  const abort = new AbortController()
  const ended = new Promise<void>(resolve => {
    response.once('close', () => {
      if (!response.writableFinished) abort.abort()
      resolve()
    })
  })
  const {path, exchange} = openExchange(request, response, abort.signal)
  let failure: unknown
  try {
    checkCredentials(options.credentials, request)
    await handlerFor(registry, exchange.method, path)(registry, exchange)
  } catch (error) {
    failure = error
    refuse(exchange, error)
  }
  await ended
  options.onRequest?.({
    ...arrival,
    method: exchange.method,
    path: request.url ?? '',
    ...(request.headers.range === undefined ? {} : {range: request.headers.range}),
    status: response.writableFinished ? response.statusCode : 499,
    receivedBytes: exchange.receivedBytes,
    sentBytes: exchange.sentBytes,
    durationMs: Math.round(performance.now() - startedAt),
    ...(failure === undefined ? {} : {error: describeProblem(failure)}),
  })
}

function openExchange(
  request: IncomingMessage,
  response: ServerResponse,
  signal: AbortSignal,
): {path: string | undefined; exchange: Exchange} {
  const [rawPath = '', rawQuery = ''] = splitOnce(request.url ?? '', '?')
  const query = new URLSearchParams(rawQuery)
  const exchange: Exchange = {
    method: request.method ?? 'GET',
    query,
    request,
    response,
    hints: {host: request.headers.host, mirrored: query.get('ns') ?? undefined},
    signal,
    receivedBytes: 0,
    sentBytes: 0,
  }
  return {path: decodePath(rawPath), exchange}
}

function handlerFor({readOnly}: Registry, method: string, path: string | undefined): Handler {
  const route = path === undefined ? undefined : parseRoute(path)
  if (!route) throw new Problem('NAME_UNKNOWN', 'There is no such path in the distribution API')
  const handlers = handlersOf(route)
  const handler = handlers[method === 'HEAD' ? 'GET' : method]
  const isRead = method === 'GET' || method === 'HEAD'
  if (handler && (isRead || !readOnly)) return handler
  const allowed = Object.keys(handlers).filter(name => name === 'GET' || !readOnly)
  throw new Problem(
    'UNSUPPORTED',
    readOnly ? 'This registry is read-only' : `Method ${method} does not apply`,
    {
      allow: allowed.join(', '),
    },
  )
}

function handlersOf(route: Route): Readonly<Record<string, Handler>> {
  switch (route.kind) {
    case 'base':
      return {GET: (_, exchange) => reply(exchange, 200, {'content-type': 'application/json'}, '{}')}
    case 'catalog':
      return {GET: sendCatalog}
    case 'tags':
      return {GET: (registry, exchange) => sendTags(registry, exchange, route.repository)}
    case 'referrers':
      return {GET: (_, exchange) => sendReferrers(exchange)}
    case 'manifest': {
      const {repository, reference} = route
      return {
        GET: (registry, exchange) => sendManifest(registry, exchange, repository, reference),
        PUT: (registry, exchange) => putManifest(registry, exchange, repository, reference),
        DELETE: (registry, exchange) => deleteManifest(registry, exchange, repository, reference),
      }
    }
    case 'blob':
      // No DELETE: blobs are shared by all repositories, and go with garbage collection.
      return {GET: (registry, exchange) => sendBlob(registry, exchange, route.digest)}
    case 'uploads':
      return {POST: (registry, exchange) => startUpload(registry, exchange, route.repository)}
    case 'upload': {
      const {repository, id} = route
      return {
        GET: (registry, exchange) => sendUploadStatus(registry, exchange, repository, id),
        PATCH: (registry, exchange) => continueUpload(registry, exchange, repository, id),
        PUT: (registry, exchange) => finishUpload(registry, exchange, repository, id),
        DELETE: (registry, exchange) => cancelUpload(registry, exchange, repository, id),
      }
    }
  }
}

/** A body that has begun cannot become a refusal: cutting it off is what tells the client. */
function refuse(exchange: Exchange, error: unknown): void {
  const {response} = exchange
  if (response.headersSent || response.destroyed) {
    response.destroy()
    return
  }
  const problem = problemOf(error)
  const headers = {'content-type': 'application/json', ...problem.headers}
  reply(exchange, problem.status, headers, encodeProblem(problem))
}

/** No htpasswd files: one user protects a registry of this kind, and their hashes would need another dependency. */
function checkCredentials(credentials: Credentials | undefined, request: IncomingMessage): void {
  if (!credentials) return
  const wanted = `Basic ${Buffer.from(`${credentials.username}:${credentials.password}`).toString('base64')}`
  // Digests, because only equal lengths can be compared in constant time.
  const [given, expected] = [request.headers.authorization ?? '', wanted].map(text =>
    Buffer.from(digestOf(text)),
  )
  if (timingSafeEqual(given!, expected!)) return
  throw new Problem('UNAUTHORIZED', 'Authentication is required', {
    'www-authenticate': 'Basic realm="ctr-remote registry"',
  })
}

function decodePath(path: string): string | undefined {
  try {
    return decodeURIComponent(path)
  } catch {
    return undefined
  }
}

function splitOnce(text: string, separator: string): [string, string] {
  const at = text.indexOf(separator)
  return at < 0 ? [text, ''] : [text.slice(0, at), text.slice(at + 1)]
}
