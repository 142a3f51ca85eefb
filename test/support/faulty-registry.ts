// An OCI registry in memory that misbehaves on request: a real HTTP server on the loopback interface, for tests.

import {randomUUID} from 'node:crypto'
import {createServer, type IncomingMessage, type RequestListener, type ServerResponse} from 'node:http'
import {createServer as createTlsServer} from 'node:https'
import type {AddressInfo} from 'node:net'
import {setTimeout as sleep} from 'node:timers/promises'
import {digestOf} from '../../src/lib/blob/sha256.ts'
import type {Descriptor} from '../../src/lib/oci/descriptor.ts'
import {isDigest} from '../../src/lib/oci/digest.ts'

/** What goes wrong with one answer; offsets and counts are bytes of its body (of an upload: of what is received). */
export type Fault =
  | {
      readonly kind: 'status'
      readonly status: number
      readonly headers?: Readonly<Record<string, string>>
      readonly body?: string
    }
  /** The connection breaks. An upload keeps what was received by then. */
  | {readonly kind: 'drop'; readonly afterBytes: number}
  /** Nothing comes any more, and the connection stays. */
  | {readonly kind: 'stall'; readonly afterBytes: number}
  /** A clean end, too early, in a body of unannounced length. */
  | {readonly kind: 'truncate'; readonly afterBytes: number}
  /** More bytes than there are, in a body of unannounced length. */
  | {readonly kind: 'extend'; readonly extraBytes: number}
  /** One byte is wrong. */
  | {readonly kind: 'corrupt'}
  /** A wait before every 16 KiB. */
  | {readonly kind: 'slow'; readonly delayMs: number}
  | {readonly kind: 'redirect'; readonly to: string; readonly status?: number}
  | {readonly kind: 'ignore-range'}
  | {readonly kind: 'headers'; readonly headers: Readonly<Record<string, string>>}
  /** The request is done, and its answer gets lost. */
  | {readonly kind: 'lose-answer'}

/** Which requests a fault is for: every given property must match. */
export interface Match {
  readonly method?: string
  /** Matched against the path and query. */
  readonly url?: RegExp
}

export type RegistryAuth =
  | {readonly kind: 'basic'; readonly username: string; readonly password: string}
  | {
      readonly kind: 'bearer'
      /** Absent: anybody gets a token. */
      readonly username?: string
      readonly password?: string
      readonly refreshToken?: string
      readonly expiresInS?: number
      /** Another token server than the registry's own `/token`. */
      readonly realm?: string
    }

export interface FaultyRegistryOptions {
  readonly auth?: RegistryAuth
  /** HTTPS with this certificate; with `clientCa`, only for clients that have a certificate from it. */
  readonly tls?: {readonly cert: string; readonly key: string; readonly clientCa?: string}
}

/** A request as it arrived. */
export interface SeenRequest {
  readonly method: string
  /** Path and query. */
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** The body, of requests to the token server; empty for others. */
  readonly body: string
}

export interface FaultyRegistry extends AsyncDisposable {
  /** `127.0.0.1:port`, for references. */
  readonly host: string
  /** `http://127.0.0.1:port`, or https. */
  readonly url: string
  /** Every request so far, in order of arrival. */
  readonly requests: readonly SeenRequest[]
  addBlob(repository: string, bytes: Uint8Array, mediaType?: string): Descriptor
  addManifest(repository: string, tag: string, document: {readonly mediaType: string}): Descriptor
  /** Stored bytes, or undefined. `name` is a digest for blobs; a tag or digest for manifests. */
  blob(repository: string, digest: string): Uint8Array | undefined
  manifest(repository: string, name: string): Uint8Array | undefined
  /** The next `times` matching requests get this fault, one fault per request, in the order of injection. */
  inject(match: Match, fault: Fault, times?: number): void
  /** Takes all faults back. */
  heal(): void
  /** Breaks the connections of answers that have stalled; whoever waits for one may ask again. */
  breakStalled(): void
  /** Makes every token that was issued worthless. */
  revokeTokens(): void
}

interface Answer {
  status: number
  headers: Record<string, string>
  body: Uint8Array
}

interface Injection {
  readonly match: Match
  readonly fault: Fault
  left: number
}

