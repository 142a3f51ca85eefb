// An upload in pieces, which survives broken connections and limits on the size of a request.

import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {RepositoryLocation} from './location.ts'
import {isBlobPresent} from './presence.ts'
import {errorFromResponse} from './registry-error.ts'
import {isRetryableStatus, parseRetryAfter, pause, retryDelayMs} from './retry.ts'
import {actionOf, cancelUpload, isStored, locationOf, sendUpload, startUpload} from './upload-requests.ts'

/** Where a proxy refuses pieces as too large, they are halved down to this; nginx lets 1 MiB pass by default. */
const SMALLEST_PIECE = 64 * 1024

/** What went wrong with a piece. */
interface PieceFailure {
  readonly error: unknown
  readonly isFinal: boolean
  readonly isTooLarge: boolean
  readonly retryAfterMs?: number | undefined
}

/** Disposing is not needed; what is not finished is to be cancelled. */
export class ChunkedUpload {
  readonly #location: RepositoryLocation
  /** Where the next piece goes; every answer may change it. */
  #url: URL
  /** Bytes that the registry has. */
  #offset = 0
  #largestPiece = Number.POSITIVE_INFINITY

  private constructor(location: RepositoryLocation, url: URL) {
    this.#location = location
    this.#url = url
  }

  static async start(location: RepositoryLocation, options: CallOptions): Promise<ChunkedUpload> {
    return new ChunkedUpload(location, await startUpload(location, options))
  }

  /** Adds bytes, which may be reused once it has resolved. */
  async append(bytes: Uint8Array, options: CallOptions): Promise<void> {
    const {retry} = this.#location.session
    let rest = bytes
    for (let attempt = 1; rest.length > 0; ) {
      const piece = rest.subarray(0, this.#largestPiece)
      const failure = await this.#patch(piece, options)
      if (!failure) {
        this.#offset += piece.length
        rest = rest.subarray(piece.length)
        attempt = 1
      } else if (failure.isTooLarge && piece.length > SMALLEST_PIECE) {
        this.#largestPiece = Math.max(SMALLEST_PIECE, Math.ceil(piece.length / 2))
      } else {
        if (failure.isFinal || attempt >= retry.attempts) throw failure.error
        attempt++
        await pause(retryDelayMs(retry, attempt, failure.retryAfterMs), options)
        const stored = await this.#recover(piece.length, options)
        if (stored > 0) attempt = 1
        rest = rest.subarray(stored)
        this.#offset += stored
      }
    }
  }

  /** Makes the blob visible; throws `corrupt` when the registry finds another digest. */
  async finish(blob: Pick<Descriptor, 'digest' | 'size'>, options: CallOptions): Promise<void> {
    this.#url.searchParams.set('digest', blob.digest)
    const request = {method: 'PUT', url: this.#url, headers: {'content-length': '0'}} as const
    const response = await sendUpload(this.#location, request, options)
    if (isStored(response)) return response.discard()
    const error = await errorFromResponse(response, actionOf(this.#location))
    // A PUT whose answer was lost has closed the upload; the blob itself then tells.
    if (response.status === 404 && (await isBlobPresent(this.#location, blob, options))) return
    throw error
  }

  /** Tells the registry to forget it. */
  cancel(): Promise<void> {
    return cancelUpload(this.#location, this.#url)
  }

  /** One PATCH; resolves to undefined when it was stored. */
  async #patch(bytes: Uint8Array, options: CallOptions): Promise<PieceFailure | undefined> {
    const headers = {
      'content-type': 'application/octet-stream',
      'content-length': String(bytes.length),
      // distribution-spec "Pushing a blob in chunks": start and end, both included, without a unit.
      'content-range': `${this.#offset}-${this.#offset + bytes.length - 1}`,
    }
    try {
      const request = {method: 'PATCH', url: this.#url, headers, body: bytes, attempts: 1} as const
      const response = await sendUpload(this.#location, request, options)
      if (response.status === 202 || response.status === 204 || response.status === 201) {
        await response.discard()
        this.#url = locationOf(this.#location, response, this.#url)
        return undefined
      }
      const retryAfterMs = parseRetryAfter(response.header('retry-after'), Date.now())
      // 416 says that pieces are out of step: the registry's own count of bytes decides.
      const isFinal = !isRetryableStatus(response.status) && response.status !== 416
      const error = await errorFromResponse(response, actionOf(this.#location))
      return {error, isFinal, isTooLarge: response.status === 413, retryAfterMs}
    } catch (error) {
      options.signal?.throwIfAborted()
      return {error, isFinal: !hasCode(error, 'unavailable'), isTooLarge: false}
    }
  }

  /** How many bytes of a piece of `size` that failed have arrived all the same. */
  async #recover(size: number, options: CallOptions): Promise<number> {
    const stored = await this.#storedSize(options)
    if (stored === 0 && this.#offset === 0) {
      await this.cancel()
      this.#url = await startUpload(this.#location, options)
      return 0
    }
    if (stored < this.#offset || stored > this.#offset + size) {
      throw new CodedError(
        'unavailable',
        `Cannot resume the upload of a blob to ${this.#location.name}: the registry has ${stored} bytes, ${this.#offset} were sent`,
      )
    }
    return stored - this.#offset
  }

  /** How many bytes the registry has. */
  async #storedSize(options: CallOptions): Promise<number> {
    const response = await sendUpload(this.#location, {method: 'GET', url: this.#url}, options)
    if (response.status !== 204 && response.status !== 200) {
      throw await errorFromResponse(response, `resume the upload of a blob to ${this.#location.name}`)
    }
    await response.discard()
    this.#url = locationOf(this.#location, response, this.#url)
    const match = /^(?:bytes=)?0-(\d{1,16})$/.exec(response.header('range') ?? '')
    if (!match) return 0
    // Registries say "0-0" for nothing as well as for one byte; pieces are larger, so it is nothing.
    return match[1] === '0' ? 0 : Number(match[1]) + 1
  }
}
