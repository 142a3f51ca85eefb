// Fetches streams of a layer's blob and takes them apart into chunks, each verified.

import type {BulkCodec, MemberKind, StreamPlaces} from '../compression/codec.ts'
import {CodedError} from '../errors/coded-error.ts'
import {digestOf} from '../io/sha256.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {FetchCause, LayerObserver} from '../snapshot/layer-observer.ts'
import {type ChunkMap, chunksOfStream, HASH_SIZE} from './chunk-map.ts'
import {inflateStream} from './inflate-stream.ts'
import type {LayerData} from './ports.ts'

/** Decompressed bytes of one call to the codec. */
const BATCH_OUTPUT = 2 << 20

/** Streams `first` to `last`, neighbours in the blob. */
export interface StreamRange {
  readonly first: number
  readonly last: number
}

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
}

export interface StreamReaderOptions {
  readonly map: ChunkMap
  readonly blob: BlobSource
  readonly memberKind: MemberKind
  readonly codec: BulkCodec
  readonly data: Pick<LayerData, 'fd'>
  /** For messages. */
  readonly where: string
  /** For the observer: the blob's digest. */
  readonly layer: string
  readonly observer: LayerObserver
  /** Told of every request that ended, with the bytes that it brought. */
  readonly onRequest: (bytes: number) => void
}

export interface StreamReader {
  /** Reads streams with one request; those that turn out damaged are asked for once more, each alone. */
  read(range: StreamRange, call: FetchCall): Promise<StreamContents>
}

export function createStreamReader(options: StreamReaderOptions): StreamReader {
  const {map, where, codec, data, memberKind} = options

  async function readOnce({first, last}: StreamRange, call: FetchCall) {
    const offset = map.streamOffsets[first]!
    const bytes = await request(offset, map.streamEnds[last]! - offset, call)
    const written: number[] = []
    const chunks = new Map<number, Uint8Array>()
    const damaged = new Map<number, unknown>()
    /** The slow way, for what is not plain: it finds out what there is to know. */
    const take = async (stream: number) => {
      const [from, to] = [map.streamOffsets[stream]! - offset, map.streamEnds[stream]! - offset]
      try {
        const wanted = map.streamSizes[stream]!
        const output = await inflateStream(memberKind, bytes.subarray(from, to), wanted, codec)
        for (const chunk of chunksOfStream(map, stream)) chunks.set(chunk, verify(chunk, output))
      } catch (error) {
        const what = `Cannot use the stream at byte ${map.streamOffsets[stream]} of ${where}`
        damaged.set(stream, new CodedError('corrupt', what, {cause: error}))
      }
    }
    const takeAll = async (from: number, end: number) => {
      const unpacked = await codec.unpackStreams?.(memberKind, bytes, placesOf(from, end, offset), data.fd)
      const rest: number[] = []
      for (let stream = from; stream < end; stream++) {
        if (unpacked?.[stream - from]) written.push(...chunksOfStream(map, stream))
        else rest.push(stream)
      }
      await Promise.all(rest.map(take))
    }
    // All of them, also when one fails: nothing may be written any more when the caller closes the file.
    const taken = await Promise.allSettled(batches({first, last}).map(([from, end]) => takeAll(from, end)))
    for (const result of taken) if (result.status === 'rejected') throw result.reason
    return {written, chunks, damaged}
  }

  /** Parts of a range that keep one thread busy for a while each, and several together. */
  function batches({first, last}: StreamRange): [number, number][] {
    const found: [number, number][] = []
    for (let from = first, end = first; from <= last; from = end) {
      for (let output = 0; end <= last && (end === from || output < BATCH_OUTPUT); end++) {
        output += map.streamSizes[end]!
      }
      found.push([from, end])
    }
    return found
  }

  function placesOf(from: number, end: number, offset: number): StreamPlaces {
    const [firstChunk, endChunk] = [map.firstChunks[from]!, map.firstChunks[end]!]
    const indexes = map.streamChunks.subarray(firstChunk, endChunk)
    const streams = new Float64Array(4 * (end - from))
    for (let stream = from, at = 0; stream < end; stream++) {
      streams[at++] = map.streamOffsets[stream]! - offset
      streams[at++] = map.streamEnds[stream]! - offset
      streams[at++] = map.streamSizes[stream]!
      streams[at++] = map.firstChunks[stream + 1]! - map.firstChunks[stream]!
    }
    const chunks = new Float64Array(3 * indexes.length)
    const hashes = map.hashes && new Uint8Array(HASH_SIZE * indexes.length)
    for (const [at, chunk] of indexes.entries()) {
      chunks[3 * at] = map.innerOffsets[chunk]!
      chunks[3 * at + 1] = map.sizes[chunk]!
      chunks[3 * at + 2] = map.deviceOffsets[chunk]!
      hashes?.set(map.hashes!.subarray(chunk * HASH_SIZE, (chunk + 1) * HASH_SIZE), at * HASH_SIZE)
    }
    return {streams, chunks, hashes}
  }

  async function request(offset: number, length: number, {signal, cause}: FetchCall): Promise<Uint8Array> {
    const started = performance.now()
    let received = 0
    try {
      const bytes = await options.blob.read(offset, length, {signal})
      received = length
      return bytes
    } finally {
      options.onRequest(received)
      options.observer.event('requested', {
        layer: options.layer,
        cause,
        durationMs: performance.now() - started,
        bytes: received,
        failed: received === 0,
      })
    }
  }

  function verify(chunk: number, output: Uint8Array): Uint8Array {
    const start = map.innerOffsets[chunk]!
    const bytes = output.subarray(start, start + map.sizes[chunk]!)
    if (bytes.length !== map.sizes[chunk]!) throw new CodedError('corrupt', 'It is cut short')
    if (map.hashes) {
      const hash = map.hashes.subarray(chunk * HASH_SIZE, (chunk + 1) * HASH_SIZE)
      if (digestOf(bytes) !== `sha256:${Buffer.from(hash).toString('hex')}`) {
        throw new CodedError('corrupt', 'Its contents do not have their digest')
      }
    }
    return bytes
  }

  return {
    read: async (range, call) => {
      const {written, chunks, damaged} = await readOnce(range, call)
      for (const stream of [...damaged.keys()]) {
        const again = await readOnce({first: stream, last: stream}, call)
        if (again.damaged.size > 0) continue
        damaged.delete(stream)
        written.push(...again.written)
        for (const [chunk, bytes] of again.chunks) chunks.set(chunk, bytes)
      }
      return {written, chunks, damaged}
    },
  }
}
