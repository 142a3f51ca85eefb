// Blobs: GET and HEAD with ranges, and uploads in one or many requests (distribution-spec, "Pulling blobs", "Pushing blobs").

import {randomBytes} from 'node:crypto'
import {codeOf} from '../errors/coded-error.ts'
import type {ContentInfo, OpenBlob} from '../oci/content-store.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {type ByteRange, parseRange} from './byte-range.ts'
import {bodyOf, type Exchange, type Headers, type Registry, reply, replyStream} from './exchange.ts'
import {BLOB_TYPE} from './known-blobs.ts'
import {Problem} from './problem.ts'
import {isRepository, parseRouteDigest} from './route.ts'
import type {UploadSession} from './upload-sessions.ts'

/** Bytes read from the store at once, which bounds the memory of a download. */
const CHUNK_SIZE = 512 * 1024

/** A blob that the client may count on to stay: a push skips what is there. */
export async function findBlob(
  {store}: Pick<Registry, 'store'>,
  digest: Digest,
  {signal}: Pick<Exchange, 'signal'>,
): Promise<ContentInfo | undefined> {
  return store.content.find(digest, {signal})
}

/** GET and HEAD. The store is one pool: a blob is found from every repository. */
export async function sendBlob(
  registry: Pick<Registry, 'store' | 'blobs'>,
  exchange: Exchange,
  digest: Digest,
): Promise<void> {
  const common = {
    'docker-content-digest': digest,
    etag: `"${digest}"`,
    'accept-ranges': 'bytes',
    'cache-control': 'max-age=31536000, immutable',
  }
  const isKnownToClient = exchange.request.headers['if-none-match'] === common.etag
  // HEAD is how clients ask before a push, and then count on the blob.
  if (exchange.method === 'HEAD') {
    const info = await findBlob(registry, digest, exchange)
    if (!info) throw unknownBlob(digest)
    const headers = {...common, 'content-type': BLOB_TYPE, 'content-length': info.size}
    return isKnownToClient ? reply(exchange, 304, common) : reply(exchange, 200, headers)
  }
  await using blob = await registry.blobs.open(digest, exchange)
  if (!blob) throw unknownBlob(digest)
  if (isKnownToClient) return reply(exchange, 304, common)
  const ranges = parseRange(rangeHeader(exchange, digest), blob.size)
  if (ranges === 'none') {
    throw new Problem('RANGE_INVALID', `The blob has ${blob.size} bytes`, {
      'content-range': `bytes */${blob.size}`,
    })
  }
  const {status, headers, body} = contentFor(blob, ranges, exchange.signal)
  await replyStream(exchange, status, {...common, ...headers}, body)
}

function unknownBlob(digest: Digest): Problem {
  return new Problem('BLOB_UNKNOWN', `There is no blob ${digest}`)
}

interface Content {
  readonly status: number
  readonly headers: Headers
  readonly body: AsyncIterable<Uint8Array>
}

/** Whole blobs are verified while they are sent; a part cannot be, and its reader verifies chunks. */
function contentFor(blob: OpenBlob, ranges: 'all' | readonly ByteRange[], signal: AbortSignal): Content {
  if (ranges === 'all') {
    return {
      status: 200,
      headers: {'content-type': BLOB_TYPE, 'content-length': blob.size},
      body: blob.stream({signal}),
    }
  }
  const [first] = ranges
  if (ranges.length === 1 && first) {
    return {
      status: 206,
      headers: {
        'content-type': BLOB_TYPE,
        'content-length': lengthOf(first),
        'content-range': contentRange(first, blob.size),
      },
      body: readRange(blob, first, signal),
    }
  }
  return multipartContent(blob, ranges, signal)
}

