// All secrets of one type, listed once and then followed: the list-and-watch protocol of the Kubernetes API.
// Source: kubernetes.io/docs/reference/using-api/api-concepts, "Efficient detection of changes"

import {CodedError} from '../errors/coded-error.ts'
import {isRecord} from '../oci/descriptor.ts'
import {createHttpClient, type HttpClient} from '../registry/http.ts'
import type {ClusterAccess} from './kubeconfig.ts'

/** A secret as far as it matters here. */
export interface Secret {
  /** `<namespace>/<name>`. */
  readonly key: string
  /** Values by key, base64. */
  readonly data: Readonly<Record<string, unknown>>
}

/** Told of what there is. */
export interface SecretListener {
  /** All secrets that there are now. */
  reset(secrets: readonly Secret[]): void
  set(secret: Secret): void
  delete(key: string): void
}

const PAGE_SIZE = 500
/** etcd limits a secret to 1.5 MiB; a page of ordinary ones is far below this, bytes. */
const MAX_PAGE = 64 * 1024 * 1024
const MAX_EVENT = 4 * 1024 * 1024
const MAX_SECRETS = 10_000
/** The server ends a watch after this long, and a new one begins; silence for longer is a dead connection. */
const WATCH_S = 300
const TIMEOUTS = {connectMs: 10_000, headersMs: 30_000, bodyIdleMs: (WATCH_S + 30) * 1000}

/**
 * Lists the secrets of `type`, and follows their changes until a watch fails, which it throws: `unauthenticated`,
 * `permission-denied` or `unavailable`. A watch that has merely become old is begun anew.
 */
export async function watchSecrets(
  access: ClusterAccess,
  type: string,
  listener: SecretListener,
  signal: AbortSignal,
): Promise<never> {
  await using client = createHttpClient({tls: access.tls, timeouts: TIMEOUTS})
  const api: Api = {client, access, type, signal}
  for (;;) {
    let version: string | undefined = await list(api, listener)
    while (version !== undefined) version = await follow(api, version, listener)
  }
}

interface Api {
  readonly client: HttpClient
  readonly access: ClusterAccess
  readonly type: string
  readonly signal: AbortSignal
}

/** Resolves to the version that a watch starts from. */
async function list(api: Api, listener: SecretListener): Promise<string> {
  const secrets: Secret[] = []
  for (let next = ''; ; ) {
    const body = await request(api, {limit: String(PAGE_SIZE), ...(next ? {continue: next} : {})})
    const chunks: Uint8Array[] = []
    let size = 0
    for await (const chunk of body) {
      size += chunk.length
      if (size > MAX_PAGE) throw unexpected(`a list exceeds ${MAX_PAGE} bytes`)
      chunks.push(chunk)
    }
    const page = parseObject(Buffer.concat(chunks).toString('utf8'))
    const items: unknown[] = Array.isArray(page.items) ? page.items : []
    secrets.push(...items.map(parseSecret).filter(secret => secret !== undefined))
    if (secrets.length > MAX_SECRETS) throw unexpected(`there are more than ${MAX_SECRETS} secrets`)
    const metadata = isRecord(page.metadata) ? page.metadata : {}
    if (typeof metadata.continue === 'string' && metadata.continue !== '') {
      next = metadata.continue
      continue
    }
    listener.reset(secrets)
    return String(metadata.resourceVersion ?? '')
  }
}

/** Resolves to the version that the next watch starts from, or to undefined when everything is to be listed again. */
async function follow(api: Api, version: string, listener: SecretListener): Promise<string | undefined> {
  const query = {watch: '1', allowWatchBookmarks: 'true', timeoutSeconds: String(WATCH_S)}
  const body = await request(api, {...query, resourceVersion: version})
  let latest = version
  for await (const line of linesOf(body)) {
    const event = parseObject(line)
    const secret = parseSecret(event.object)
    switch (event.type) {
      case 'ADDED':
      case 'MODIFIED':
        if (secret) listener.set(secret)
        break
      case 'DELETED':
        if (secret) listener.delete(secret.key)
        break
      case 'BOOKMARK':
        break
      default:
        // ERROR, with status 410 when the version has become too old.
        return undefined
    }
    latest = versionOf(event.object) ?? latest
  }
  return latest
}

async function request(api: Api, query: Record<string, string>): Promise<AsyncIterable<Uint8Array>> {
  const url = new URL(`${api.access.server}/api/v1/secrets`)
  url.searchParams.set('fieldSelector', `type=${api.type}`)
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
  const {authorization} = api.access
  const headers = {accept: 'application/json', ...(authorization === undefined ? {} : {authorization})}
  let response: Awaited<ReturnType<HttpClient['send']>>
  try {
    response = await api.client.send({method: 'GET', url, headers, signal: api.signal})
  } catch (cause) {
    api.signal.throwIfAborted()
    throw new CodedError('unavailable', `Cannot reach the Kubernetes API at ${url.origin}`, {cause})
  }
  const {status} = response
  if (status === 200) return response.body
  await response.discard()
  const code =
    status === 401 ? 'unauthenticated' : status === 403 ? 'permission-denied' : ('unavailable' as const)
  throw new CodedError(code, `Cannot list the secrets of ${url.origin}: HTTP status ${status}`)
}

async function* linesOf(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder()
  let rest = ''
  for await (const chunk of body) {
    const lines = (rest + decoder.decode(chunk, {stream: true})).split('\n')
    rest = lines.pop()!
    if (rest.length > MAX_EVENT) throw unexpected(`an event exceeds ${MAX_EVENT} bytes`)
    yield* lines.filter(line => line !== '')
  }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text)
    if (isRecord(value)) return value
  } catch {
    // The parser's message would quote secrets.
  }
  throw unexpected('an answer is not the expected JSON')
}

function parseSecret(value: unknown): Secret | undefined {
  if (!isRecord(value) || !isRecord(value.metadata)) return undefined
  const {namespace, name} = value.metadata
  if (typeof namespace !== 'string' || typeof name !== 'string') return undefined
  return {key: `${namespace}/${name}`, data: isRecord(value.data) ? value.data : {}}
}

function versionOf(value: unknown): string | undefined {
  const metadata = isRecord(value) ? value.metadata : undefined
  const version = isRecord(metadata) ? metadata.resourceVersion : undefined
  return typeof version === 'string' ? version : undefined
}

function unexpected(problem: string): CodedError {
  return new CodedError('unavailable', `Cannot use the Kubernetes API: ${problem}`)
}
