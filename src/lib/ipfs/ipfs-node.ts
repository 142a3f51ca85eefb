// The HTTP API of an IPFS node (Kubo's), of which three calls are used: add, cat and files/stat.

import {randomUUID} from 'node:crypto'
import {CodedError, type ErrorCode, hasCode} from '../errors/coded-error.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import {isRecord} from '../oci/descriptor.ts'
import {
  createHttpClient,
  type HttpClient,
  type HttpRequest,
  type HttpResponse,
  type Timeouts,
} from '../registry/http.ts'
import {errorFromConnection, quotable, readBounded} from '../registry/registry-error.ts'
import {isCid} from './cid.ts'

/** A node may first look for content elsewhere, which takes seconds; one that is silent for longer does not have it. */
const TIMEOUTS: Timeouts = {connectMs: 5_000, headersMs: 60_000, bodyIdleMs: 30_000}
/** Answers that are no content, bytes: Kubo's have some hundred. */
const MAX_ANSWER = 64 * 1024
/** A file's descriptor, as `ipfs-push` adds it, is larger than this for nobody. */
const MAX_DOCUMENT = 256 * 1024

export interface IpfsNodeOptions {
  /** Finds the API, anew after it could not be reached: a node may come back at another port. */
  readonly findApi: () => Promise<URL>
  readonly userAgent: string
  readonly timeouts?: Partial<Timeouts>
}

/** Bytes to add; the stream may be asked for more than once. */
export interface Addable {
  readonly size: number
  readonly stream: () => AsyncIterable<Uint8Array>
}

/** A node; nothing that it says is verified here. Disposing it closes its connections. */
export class IpfsNode implements AsyncDisposable {
  readonly #options: IpfsNodeOptions
  readonly #client: HttpClient
  #api: Promise<URL> | undefined

  constructor(options: IpfsNodeOptions) {
    const timeouts = {...TIMEOUTS, ...options.timeouts}
    this.#options = options
    this.#client = createHttpClient({tls: {skipVerify: false, ca: [], clients: []}, timeouts})
  }

  /** Finds out where the node is; whether it answers shows when it is asked something. */
  async locate(): Promise<void> {
    await this.#findApi()
  }

