// Fetches streams of a layer's blob and takes them apart into chunks, each verified.

import type {BulkCodec, MemberKind} from '../compression/codec.ts'
import {CodedError} from '../errors/coded-error.ts'
import {digestOf} from '../io/sha256.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {FetchCause, LayerObserver} from '../snapshot/layer-observer.ts'
import {type ChunkMap, chunksOfStream, HASH_SIZE} from './chunk-map.ts'
import {inflateStream} from './inflate-stream.ts'

/** Streams `first` to `last`, neighbours in the blob. */
export interface StreamRange {
  readonly first: number
  readonly last: number
}

/** Why something is fetched, and until when. */
export interface FetchCall extends CallOptions {
  readonly cause: FetchCause
}

/** What some streams hold: chunks by index, and what is wrong with streams that are not what they should be. */
export interface StreamContents {
  readonly chunks: ReadonlyMap<number, Uint8Array>
  readonly damaged: ReadonlyMap<number, unknown>
}

export interface StreamReaderOptions {
  readonly map: ChunkMap
  readonly blob: BlobSource
  readonly memberKind: MemberKind
  readonly codec: BulkCodec
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
  const {map, where} = options

  async function readOnce({first, last}: StreamRange, call: FetchCall) {
    const offset = map.streamOffsets[first]!
    const bytes = await request(offset, map.streamEnds[last]! - offset, call)
    const chunks = new Map<number, Uint8Array>()
    const damaged = new Map<number, unknown>()
    const take = async (stream: number) => {
      const [from, to] = [map.streamOffsets[stream]! - offset, map.streamEnds[stream]! - offset]
      try {
        const wanted = map.streamSizes[stream]!
        const output = await inflateStream(
          options.memberKind,
          bytes.subarray(from, to),
          wanted,
          options.codec,
        )
        for (const chunk of chunksOfStream(map, stream)) chunks.set(chunk, verify(chunk, output))
      } catch (error) {
        const what = `Cannot use the stream at byte ${map.streamOffsets[stream]} of ${where}`
        damaged.set(stream, new CodedError('corrupt', what, {cause: error}))
      }
    }
    await Promise.all(Array.from({length: last - first + 1}, (_, index) => take(first + index)))
    return {chunks, damaged}
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
      const {chunks, damaged} = await readOnce(range, call)
      for (const stream of [...damaged.keys()]) {
        const again = await readOnce({first: stream, last: stream}, call)
        if (again.damaged.size > 0) continue
        damaged.delete(stream)
        for (const [chunk, bytes] of again.chunks) chunks.set(chunk, bytes)
      }
      return {chunks, damaged}
    },
  }
}
