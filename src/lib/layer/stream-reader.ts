// Fetches streams of a layer's blob and takes them apart into chunks, each verified.

import type {BulkCodec, MemberKind} from '../compression/codec.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import {type ChunkMap, chunksOfStream} from './chunk-map.ts'
import {inflateStream} from './inflate-stream.ts'
import type {FetchCause, LayerObserver} from './layer-observer.ts'
import type {LayerData} from './ports.ts'
import {batchesOf, placesOf, type StreamRange, verifiedChunk} from './stream-places.ts'

/** Why something is fetched, and until when. */
export interface FetchCall extends CallOptions {
  readonly cause: FetchCause
}

/** What some streams hold, by chunk, and what is wrong with streams that are not what they should be. */
export interface StreamContents {
  /** Chunks that have been verified and written already. */
  readonly written: readonly number[]
  /** Chunks that have been verified and are still to be written. */
  readonly chunks: ReadonlyMap<number, Uint8Array>
  readonly damaged: ReadonlyMap<number, unknown>
  /** How long it took to unpack what the request brought, milliseconds. */
  readonly unpackMs: number
}

export interface StreamReaderOptions {
  readonly map: ChunkMap
  readonly blob: BlobSource
  readonly memberKind: MemberKind
  readonly codec: BulkCodec
  readonly data: Pick<LayerData, 'withFd'>
  /** For messages. */
  readonly where: string
  /** For the observer: the blob's digest. */
  readonly layer: string
  readonly observer: LayerObserver
  /** Told of every request that ended, with the bytes that it brought. */
  readonly onRequest: (bytes: number) => void
}

/** What is found while a range is read. */
interface Found extends Omit<StreamContents, 'unpackMs'> {
  readonly written: number[]
  readonly chunks: Map<number, Uint8Array>
  readonly damaged: Map<number, unknown>
}

/** Bytes of the blob from `offset` on. */
interface Fetched {
  readonly bytes: Uint8Array
  readonly offset: number
}

export class StreamReader {
  readonly #options: StreamReaderOptions

  constructor(options: StreamReaderOptions) {
    this.#options = options
  }

  /** Reads streams with one request; those that turn out damaged are asked for once more, each alone. */
  async read(range: StreamRange, call: FetchCall): Promise<StreamContents> {
    const {written, chunks, damaged, unpackMs} = await this.#readOnce(range, call)
    for (const stream of [...damaged.keys()]) {
      const again = await this.#readOnce({first: stream, last: stream}, call)
      if (again.damaged.size > 0) continue
      damaged.delete(stream)
      written.push(...again.written)
      for (const [chunk, bytes] of again.chunks) chunks.set(chunk, bytes)
    }
    return {written, chunks, damaged, unpackMs}
  }

  async #readOnce(range: StreamRange, call: FetchCall): Promise<Found & Pick<StreamContents, 'unpackMs'>> {
    const {map} = this.#options
    const offset = map.streamOffsets[range.first]!
    const bytes = await this.#request(offset, map.streamEnds[range.last]! - offset, call)
    call.signal?.throwIfAborted()
    const findings: Found = {written: [], chunks: new Map(), damaged: new Map()}
    const started = performance.now()
    // All of them, also when one fails: nothing may be written any more when the caller closes the file.
    const taken = await Promise.allSettled(
      batchesOf(map, range).map(batch => this.#unpack(batch, {bytes, offset}, findings)),
    )
    for (const result of taken) if (result.status === 'rejected') throw result.reason
    return {...findings, unpackMs: performance.now() - started}
  }

  async #unpack(batch: readonly [number, number], fetched: Fetched, findings: Found): Promise<void> {
    const {map, codec, data, memberKind} = this.#options
    const [from, end] = batch
    const unpacked =
      codec.unpackStreams &&
      (await data.withFd(fd =>
        codec.unpackStreams!(memberKind, fetched.bytes, placesOf(map, batch, fetched.offset), fd),
      ))
    const rest: number[] = []
    for (let stream = from; stream < end; stream++) {
      if (unpacked?.[stream - from]) findings.written.push(...chunksOfStream(map, stream))
      else rest.push(stream)
    }
    await Promise.all(rest.map(stream => this.#unpackSlowly(stream, fetched, findings)))
  }

  /** The way for what is not plain: it finds out what there is to know. */
  async #unpackSlowly(stream: number, {bytes, offset}: Fetched, findings: Found): Promise<void> {
    const {map, codec, memberKind, where} = this.#options
    const [from, to] = [map.streamOffsets[stream]! - offset, map.streamEnds[stream]! - offset]
    try {
      const wanted = map.streamSizes[stream]!
      const output = await inflateStream(memberKind, bytes.subarray(from, to), wanted, codec)
      for (const chunk of chunksOfStream(map, stream)) {
        findings.chunks.set(chunk, verifiedChunk(map, chunk, output))
      }
    } catch (error) {
      const what = `Cannot use the stream at byte ${map.streamOffsets[stream]} of ${where}`
      findings.damaged.set(stream, new CodedError('corrupt', what, {cause: error}))
    }
  }

  async #request(offset: number, length: number, {signal, cause}: FetchCall): Promise<Uint8Array> {
    const {blob, layer, observer, onRequest} = this.#options
    const started = performance.now()
    let received = 0
    try {
      const bytes = await blob.read(offset, length, {signal})
      received = length
      return bytes
    } finally {
      onRequest(received)
      const durationMs = performance.now() - started
      observer.event('requested', {layer, cause, durationMs, bytes: received, failed: received === 0})
    }
  }
}
