// Bytes of any length on their way into the chunks of an upload: one chunk is sent while the next one is collected, so
// that neither the source nor the registry waits for the other.

import {hasCode} from '../errors/coded-error.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {ChunkedUpload} from './chunked-upload.ts'
import type {RepositoryLocation} from './location.ts'

export interface ChunkStreamOptions extends CallOptions {
  /** Bytes of a chunk; two are held in memory. */
  readonly chunkSize: number
}

/** Disposing it before `finish` has resolved gives the upload back. */
export class ChunkStream implements AsyncDisposable {
  readonly #upload: ChunkedUpload
  readonly #options: ChunkStreamOptions
  #buffer: Buffer
  #buffered = 0
  /** The chunk under way, and the buffer that is free once it has arrived. */
  #sending: Promise<void> = Promise.resolve()
  #spare: Buffer | undefined
  #isFinished = false

  private constructor(upload: ChunkedUpload, options: ChunkStreamOptions) {
    this.#upload = upload
    this.#options = options
    this.#buffer = Buffer.allocUnsafe(options.chunkSize)
  }

  /** Begins an upload and sends its first chunk; undefined when the registry refuses chunks, which it may. */
  static async start(
    location: RepositoryLocation,
    first: Uint8Array,
    options: ChunkStreamOptions,
  ): Promise<ChunkStream | undefined> {
    const upload = await ChunkedUpload.start(location, options)
    try {
      await upload.append(first, options)
      return new ChunkStream(upload, options)
    } catch (error) {
      await upload.cancel()
      if (hasCode(error, 'unsupported', 'invalid-argument', 'not-found')) return undefined
      throw error
    }
  }

  /** The bytes may be reused when it resolves. */
  async write(bytes: Uint8Array): Promise<void> {
    for (let taken = 0; taken < bytes.length; ) {
      if (this.#buffered === this.#buffer.length) await this.#flush()
      const part = bytes.subarray(taken, taken + this.#buffer.length - this.#buffered)
      this.#buffer.set(part, this.#buffered)
      this.#buffered += part.length
      taken += part.length
    }
  }

  /** Sends the rest and makes the blob visible. */
  async finish(blob: Pick<Descriptor, 'digest' | 'size'>): Promise<void> {
    await this.#sending
    await this.#upload.append(this.#buffer.subarray(0, this.#buffered), this.#options)
    await this.#upload.finish(blob, this.#options)
    this.#isFinished = true
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isFinished) return
    await this.#sending.catch(() => undefined)
    await this.#upload.cancel()
  }

  async #flush(): Promise<void> {
    await this.#sending
    this.#sending = this.#upload.append(this.#buffer.subarray(0, this.#buffered), this.#options)
    // A failure is thrown where the chunk is next awaited.
    this.#sending.catch(() => undefined)
    const free = this.#spare ?? Buffer.allocUnsafe(this.#buffer.length)
    this.#spare = this.#buffer
    this.#buffer = free
    this.#buffered = 0
  }
}