/** Several ranges, as `multipart/byteranges` (RFC 9110, 14.6). */
function multipartContent(blob: OpenBlob, ranges: readonly ByteRange[], signal: AbortSignal): Content {
  const boundary = randomBytes(16).toString('hex')
  const parts = ranges.map(range => ({range, head: partHead(boundary, range, blob.size)}))
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`)
  const length = parts.reduce((sum, {range, head}) => sum + head.length + lengthOf(range), tail.length)
  async function* body(): AsyncGenerator<Uint8Array> {
    for (const {range, head} of parts) {
      yield head
      yield* readRange(blob, range, signal)
    }
    yield tail
  }
  return {
    status: 206,
    headers: {'content-type': `multipart/byteranges; boundary=${boundary}`, 'content-length': length},
    body: body(),
  }
}

function partHead(boundary: string, range: ByteRange, size: number): Buffer {
  return Buffer.from(
    `\r\n--${boundary}\r\nContent-Type: ${BLOB_TYPE}\r\nContent-Range: ${contentRange(range, size)}\r\n\r\n`,
  )
}

async function* readRange(
  blob: OpenBlob,
  {start, end}: ByteRange,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  for (let offset = start; offset <= end; offset += CHUNK_SIZE) {
    yield await blob.read(offset, Math.min(CHUNK_SIZE, end + 1 - offset), {signal})
  }
}

/** `If-Range` with another validator asks for the whole (RFC 9110, 13.1.5). */
function rangeHeader({request}: Exchange, digest: Digest): string | undefined {
  const condition = request.headers['if-range']
  return condition === undefined || condition === `"${digest}"` ? request.headers.range : undefined
}

function contentRange({start, end}: ByteRange, size: number): string {
  return `bytes ${start}-${end}/${size}`
}

function lengthOf({start, end}: ByteRange): number {
  return end - start + 1
}

/** POST: a mount of a blob that is here, a whole blob in one request, or the start of a session. */
export async function startUpload(registry: Registry, exchange: Exchange, repository: string): Promise<void> {
  await registry.lease.extend()
  const {query} = exchange
  const mount = query.get('mount')
  const from = query.get('from')
  if (mount !== null && isDigest(mount) && (from === null || isRepository(from))) {
    if (await findBlob(registry, mount, exchange)) return replyCreated(exchange, repository, mount)
  }
  const wanted = query.get('digest')
  const digest = wanted === null ? undefined : parseRouteDigest(wanted)
  const session = await registry.uploads.start(repository, digest)
  if (digest === undefined) {
    reply(exchange, 202, sessionHeaders(session))
    if (exchange.signal.aborted) await session.discard()
    return
  }
  try {
    await finish(exchange, session, digest)
  } finally {
    // The client has never been told of this session, and cannot come back to it.
    await session.discard()
  }
}

/** PATCH: more bytes; those of a chunked upload say where they belong. */
export async function continueUpload(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  id: string,
): Promise<void> {
  const session = registry.uploads.get(repository, id)
  await registry.lease.extend()
  checkContentRange(exchange, session)
  await appendBody(exchange, session)
  reply(exchange, 202, sessionHeaders(session))
}

/** PUT: the last bytes, if any, and the digest of all. */
export async function finishUpload(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  id: string,
): Promise<void> {
  const session = registry.uploads.get(repository, id)
  await registry.lease.extend()
  const digest = parseRouteDigest(exchange.query.get('digest') ?? '')
  checkContentRange(exchange, session)
  await finish(exchange, session, digest)
}

/** GET: how far the upload is. */
export function sendUploadStatus(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  id: string,
): void {
  reply(exchange, 204, sessionHeaders(registry.uploads.get(repository, id)))
}

/** DELETE: the client gives up. */
export async function cancelUpload(
  registry: Registry,
  exchange: Exchange,
  repository: string,
  id: string,
): Promise<void> {
  await registry.uploads.get(repository, id).discard()
  reply(exchange, 204, {})
}

async function finish(exchange: Exchange, session: UploadSession, digest: Digest): Promise<void> {
  await appendBody(exchange, session)
  try {
    await session.commit(digest)
  } catch (error) {
    if (codeOf(error) !== 'corrupt') throw error
    throw new Problem('DIGEST_INVALID', `What was uploaded is not ${digest}`)
  }
  replyCreated(exchange, session.repository, digest)
}

/** A client that goes away keeps its session and what it sent; a store that fails ends it. */
async function appendBody(exchange: Exchange, session: UploadSession): Promise<void> {
  try {
    await session.append(bodyOf(exchange))
  } catch (error) {
    if (!exchange.signal.aborted && !(error instanceof Problem)) await session.discard()
    throw error
  }
}

function checkContentRange({request}: Exchange, session: UploadSession): void {
  const header = request.headers['content-range']
  if (header === undefined) return
  const match = /^(?:bytes )?(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/.exec(header)
  const headers = sessionHeaders(session)
  if (!match) throw new Problem('BLOB_UPLOAD_INVALID', 'The Content-Range header is malformed', headers)
  const [start, end] = [Number(match[1]), Number(match[2])]
  const length = request.headers['content-length']
  if (start !== session.offset || (length !== undefined && end - start + 1 !== Number(length))) {
    throw new Problem('RANGE_INVALID', `The upload has ${session.offset} bytes`, headers)
  }
}

/** `Range` says what arrived, inclusive; nothing is spelt `0-0` too, as Docker's registry does. */
function sessionHeaders({repository, id, offset}: UploadSession): Readonly<Record<string, string>> {
  return {
    location: `/v2/${repository}/blobs/uploads/${id}`,
    range: `0-${Math.max(offset - 1, 0)}`,
    'docker-upload-uuid': id,
  }
}

function replyCreated(exchange: Exchange, repository: string, digest: Digest): void {
  reply(exchange, 201, {location: `/v2/${repository}/blobs/${digest}`, 'docker-content-digest': digest})
}
