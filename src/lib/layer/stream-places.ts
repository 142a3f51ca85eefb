// Streams of a layer as the codec wants them described, and what a chunk must be.

import {digestOf} from '../blob/sha256.ts'
import type {StreamPlaces} from '../compression/codec.ts'
import {CodedError} from '../errors/coded-error.ts'
import {type ChunkMap, HASH_SIZE} from './chunk-map.ts'

/** Decompressed bytes of one call to the codec. */
const BATCH_OUTPUT = 2 << 20

/** Streams `first` to `last`, neighbours in the blob. */
export interface StreamRange {
  readonly first: number
  readonly last: number
}

/** Parts of a range, each from a stream to before another, that keep one thread busy for a while each, and several together. */
export function batchesOf(map: ChunkMap, {first, last}: StreamRange): [number, number][] {
  const found: [number, number][] = []
  for (let from = first, end = first; from <= last; from = end) {
    for (let output = 0; end <= last && (end === from || output < BATCH_OUTPUT); end++) {
      output += map.streamSizes[end]!
    }
    found.push([from, end])
  }
  return found
}

/** The streams from `from` to before `end`, in bytes that start at `offset` of the blob. */
export function placesOf(
  map: ChunkMap,
  [from, end]: readonly [number, number],
  offset: number,
): StreamPlaces {
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
    hashes?.set(hashOf(map.hashes!, chunk), at * HASH_SIZE)
  }
  return {streams, chunks, hashes}
}

/** A chunk out of what its stream decompressed to. Throws `corrupt` when it is not what it should be. */
export function verifiedChunk(map: ChunkMap, chunk: number, output: Uint8Array): Uint8Array {
  const start = map.innerOffsets[chunk]!
  const bytes = output.subarray(start, start + map.sizes[chunk]!)
  if (bytes.length !== map.sizes[chunk]!) throw new CodedError('corrupt', 'It is cut short')
  if (map.hashes && digestOf(bytes) !== `sha256:${Buffer.from(hashOf(map.hashes, chunk)).toString('hex')}`) {
    throw new CodedError('corrupt', 'Its contents do not have their digest')
  }
  return bytes
}

function hashOf(hashes: Uint8Array, chunk: number): Uint8Array {
  return hashes.subarray(chunk * HASH_SIZE, (chunk + 1) * HASH_SIZE)
}
