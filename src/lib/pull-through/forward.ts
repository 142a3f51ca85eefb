// Answers of an upstream that go to the client as they are.

import {verifyStream} from '../blob/verified-stream.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import type {HttpResponse} from '../registry/http.ts'
import {type Exchange, reply, replyStream} from '../registry-server/exchange.ts'
import {BLOB_TYPE} from '../registry-server/known-blobs.ts'
import type {Pull} from './pull-through.ts'
import {problemFromUpstream} from './upstream-answer.ts'

/** What of an answer's head is about its body, and so the client's too. */
const PASSED_ON = [
  'content-type',
  'content-length',
  'content-range',
  'accept-ranges',
  'docker-content-digest',
  'etag',
  'oci-filters-applied',
]

/** Passes a request for something below the repository on, and the answer back. */
export async function forward(pull: Pull, exchange: Exchange, path: string): Promise<void> {
  const {accept} = exchange.request.headers
  const response = await ask(pull, exchange, path, accept === undefined ? {} : {accept})
  const link = response.header('link')
  const own = link?.replaceAll(`/v2/${pull.source.reference.path}/`, `/v2/${pull.source.asked}/`)
  const headers = {...headersOf(response), ...(own === undefined ? {} : {link: own})}
  await passBody(exchange, response, headers, response.body)
}

/** Passes a blob on, or a range of it; a whole one is verified, and does not end well for the client when it is another. */
export async function forwardBlob(pull: Pull, exchange: Exchange, digest: Digest): Promise<void> {
  const {range} = exchange.request.headers
  const response = await ask(pull, exchange, `blobs/${digest}`, range === undefined ? {} : {range})
  const headers = {'docker-content-digest': digest, 'content-type': BLOB_TYPE, ...headersOf(response)}
  const size = Number(response.header('content-length') ?? Number.NaN)
  const isWhole = response.status === 200 && Number.isSafeInteger(size)
  const body = isWhole ? verifyStream(response.body, {digest, size}, pull.repository.name) : response.body
  await passBody(exchange, response, headers, body)
}

async function ask(
  {repository}: Pull,
  exchange: Exchange,
  path: string,
  headers: Readonly<Record<string, string>>,
): Promise<HttpResponse> {
  const method = exchange.method === 'HEAD' ? 'HEAD' : 'GET'
  const query = Object.fromEntries([...exchange.query].filter(([name]) => name !== 'ns'))
  const response = await repository.ask({method, path, query, headers}, exchange)
  if (response.status === 200 || response.status === 206) return response
  throw await problemFromUpstream(response, path)
}

async function passBody(
  exchange: Exchange,
  response: HttpResponse,
  headers: Readonly<Record<string, string>>,
  body: AsyncIterable<Uint8Array>,
): Promise<void> {
  if (exchange.method === 'HEAD') {
    await response.discard()
    return reply(exchange, response.status, headers)
  }
  await replyStream(exchange, response.status, headers, body)
}

function headersOf(response: HttpResponse): Record<string, string> {
  return Object.fromEntries(
    PASSED_ON.flatMap(name => {
      const value = response.header(name)
      // Ours to say only if it is one that we can believe.
      if (value === undefined || (name === 'docker-content-digest' && !isDigest(value))) return []
      return [[name, value]]
    }),
  )
}
