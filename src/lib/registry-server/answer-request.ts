// One request from its arrival to its log entry: path and query, the answer, refusal.

import type {IncomingMessage, ServerResponse} from 'node:http'
import {performance} from 'node:perf_hooks'
import {type Exchange, reply} from './exchange.ts'
import {describeProblem, encodeProblem, problemOf} from './problem.ts'

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

export interface AnswerOptions {
  readonly onRequest?: ((entry: RequestLogEntry) => void) | undefined
}

/** Answers a request; throws a `Problem` to refuse it. The path is percent-decoded, undefined where that cannot be done. */
export type Answer = (exchange: Exchange, path: string | undefined) => Promise<void> | void

/** Answers one request and reports it; what goes wrong becomes an answer, or ends the connection. */
export async function answerRequest(
  answer: Answer,
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
    await answer(exchange, path)
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
