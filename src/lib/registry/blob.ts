// A blob of a registry, for reading: as a verified stream, or by ranges. Broken bodies are resumed where they broke.

import {CodedError, codeOf, messageOf} from '../errors/coded-error.ts'
import {verifyStream} from '../io/verified-stream.ts'
import type {CallOptions, OpenBlob} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Endpoint, endpointUrl} from './endpoint.ts'
import {firstOf} from './fallback.ts'
import type {HttpResponse} from './http.ts'
import type {RepositoryLocation} from './location.ts'
import {errorFromConnection, errorFromResponse} from './registry-error.ts'
import {pause, retryDelayMs} from './retry.ts'

/** What a host does with Range headers, as far as has been seen. */
export type RangeSupport = 'unknown' | 'honoured' | 'ignored'

/** A registry's blob. Opening it makes no request: `not-found` is thrown by the first read. */
export interface RegistryBlob extends OpenBlob {
  /** `ignored` means that every read costs a transfer from the blob's start. */
  readonly rangeSupport: RangeSupport
}

/** A resumed body that got this far, bytes, has made progress; less counts as another failure in a row. */
const PROGRESS_BYTES = 64 * 1024

/** A response's bytes from a wanted offset on. */
interface RangeBody {
  readonly parts: AsyncIterable<Uint8Array>
  /** False when the body runs on beyond what was asked for. */
  readonly exact: boolean
  readonly url: URL
}

/** Opens a blob for reading; disposing it needs nothing. */
export function openRegistryBlob(location: RepositoryLocation, descriptor: Descriptor): RegistryBlob {
  const {session, endpoints, scopes, name} = location
  const {digest, size} = descriptor
  const action = `read blob ${digest} of ${name}`
  let rangeSupport: RangeSupport = 'unknown'
  /** Where the registry sent us last; asked first, so that a read costs one round trip. */
  let redirect: {readonly url: URL; readonly endpoint: Endpoint} | undefined

  async function openRange(offset: number, end: number, {signal}: CallOptions): Promise<RangeBody> {
    const ranged = offset > 0 || end < size
    const headers: Record<string, string> = ranged ? {range: `bytes=${offset}-${end - 1}`} : {}
    if (redirect) {
      const {url, endpoint} = redirect
      const response = await session.send(endpoint, {method: 'GET', url, headers, scopes, action}, {signal})
      if (response.status === 200 || response.status === 206) return accept(response, offset, end, ranged)
      // Signed URLs expire; what is really wrong, if anything, the registry says when it is asked again.
      redirect = undefined
      await response.discard()
    }
    return firstOf(endpoints, 'pull', {retry: session.retry, signal}, async (endpoint, attempts) => {
      const url = endpointUrl(endpoint, `blobs/${digest}`)
      const request = {method: 'GET', url, headers, scopes, action, attempts} as const
      const response = await session.send(endpoint, request, {signal})
      if (response.status !== 200 && response.status !== 206) throw await refusal(response)
      if (response.url.origin !== endpoint.origin) redirect = {url: response.url, endpoint}
      return accept(response, offset, end, ranged)
    })
  }

  async function refusal(response: HttpResponse): Promise<CodedError> {
    const error = await errorFromResponse(response, action)
    return response.status === 416
      ? new CodedError('corrupt', `Cannot ${action}: it is shorter than its ${size} bytes`, {cause: error})
      : error
  }

  /** Checks that a response is about the right bytes; hosts may ignore a Range, and then answer 200. */
  async function accept(
    response: HttpResponse,
    offset: number,
    end: number,
    ranged: boolean,
  ): Promise<RangeBody> {
    const {url} = response
    const problem =
      response.status === 206 ? rangeProblem(response, offset, size) : sizeProblem(response, size)
    if (problem) {
      await response.discard()
      throw new CodedError('corrupt', `Cannot ${action}: ${url.host} ${problem}`)
    }
    if (response.status === 206) {
      rangeSupport = 'honoured'
      return {parts: response.body, exact: true, url}
    }
    if (ranged) rangeSupport = 'ignored'
    return {parts: skip(response.body, offset), exact: end === size, url}
  }

  /** The bytes of [offset, end), over as many responses as it takes. */
  async function* bytesOf(offset: number, end: number, options: CallOptions): AsyncGenerator<Uint8Array> {
    let position = offset
    let failures = 0
    while (position < end) {
      const started = position
      const body = await openRange(position, end, options)
      let failure: unknown
      try {
        for await (const part of body.parts) {
          if (position + part.length > size) throw tooLong(body.url)
          const bytes = part.subarray(0, end - position)
          position += bytes.length
          if (bytes.length > 0) yield bytes
          if (position === end && !body.exact) return
        }
      } catch (error) {
        options.signal?.throwIfAborted()
        if (error instanceof CodedError) throw error
        failure = error
      }
      if (position >= end) return
      failures = position - started >= PROGRESS_BYTES ? 1 : failures + 1
      if (failures >= session.retry.attempts) throw brokenOff(failure, position, body.url)
      await pause(retryDelayMs(session.retry, failures + 1), options)
    }
  }

  function tooLong(url: URL): CodedError {
    return new CodedError('corrupt', `Cannot ${action}: ${url.host} sends more than its ${size} bytes`)
  }

  function brokenOff(failure: unknown, position: number, url: URL): unknown {
    if (failure === undefined) {
      return new CodedError(
        'corrupt',
        `Cannot ${action}: ${url.host} ends it after ${position} of ${size} bytes`,
      )
    }
    const error = errorFromConnection(failure, action, url)
    return new CodedError(codeOf(error), `${messageOf(error)}, after ${position} of ${size} bytes`, {
      cause: failure,
    })
  }

  return {
    size,
    get rangeSupport() {
      return rangeSupport
    },
    async read(offset, length, options = {}) {
      const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0
      if (!valid || offset + length > size) {
        throw new CodedError(
          'invalid-argument',
          `Cannot ${action}: ${length} bytes at ${offset} are not inside its ${size} bytes`,
        )
      }
      const bytes = Buffer.allocUnsafe(length)
      let filled = 0
      for await (const part of bytesOf(offset, offset + length, options)) {
        bytes.set(part, filled)
        filled += part.length
      }
      return bytes
    },
    stream: (options = {}) => verifyStream(bytesOf(0, size, options), descriptor, name),
    [Symbol.asyncDispose]: async () => undefined,
  }
}

/** What is wrong with the Content-Range of a 206 (RFC 9110, 14.4); undefined when it is as asked for. */
function rangeProblem(response: HttpResponse, offset: number, size: number): string | undefined {
  const header = response.header('content-range')
  const match = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16}|\*)$/.exec(header?.trim() ?? '')
  if (!match) return `answers a range request without a usable Content-Range (${JSON.stringify(header)})`
  const [, first, , total] = match
  if (Number(first) !== offset) return `answers a request for bytes from ${offset} with bytes from ${first}`
  if (total !== '*' && Number(total) !== size)
    return `says that it has ${total} bytes, its descriptor ${size}`
  return undefined
}

/** A Content-Length that contradicts the descriptor is told at once, not after gigabytes. */
function sizeProblem(response: HttpResponse, size: number): string | undefined {
  const header = response.header('content-length')
  return header !== undefined && Number(header) !== size
    ? `says that it has ${header} bytes, its descriptor ${size}`
    : undefined
}

async function* skip(parts: AsyncIterable<Uint8Array>, count: number): AsyncGenerator<Uint8Array> {
  let left = count
  for await (const part of parts) {
    if (left >= part.length) left -= part.length
    else {
      yield left > 0 ? part.subarray(left) : part
      left = 0
    }
  }
}
