// A blob of a registry, for reading: as a verified stream, or by ranges. Broken bodies are resumed where they broke.

import {verifyStream} from '../blob/verified-stream.ts'
import {CodedError, codeOf, messageOf} from '../errors/coded-error.ts'
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

/** A resumed body that got this far, bytes, has made progress; less counts as another failure in a row. */
const PROGRESS_BYTES = 64 * 1024

/** A response's bytes from a wanted offset on. */
interface RangeBody {
  readonly parts: AsyncIterable<Uint8Array>
  /** False when the body runs on beyond what was asked for. */
  readonly exact: boolean
  readonly answer: BlobAnswer
}

/** Opens a blob for reading. It makes no request: `not-found` is thrown by the first read. */
export function openRegistryBlob(location: RepositoryLocation, descriptor: Descriptor): RegistryBlob {
  return new RegistryBlob(location, descriptor)
}

/** A registry's blob; disposing it needs nothing. */
export class RegistryBlob implements OpenBlob {
  readonly size: number
  readonly #location: RepositoryLocation
  readonly #descriptor: Descriptor
  /** What is being done, for errors. */
  readonly #action: string
  readonly #traffic = {requests: 0, bytes: 0}
  #rangeSupport: RangeSupport = 'unknown'

  constructor(location: RepositoryLocation, descriptor: Descriptor) {
    this.size = descriptor.size
    this.#location = location
    this.#descriptor = descriptor
    this.#action = `read blob ${descriptor.digest} of ${location.name}`
  }

  get traffic(): Traffic {
    return this.#traffic
  }

  /** `ignored` means that every read costs a transfer from the blob's start. */
  get rangeSupport(): RangeSupport {
    return this.#rangeSupport
  }

  async read(offset: number, length: number, options: CallOptions = {}): Promise<Uint8Array> {
    const valid = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0
    if (!valid || offset + length > this.size) {
      throw new CodedError(
        'invalid-argument',
        `Cannot ${this.#action}: ${length} bytes at ${offset} are not inside its ${this.size} bytes`,
      )
    }
    const bytes = Buffer.allocUnsafe(length)
    let filled = 0
    for await (const part of this.#bytesOf(offset, offset + length, options)) {
      bytes.set(part, filled)
      filled += part.length
    }
    return bytes
  }

  stream(options: CallOptions = {}): AsyncIterable<Uint8Array> {
    return verifyStream(this.#bytesOf(0, this.size, options), this.#descriptor, this.#location.name)
  }

  streamFrom(offset: number, options: CallOptions = {}): AsyncIterable<Uint8Array> {
    return this.#bytesOf(offset, this.size, options)
  }

  async [Symbol.asyncDispose](): Promise<void> {}

  /** The bytes of [offset, end), over as many responses as it takes. */
  async *#bytesOf(offset: number, end: number, options: CallOptions): AsyncGenerator<Uint8Array> {
    const {retry} = this.#location.session
    let position = offset
    let failures = 0
    while (position < end) {
      const started = position
      const body = await this.#openRange(position, end, options)
      const {url} = body.answer.response
      let failure: unknown
      try {
        for await (const part of body.parts) {
          this.#traffic.bytes += part.length
          if (position + part.length > this.size) throw this.#tooLong(url)
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
      if (!hasProgressed) distrust(this.#location, this.#descriptor.digest, body.answer)
      failures = hasProgressed ? 1 : failures + 1
      if (failures >= retry.attempts) throw this.#brokenOff(failure, position, url)
      await pause(retryDelayMs(retry, failures + 1), options)
    }
  }

  async #openRange(offset: number, end: number, call: CallOptions): Promise<RangeBody> {
    const {size} = this
    const isRanged = offset > 0 || end < size
    const request = {
      range: isRanged ? `bytes=${offset}-${end - 1}` : undefined,
      action: this.#action,
      problemOf: (response: HttpResponse) =>
        response.status === 206 ? rangeProblem(response, offset, size) : sizeProblem(response, size),
      onSend: () => void this.#traffic.requests++,
    }
    const answer = await requestBlob(this.#location, this.#descriptor.digest, request, call)
    const {body, status} = answer.response
    if (status === 206) {
      this.#rangeSupport = 'honoured'
      return {parts: body, exact: lastByteOf(answer.response) === end - 1, answer}
    }
    // Hosts may ignore a Range.
    if (isRanged) this.#rangeSupport = 'ignored'
    return {parts: skip(body, offset, this.#traffic), exact: end === size, answer}
  }

  #tooLong(url: URL): CodedError {
    return new CodedError(
      'corrupt',
      `Cannot ${this.#action}: ${url.host} sends more than its ${this.size} bytes`,
    )
  }

  #brokenOff(failure: unknown, position: number, url: URL): CodedError {
    const where = `after ${position} of ${this.size} bytes`
    if (failure === undefined) {
      return new CodedError('corrupt', `Cannot ${this.#action}: ${url.host} ends it ${where}`)
    }
    const error = errorFromConnection(failure, this.#action, url)
    return new CodedError(codeOf(error), `${messageOf(error)}, ${where}`, {cause: failure})
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
