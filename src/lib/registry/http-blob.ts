// A blob behind a URL, read by HTTP ranges with `fetch` alone, so that it works in browsers too. Registries that want
// tokens, mirrors and retries are for `openRegistryBlob`.

import {CodedError, type ErrorCode} from '../errors/coded-error.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'

export interface HttpBlobOptions extends CallOptions {
  /** Bytes of the blob; a descriptor says how many. Without it a HEAD request asks. */
  readonly size?: number
  /** Sent with every request: `Authorization`, say. */
  readonly headers?: Readonly<Record<string, string>>
  /** In place of the global `fetch`: to sign requests, or to retry. */
  readonly fetch?: typeof globalThis.fetch
}

/**
 * Opens what is at `url`. The server must answer ranges, and in a browser allow this page to ask it. Throws `not-found`,
 * `unauthenticated`, `permission-denied`; `unavailable` for a server that fails or is not there; `unsupported` for one
 * that does not say a size.
 */
export async function openHttpBlob(url: string | URL, options: HttpBlobOptions = {}): Promise<BlobSource> {
  const {headers = {}, fetch = globalThis.fetch} = options
  const where = withoutSecrets(url)

  async function request(method: 'HEAD' | 'GET', more: Record<string, string>, {signal}: CallOptions) {
    const asked = {method, headers: {...headers, ...more}, ...(signal ? {signal} : {})}
    const response = await fetch(url, asked).catch(cause => {
      signal?.throwIfAborted()
      throw new CodedError('unavailable', `Cannot reach ${where}`, {cause})
    })
    if (response.ok) return response
    await discard(response)
    throw new CodedError(codeOfStatus(response.status), `Cannot read ${where}: HTTP ${response.status}`)
  }

  const size = options.size ?? sizeOf(await request('HEAD', {}, options), where)
  return {
    size,
    async read(offset, length, call = {}) {
      if (!(offset >= 0 && length >= 0 && offset + length <= size)) {
        throw new CodedError(
          'invalid-argument',
          `Cannot read ${length} bytes at ${offset} of ${where}: it has ${size}`,
        )
      }
      if (length === 0) return new Uint8Array(0)
      const range = `bytes=${offset}-${offset + length - 1}`
      const response = await request('GET', {range}, call)
      const isWhole = response.status === 200 && offset === 0 && length === size
      if (response.status !== 206 && !isWhole) {
        await discard(response)
        throw new CodedError('unsupported', `Cannot read ${where}: its server does not answer ranges`)
      }
      // In a browser it is only there when the server's CORS headers expose it.
      const sent = response.headers.get('content-range')
      if (sent !== null && !sent.startsWith(`bytes ${offset}-`)) {
        await discard(response)
        throw new CodedError('corrupt', `Cannot read ${range} of ${where}: the server sent ${sent}`)
      }
      return await readExactly(response, length, `${range} of ${where}`).catch(cause => {
        call.signal?.throwIfAborted()
        if (cause instanceof CodedError) throw cause
        throw new CodedError('unavailable', `Cannot read ${where}: the connection was lost`, {cause})
      })
    },
  }
}

/** Nobody reads the body, so its connection is free again. */
async function discard({body}: Response): Promise<void> {
  await body?.cancel().catch(() => {})
}

function sizeOf(response: Response, where: string): number {
  const size = Number(response.headers.get('content-length') ?? Number.NaN)
  if (Number.isSafeInteger(size) && size >= 0) return size
  throw new CodedError('unsupported', `Cannot read ${where}: its server does not say how large it is`)
}

/** The body, which must have `length` bytes; one that goes on is not read to its end. */
async function readExactly(response: Response, length: number, what: string): Promise<Uint8Array> {
  const bytes = new Uint8Array(length)
  const reader = response.body?.getReader()
  let filled = 0
  for (;;) {
    const {done, value} = (await reader?.read()) ?? {done: true}
    if (done) break
    if (filled + value.length > length) {
      await reader?.cancel()
      throw new CodedError('corrupt', `Cannot read ${what}: the server sent more than was asked for`)
    }
    bytes.set(value, filled)
    filled += value.length
  }
  if (filled === length) return bytes
  throw new CodedError('corrupt', `Cannot read ${what}: the server sent ${filled} of ${length} bytes`)
}

function codeOfStatus(status: number): ErrorCode {
  switch (status) {
    case 401:
      return 'unauthenticated'
    case 403:
      return 'permission-denied'
    case 404:
    case 410:
      return 'not-found'
    case 416:
      return 'corrupt'
    default:
      return status === 429 || status >= 500 ? 'unavailable' : 'failed-precondition'
  }
}

/** For messages: signed URLs carry their secrets in the query, others before the host. */
function withoutSecrets(url: string | URL): string {
  const text = String(url)
  return text.replace(/[?#].*$/s, '').replace(/^([a-z+]+:\/\/)[^/]*@/i, '$1')
}
