// A blob of a registry, for reading: as a verified stream, or by ranges. Broken bodies are resumed where they broke.

import {CodedError, codeOf, messageOf} from '../errors/coded-error.ts'
import {verifyStream} from '../io/verified-stream.ts'
import type {CallOptions, OpenBlob} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type BlobAnswer, distrust, requestBlob} from './blob-hosts.ts'
import type {HttpResponse} from './http.ts'
import type {RepositoryLocation} from './location.ts'
import {errorFromConnection} from './registry-error.ts'
import {pause, retryDelayMs} from './retry.ts'

/** What a host does with Range headers, as far as has been seen. */
export type RangeSupport = 'unknown' | 'honoured' | 'ignored'

/** What reading a blob has cost so far: requests sent, with redirects and repetitions, and bytes of bodies received. */
export interface Traffic {
  readonly requests: number
  readonly bytes: number
}

/** A registry's blob. Opening it makes no request: `not-found` is thrown by the first read. */
export interface RegistryBlob extends OpenBlob {
  /** `ignored` means that every read costs a transfer from the blob's start. */
  readonly rangeSupport: RangeSupport
  readonly traffic: Traffic
}

/** A resumed body that got this far, bytes, has made progress; less counts as another failure in a row. */
const PROGRESS_BYTES = 64 * 1024

/** A response's bytes from a wanted offset on. */
interface RangeBody {
  readonly parts: AsyncIterable<Uint8Array>
  /** False when the body runs on beyond what was asked for. */
  readonly exact: boolean
  readonly answer: BlobAnswer
}

/** Opens a blob for reading; disposing it needs nothing. */
export function openRegistryBlob(location: RepositoryLocation, descriptor: Descriptor): RegistryBlob {
  const {session, name} = location
  const {digest, size} = descriptor
  const action = `read blob ${digest} of ${name}`
  const traffic = {requests: 0, bytes: 0}
  let rangeSupport: RangeSupport = 'unknown'

  async function openRange(offset: number, end: number, call: CallOptions): Promise<RangeBody> {
    const isRanged = offset > 0 || end < size
    const request = {
      range: isRanged ? `bytes=${offset}-${end - 1}` : undefined,
      action,
      problemOf: (response: HttpResponse) =>
        response.status === 206 ? rangeProblem(response, offset, size) : sizeProblem(response, size),
      onSend: () => void traffic.requests++,
    }
    const answer = await requestBlob(location, digest, request, call)
    const {body, status} = answer.response
    if (status === 206) {
      rangeSupport = 'honoured'
      return {parts: body, exact: lastByteOf(answer.response) === end - 1, answer}
    }
    // Hosts may ignore a Range.
    if (isRanged) rangeSupport = 'ignored'
    return {parts: skip(body, offset, traffic), exact: end === size, answer}
  }

  /** The bytes of [offset, end), over as many responses as it takes. */
  async function* bytesOf(offset: number, end: number, options: CallOptions): AsyncGenerator<Uint8Array> {
    let position = offset
    let failures = 0
    while (position < end) {
      const started = position
      const body = await openRange(position, end, options)
      const {url} = body.answer.response
      let failure: unknown
      try {
        for await (const part of body.parts) {
          traffic.bytes += part.length
          if (position + part.length > size) throw tooLong(url)
          const bytes = part.subarray(0, end - position)
          position += bytes.length
          if (bytes.length > 0) yield bytes
          // An answer of the right length is read to its end, so that the connection can be used again.
          if (position === end && (!body.exact || bytes.length < part.length)) return
        }
      } catch (error) {
        options.signal?.throwIfAborted()
        if (error instanceof CodedError) throw error
        failure = error
      }
      if (position >= end) return
      const hasProgressed = position - started >= PROGRESS_BYTES
      if (!hasProgressed) distrust(location, digest, body.answer)
      failures = hasProgressed ? 1 : failures + 1
      if (failures >= session.retry.attempts) throw brokenOff(failure, position, url)
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
    traffic,
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
    streamFrom: (offset, options = {}) => bytesOf(offset, size, options),
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

/** The last byte that a 206 says to hold. */
function lastByteOf(response: HttpResponse): number {
  return Number(/-(\d+)\//.exec(response.header('content-range') ?? '')?.[1])
}

async function* skip(
  parts: AsyncIterable<Uint8Array>,
  count: number,
  traffic: {bytes: number},
): AsyncGenerator<Uint8Array> {
  let left = count
  for await (const part of parts) {
    const skipped = Math.min(left, part.length)
    left -= skipped
    traffic.bytes += skipped
    if (skipped < part.length) yield part.subarray(skipped)
  }
}