  /** Adds and pins a file; resolves to its CID, of version 1. */
  async add({size, stream}: Addable, call: CallOptions = {}): Promise<string> {
    const boundary = `ctr-remote-${randomUUID()}`
    const head = Buffer.from(
      `--${boundary}\r\nContent-Disposition: form-data; name="file"; filename="file"\r\nContent-Type: application/octet-stream\r\n\r\n`,
    )
    const tail = Buffer.from(`\r\n--${boundary}--\r\n`)
    async function* body(): AsyncGenerator<Uint8Array> {
      yield head
      yield* stream()
      yield tail
    }
    const action = `add ${size} bytes to IPFS`
    const response = await this.#call('add', {'cid-version': '1', pin: 'true'}, action, {
      ...call,
      body,
      headers: {
        'content-type': `multipart/form-data; boundary=${boundary}`,
        'content-length': String(head.length + size + tail.length),
      },
    })
    const cid = (await this.#answer(response, action)).Hash
    if (typeof cid === 'string' && isCid(cid)) return cid
    throw rubbish(response.url, action)
  }

  /** How many bytes the file of a CID has, as the node says. */
  async size(cid: string, call: CallOptions = {}): Promise<number> {
    const action = `find ${cid} in IPFS`
    const response = await this.#call('files/stat', {arg: `/ipfs/${cid}`}, action, call)
    const {Size: size, Type: type} = await this.#answer(response, action)
    const isFile = type === undefined || type === 'file'
    if (isFile && typeof size === 'number' && Number.isSafeInteger(size) && size >= 0) return size
    if (!isFile) throw new CodedError('unsupported', `Cannot ${action}: it is no file`)
    throw rubbish(response.url, action)
  }

  /** A whole file that must fit in memory. */
  async document(cid: string, call: CallOptions = {}): Promise<Uint8Array> {
    const action = `read ${cid} of IPFS`
    const response = await this.#call('cat', {arg: `/ipfs/${cid}`}, action, call)
    const bytes = await this.#receive(response, action, call, () => readBounded(response, MAX_DOCUMENT))
    if (bytes) return bytes
    throw new CodedError('corrupt', `Cannot ${action}: it is larger than ${MAX_DOCUMENT} bytes`)
  }

  /** The bytes of [offset, offset + length); throws `corrupt` when more come, `unavailable` when fewer. */
  async *cat(
    cid: string,
    offset: number,
    length: number,
    call: CallOptions = {},
  ): AsyncGenerator<Uint8Array> {
    if (length === 0) return
    const action = `read ${cid} of IPFS`
    const query = {arg: `/ipfs/${cid}`, offset: String(offset), length: String(length)}
    const response = await this.#call('cat', query, action, call)
    const parts = response.body[Symbol.asyncIterator]()
    let received = 0
    try {
      for (;;) {
        const {done, value} = await this.#receive(response, action, call, () => parts.next())
        if (done) break
        received += value.length
        if (received > length) throw wrongLength('corrupt', action, length, 'more')
        yield value
      }
    } finally {
      await parts.return?.()
    }
    // Kubo has no other way to say that something failed once it has begun to answer.
    if (received < length) throw wrongLength('unavailable', action, length, `${received}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#client[Symbol.asyncDispose]()
  }

  /** A response of status 200, or an error that says what is wrong. */
  async #call(
    path: string,
    query: Readonly<Record<string, string>>,
    action: string,
    more: CallOptions & Partial<Pick<HttpRequest, 'body' | 'headers'>>,
  ): Promise<HttpResponse> {
    const {signal, body, headers = {}} = more
    const api = await this.#findApi()
    const url = new URL(`/api/v0/${path}?${new URLSearchParams(query)}`, api)
    const request = {
      method: 'POST',
      url,
      body,
      signal,
      headers: {...headers, 'user-agent': this.#options.userAgent},
    } as const
    const response = await this.#try(url, action, more, () => this.#client.send(request))
    if (response.status === 200) return response
    throw await errorOf(response, action)
  }

  async #findApi(): Promise<URL> {
    this.#api ??= this.#options.findApi()
    return this.#api.catch(error => {
      this.#api = undefined
      throw error
    })
  }

  #receive<T>(response: HttpResponse, action: string, call: CallOptions, work: () => Promise<T>): Promise<T> {
    return this.#try(response.url, action, call, work)
  }

  async #try<T>(url: URL, action: string, {signal}: CallOptions, work: () => Promise<T>): Promise<T> {
    try {
      return await work()
    } catch (cause) {
      signal?.throwIfAborted()
      const error = errorFromConnection(cause, action, url)
      if (hasCode(error, 'unavailable')) this.#api = undefined
      throw error
    }
  }

  /** The JSON object that a call answers with: one on a line, of which the last counts. */
  async #answer(response: HttpResponse, action: string): Promise<Readonly<Record<string, unknown>>> {
    const bytes = await this.#receive(response, action, {}, () => readBounded(response, MAX_ANSWER))
    const line = Buffer.from(bytes ?? [])
      .toString('utf8')
      .trim()
      .split('\n')
      .at(-1)
    try {
      const answer: unknown = JSON.parse(line ?? '')
      if (isRecord(answer)) return answer
    } catch {
      // Said below.
    }
    throw rubbish(response.url, action)
  }
}

/** The file of a CID, to be read by ranges. */
export function ipfsBlob(node: IpfsNode, cid: string, size: number): BlobSource {
  return {
    size,
    async read(offset, length, call = {}) {
      const isRange =
        Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0
      if (!isRange || offset + length > size) {
        throw new CodedError(
          'invalid-argument',
          `Cannot read ${length} bytes at ${offset} of ${cid} of IPFS: it has ${size}`,
        )
      }
      const bytes = Buffer.allocUnsafe(length)
      let filled = 0
      for await (const part of node.cat(cid, offset, length, call)) {
        bytes.set(part, filled)
        filled += part.length
      }
      return bytes
    },
  }
}

/** Kubo answers failures with 500 and `{"Message"}`; others are of something that is no such node. */
async function errorOf(response: HttpResponse, action: string): Promise<CodedError> {
  const {status, url} = response
  const bytes = await readBounded(response, MAX_ANSWER).catch(() => undefined)
  const said = messageIn(Buffer.from(bytes ?? []).toString('utf8'))
  const problem =
    said === '' ? `it answered HTTP ${status}` : `it says ${JSON.stringify(said)} (HTTP ${status})`
  return new CodedError(codeOfFailure(status, said), `Cannot ${action} at ${url.host}: ${problem}`)
}

function messageIn(text: string): string {
  try {
    const answer: unknown = JSON.parse(text)
    return isRecord(answer) && typeof answer.Message === 'string' ? quotable(answer.Message) : ''
  } catch {
    return text.trimStart().startsWith('<') ? '' : quotable(text)
  }
}

function codeOfFailure(status: number, said: string): ErrorCode {
  if (status === 403) return 'permission-denied'
  if (status === 404 || status === 405) return 'unsupported'
  if (/not found|no link named/i.test(said)) return 'not-found'
  return status === 429 || status >= 500 ? 'unavailable' : 'invalid-argument'
}

function rubbish(url: URL, action: string): CodedError {
  return new CodedError(
    'unsupported',
    `Cannot ${action}: what answers at ${url.host} is not the API of an IPFS node`,
  )
}

function wrongLength(code: ErrorCode, action: string, length: number, received: string): CodedError {
  return new CodedError(code, `Cannot ${action}: the node sent ${received} instead of ${length} bytes`)
}