/** Starts a registry on a free port of 127.0.0.1. */
export async function startFaultyRegistry(options: FaultyRegistryOptions = {}): Promise<FaultyRegistry> {
  const {auth, tls} = options
  const blobs = new Map<string, Uint8Array>()
  const manifests = new Map<string, {bytes: Uint8Array; mediaType: string}>()
  const uploads = new Map<string, Uint8Array>()
  const tokens = new Map<string, {scopes: string; expiresAt: number}>()
  const requests: SeenRequest[] = []
  const injections: Injection[] = []
  const stalled = new AbortController()
  const stalledAnswers = new Set<ServerResponse>()

  const listener: RequestListener = (request, response) => {
    serve(request, response).catch(() => response.destroy())
  }
  const server = tls
    ? createTlsServer(
        {cert: tls.cert, key: tls.key, ...(tls.clientCa ? {ca: tls.clientCa, requestCert: true} : {})},
        listener,
      )
    : createServer(listener)
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve))
  const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
  const url = `${tls ? 'https' : 'http'}://${host}`

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const {method = '', url: target = ''} = request
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [name, String(value)]),
    )
    const seen = {method, url: target, headers, body: ''}
    requests.push(seen)
    const fault = takeFault(method, target)
    if (fault?.kind === 'status') {
      request.resume()
      const body = Buffer.from(fault.body ?? '')
      return send(response, method, {status: fault.status, headers: {...fault.headers}, body}, undefined)
    }
    if (fault?.kind === 'redirect') {
      request.resume()
      const answer = {status: fault.status ?? 307, headers: {location: fault.to}, body: Buffer.alloc(0)}
      return send(response, method, answer, undefined)
    }
    const upload = ['POST', 'PUT', 'PATCH'].includes(method)
    const {bytes, broken} = await receive(request, upload ? fault : undefined)
    if (target.startsWith('/token')) seen.body = Buffer.from(bytes).toString('utf8')
    const answer = route(method, new URL(target, url), headers, bytes, fault)
    if (broken || fault?.kind === 'lose-answer') {
      request.socket.destroy()
      return
    }
    await send(response, method, answer, upload ? undefined : fault)
  }

  function takeFault(method: string, target: string): Fault | undefined {
    const found = injections.find(
      ({match, left}) =>
        left > 0 &&
        (match.method ?? method) === method &&
        (match.url === undefined || match.url.test(target)),
    )
    if (found) found.left--
    return found?.fault
  }

  /** The request's body, or its beginning when the fault is to break the connection there. */
  async function receive(
    request: IncomingMessage,
    fault: Fault | undefined,
  ): Promise<{bytes: Uint8Array; broken: boolean}> {
    const limit = fault?.kind === 'drop' ? fault.afterBytes : Number.POSITIVE_INFINITY
    const parts: Uint8Array[] = []
    let size = 0
    for await (const part of request) {
      parts.push(part as Uint8Array)
      size += (part as Uint8Array).length
      if (size >= limit) return {bytes: Buffer.concat(parts).subarray(0, limit), broken: true}
    }
    return {bytes: Buffer.concat(parts), broken: false}
  }

  function route(
    method: string,
    target: URL,
    headers: Readonly<Record<string, string>>,
    bytes: Uint8Array,
    fault: Fault | undefined,
  ): Answer {
    if (target.pathname === '/token') return answerToken(method, target, headers, bytes)
    const match = /^\/v2\/(.+)\/(blobs\/uploads|blobs|manifests)\/([^/]*)$/.exec(target.pathname)
    if (!match) return failure(404, 'NAME_UNKNOWN')
    const [, repository = '', kind, name = ''] = match
    const refused = authorize(headers.authorization, repository, method === 'GET' || method === 'HEAD')
    if (refused) return refused
    if (kind === 'manifests') return answerManifest(method, repository, name, headers, bytes)
    if (kind === 'blobs') return answerBlob(repository, name, fault?.kind === 'ignore-range' ? {} : headers)
    return answerUpload(method, repository, name, target, headers, bytes)
  }

  function authorize(header: string | undefined, repository: string, reads: boolean): Answer | undefined {
    if (!auth) return undefined
    if (auth.kind === 'basic') {
      const wanted = `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString('base64')}`
      return header === wanted ? undefined : challenge('Basic realm="a registry, in memory"')
    }
    const token = tokens.get(header?.replace(/^Bearer /, '') ?? '')
    const scope = `repository:${repository}:${reads ? 'pull' : 'pull,push'}`
    const granted =
      token && token.expiresAt > Date.now() && token.scopes.split(' ').some(own => covers(own, scope))
    const realm = auth.realm ?? `${url}/token`
    return granted
      ? undefined
      : challenge(`Bearer realm="${realm}",service="test, registry",scope="${scope}"`)
  }

  function answerToken(
    method: string,
    target: URL,
    headers: Readonly<Record<string, string>>,
    bytes: Uint8Array,
  ): Answer {
    if (auth?.kind !== 'bearer') return failure(404, 'UNSUPPORTED')
    const form =
      method === 'POST' ? new URLSearchParams(Buffer.from(bytes).toString('utf8')) : target.searchParams
    const basic = `Basic ${Buffer.from(`${auth.username}:${auth.password}`).toString('base64')}`
    const known =
      method === 'POST'
        ? auth.refreshToken !== undefined && form.get('refresh_token') === auth.refreshToken
        : auth.username === undefined || headers.authorization === basic
    if (!known) return failure(401, 'UNAUTHORIZED')
    const token = `token-${randomUUID()}`
    const expiresInS = auth.expiresInS ?? 300
    const scopes = form.getAll('scope').join(' ')
    tokens.set(token, {scopes, expiresAt: Date.now() + expiresInS * 1000})
    return json(
      200,
      method === 'POST' ? {access_token: token, expires_in: expiresInS} : {token, expires_in: expiresInS},
    )
  }

  function answerManifest(
    method: string,
    repository: string,
    name: string,
    headers: Readonly<Record<string, string>>,
    bytes: Uint8Array,
  ): Answer {
    if (method === 'PUT') {
      const digest = digestOf(bytes)
      if (isDigest(name) && name !== digest) return failure(400, 'DIGEST_INVALID')
      const stored = {bytes, mediaType: headers['content-type'] ?? ''}
      for (const key of [name, digest]) manifests.set(`${repository}/${key}`, stored)
      return {status: 201, headers: {'docker-content-digest': digest}, body: Buffer.alloc(0)}
    }
    const found = manifests.get(`${repository}/${name}`)
    if (!found) return failure(404, 'MANIFEST_UNKNOWN')
    const digest = digestOf(found.bytes)
    return {
      status: 200,
      headers: {'content-type': found.mediaType, 'docker-content-digest': digest},
      body: found.bytes,
    }
  }

  function answerBlob(repository: string, digest: string, headers: Readonly<Record<string, string>>): Answer {
    const bytes = blobs.get(`${repository}/${digest}`)
    if (!bytes) return failure(404, 'BLOB_UNKNOWN')
    const range = /^bytes=(\d*)-(\d*)$/.exec(headers.range ?? '')
    if (!range || range[0] === 'bytes=-')
      return {status: 200, headers: {'docker-content-digest': digest}, body: bytes}
    const isSuffix = range[1] === ''
    const first = isSuffix ? Math.max(0, bytes.length - Number(range[2])) : Number(range[1])
    const last = isSuffix
      ? bytes.length - 1
      : Math.min(range[2] ? Number(range[2]) : bytes.length - 1, bytes.length - 1)
    if (first > last) return failure(416, 'RANGE_INVALID')
    const contentRange = `bytes ${first}-${last}/${bytes.length}`
    return {status: 206, headers: {'content-range': contentRange}, body: bytes.subarray(first, last + 1)}
  }

  function answerUpload(
    method: string,
    repository: string,
    id: string,
    target: URL,
    headers: Readonly<Record<string, string>>,
    bytes: Uint8Array,
  ): Answer {
    const query = target.searchParams
    if (method === 'POST') {
      const mounted = blobs.get(`${query.get('from')}/${query.get('mount')}`)
      if (mounted) {
        blobs.set(`${repository}/${query.get('mount')}`, mounted)
        return {
          status: 201,
          headers: {location: `/v2/${repository}/blobs/${query.get('mount')}`},
          body: Buffer.alloc(0),
        }
      }
      const fresh = randomUUID()
      uploads.set(fresh, Buffer.alloc(0))
      return uploadAnswer(202, repository, fresh)
    }
    const stored = uploads.get(id)
    if (!stored) return failure(404, 'BLOB_UPLOAD_UNKNOWN')
    if (method === 'GET') return uploadAnswer(204, repository, id)
    if (method === 'DELETE') {
      uploads.delete(id)
      return {status: 204, headers: {}, body: Buffer.alloc(0)}
    }
    const start = headers['content-range']?.split('-')[0]
    if (start !== undefined && Number(start) !== stored.length) return failure(416, 'RANGE_INVALID')
    const all = Buffer.concat([stored, bytes])
    uploads.set(id, all)
    if (method === 'PATCH') return uploadAnswer(202, repository, id)
    const digest = query.get('digest') ?? ''
    if (digestOf(all) !== digest) return failure(400, 'DIGEST_INVALID')
    uploads.delete(id)
    blobs.set(`${repository}/${digest}`, all)
    return {status: 201, headers: {location: `/v2/${repository}/blobs/${digest}`}, body: Buffer.alloc(0)}
  }

  function uploadAnswer(status: number, repository: string, id: string): Answer {
    const size = uploads.get(id)?.length ?? 0
    const headers = {
      location: `/v2/${repository}/blobs/uploads/${id}?state=x`,
      range: `0-${Math.max(0, size - 1)}`,
    }
    return {status, headers, body: Buffer.alloc(0)}
  }

  async function send(response: ServerResponse, method: string, answer: Answer, fault: Fault | undefined) {
    const {status, headers} = answer
    let body = answer.body
    const announced = fault?.kind !== 'truncate' && fault?.kind !== 'extend'
    if (announced) headers['content-length'] = String(body.length)
    if (fault?.kind === 'headers') Object.assign(headers, fault.headers)
    if (fault?.kind === 'corrupt') body = withWrongByte(body)
    if (fault?.kind === 'truncate') body = body.subarray(0, fault.afterBytes)
    if (fault?.kind === 'extend') body = Buffer.concat([body, Buffer.alloc(fault.extraBytes)])
    response.writeHead(status, headers)
    if (method === 'HEAD') return void response.end()
    if (fault?.kind === 'stall') stalledAnswers.add(response)
    if (fault?.kind === 'drop' || fault?.kind === 'stall') {
      response.write(body.subarray(0, fault.afterBytes), () => fault.kind === 'drop' && response.destroy())
      return
    }
    const step = fault?.kind === 'slow' ? 16 * 1024 : body.length
    for (let offset = 0; offset < body.length; offset += step) {
      if (fault?.kind === 'slow') await sleep(fault.delayMs, undefined, {signal: stalled.signal})
      response.write(body.subarray(offset, offset + step))
    }
    response.end()
  }

  return {
    host,
    url,
    requests,
    addBlob(repository, bytes, mediaType = 'application/octet-stream') {
      const digest = digestOf(bytes)
      blobs.set(`${repository}/${digest}`, bytes)
      return {mediaType, digest, size: bytes.length}
    },
    addManifest(repository, tag, document) {
      const bytes = Buffer.from(JSON.stringify(document))
      const digest = digestOf(bytes)
      const {mediaType} = document
      for (const key of [tag, digest]) manifests.set(`${repository}/${key}`, {bytes, mediaType})
      return {mediaType, digest, size: bytes.length}
    },
    blob: (repository, digest) => blobs.get(`${repository}/${digest}`),
    manifest: (repository, name) => manifests.get(`${repository}/${name}`)?.bytes,
    inject: (match, fault, times = 1) => void injections.push({match, fault, left: times}),
    heal: () => void injections.splice(0),
    breakStalled() {
      for (const response of stalledAnswers) response.destroy()
      stalledAnswers.clear()
    },
    revokeTokens: () => tokens.clear(),
    async [Symbol.asyncDispose]() {
      stalled.abort()
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

function covers(granted: string, wanted: string): boolean {
  const split = (scope: string) =>
    [scope.slice(0, scope.lastIndexOf(':')), scope.split(':').at(-1)!.split(',')] as const
  const [resource, actions] = split(granted)
  const [wantedResource, wantedActions] = split(wanted)
  return resource === wantedResource && wantedActions.every(action => actions.includes(action))
}

function challenge(value: string): Answer {
  const answer = failure(401, 'UNAUTHORIZED')
  return {...answer, headers: {...answer.headers, 'www-authenticate': value}}
}

function failure(status: number, code: string): Answer {
  return json(status, {errors: [{code, message: `${code.toLowerCase().replaceAll('_', ' ')}`}]})
}

function json(status: number, document: unknown): Answer {
  return {status, headers: {'content-type': 'application/json'}, body: Buffer.from(JSON.stringify(document))}
}

function withWrongByte(body: Uint8Array): Uint8Array {
  const changed = Buffer.from(body)
  const middle = changed.length >> 1
  changed[middle] = (changed[middle] ?? 0) ^ 0xff
  return changed
}
