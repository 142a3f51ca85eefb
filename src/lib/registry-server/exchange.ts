// One request with its response, and what the handlers share.

import type {IncomingMessage, ServerResponse} from 'node:http'
import {Readable} from 'node:stream'
import {pipeline} from 'node:stream/promises'
import type {Store} from '../oci/image-store.ts'
import type {NameHints, Naming} from './image-names.ts'
import type {KnownBlobs} from './known-blobs.ts'
import {Problem} from './problem.ts'
import type {UploadSessions} from './upload-sessions.ts'
import type {WriteLease} from './write-lease.ts'

/** What the registry is made of. */
export interface Registry {
  readonly store: Store
  readonly naming: Naming
  readonly readOnly: boolean
  readonly blobs: KnownBlobs
  readonly uploads: UploadSessions
  readonly lease: WriteLease
}

/** A request being answered. `signal` is aborted when its client is gone. */
export interface Exchange {
  readonly method: string
  readonly query: URLSearchParams
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly hints: NameHints
  readonly signal: AbortSignal
  /** Bytes of bodies: taken from the request, and handed to the connection. */
  receivedBytes: number
  sentBytes: number
}

export type Headers = Readonly<Record<string, string | number>>

/** Answers with a body that is in memory; a HEAD request gets its headers only. */
export function reply(
  exchange: Exchange,
  status: number,
  headers: Headers,
  body: string | Uint8Array = '',
): void {
  const bytes = Buffer.from(body)
  const {response, method} = exchange
  // 204 and 304 have no body, and say no length (RFC 9110, 8.6).
  const length = status === 204 || status === 304 ? {} : {'content-length': bytes.length}
  response.writeHead(status, {...length, ...headers})
  if (method === 'HEAD' || bytes.length === 0) response.end()
  else response.end(bytes)
  if (method !== 'HEAD') exchange.sentBytes += bytes.length
}

/** Answers with a stream, which stops when the client is gone. The headers say its length. */
export async function replyStream(
  exchange: Exchange,
  status: number,
  headers: Headers,
  chunks: AsyncIterable<Uint8Array>,
): Promise<void> {
  async function* counted(): AsyncGenerator<Uint8Array> {
    for await (const chunk of chunks) {
      exchange.sentBytes += chunk.length
      yield chunk
    }
  }
  exchange.response.writeHead(status, headers)
  await pipeline(Readable.from(counted(), {objectMode: false}), exchange.response)
}

/** The body of a request. */
export async function* bodyOf(exchange: Exchange): AsyncGenerator<Buffer> {
  for await (const chunk of exchange.request as AsyncIterable<Buffer>) {
    exchange.receivedBytes += chunk.length
    yield chunk
  }
}

/** The whole body of a request; refuses one of more than `limit` bytes. */
export async function readBody(exchange: Exchange, limit: number): Promise<Buffer> {
  const declared = Number(exchange.request.headers['content-length'] ?? 0)
  if (declared > limit) throw tooLarge(limit)
  const parts: Buffer[] = []
  let size = 0
  for await (const part of bodyOf(exchange)) {
    size += part.length
    if (size > limit) throw tooLarge(limit)
    parts.push(part)
  }
  return Buffer.concat(parts)
}

function tooLarge(limit: number): Problem {
  return new Problem('SIZE_INVALID', `The body exceeds the limit of ${limit} bytes`)
}
