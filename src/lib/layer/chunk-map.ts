// Which chunks of a layer hold which bytes of its device, and which streams of the blob hold those chunks: flat tables,
// because a layer may have a million chunks.

import {CodedError} from '../errors/coded-error.ts'
import type {DeviceLayout} from './toc-tree.ts'

/** Chunks in the order of the device. Offsets and sizes are bytes. */
export interface ChunkMap {
  readonly count: number
  readonly deviceSize: number
  /** Where on the device each chunk starts, ascending, and its size. */
  readonly deviceOffsets: Float64Array
  readonly sizes: Float64Array
  /** The stream of each chunk, and where in its output the chunk starts. */
  readonly streams: Uint32Array
  readonly innerOffsets: Float64Array
  /** SHA-256 of each chunk, 32 bytes after 32 bytes; undefined for a layer that has none. */
  readonly hashes: Uint8Array | undefined
  /** Streams in the order of the blob: where each starts, and where it has surely ended. */
  readonly streamCount: number
  readonly streamOffsets: Float64Array
  readonly streamEnds: Float64Array
  /** How much of a stream's output is wanted. */
  readonly streamSizes: Float64Array
  /** The chunks of stream `i` are those from `streamChunks[firstChunks[i]]` to before `streamChunks[firstChunks[i + 1]]`. */
  readonly firstChunks: Uint32Array
  readonly streamChunks: Uint32Array
}

/** Bytes of a SHA-256. */
export const HASH_SIZE = 32
const DIGEST_PREFIX = 'sha256:'
/** A stream is decompressed as a whole, in memory. No writer makes larger ones unless told to. */
const MAX_STREAM_SIZE = 256 << 20
/** Flushing and framing can make a stream larger than its contents; by more than this, no encoder does. */
const compressedBound = (size: number) => size * 2 + (64 << 10)

/**
 * The map of a layer. Throws `unsupported` for a layer whose streams are too large to be read a piece at a time;
 * chunks without digests are `corrupt` if `verify` is set.
 */
export function mapChunks(layout: DeviceLayout, where: string, verify: boolean): ChunkMap {
  const chunks = layout.files.flatMap(({file, deviceOffset}) =>
    file.chunks.map(chunk => ({chunk, at: deviceOffset + chunk.chunkOffset, path: file.path})),
  )
  const {count, indexes, offsets, ends} = indexStreams(chunks.map(({chunk}) => chunk))
  const map = {
    count: chunks.length,
    deviceSize: layout.size,
    deviceOffsets: Float64Array.from(chunks, ({at}) => at),
    sizes: Float64Array.from(chunks, ({chunk}) => chunk.size),
    streams: indexes,
    innerOffsets: Float64Array.from(chunks, ({chunk}) => chunk.innerOffset),
    hashes: verify ? new Uint8Array(chunks.length * HASH_SIZE) : undefined,
    streamCount: count,
    streamOffsets: offsets,
    streamEnds: ends,
    streamSizes: new Float64Array(count),
    firstChunks: new Uint32Array(count + 1),
    streamChunks: new Uint32Array(chunks.length),
  }
  for (const [index, {chunk, path}] of chunks.entries()) {
    const stream = indexes[index]!
    map.streamSizes[stream] = Math.max(map.streamSizes[stream]!, chunk.innerOffset + chunk.size)
    map.firstChunks[stream + 1]!++
    if (map.hashes) map.hashes.set(hashOf(chunk.digest, path, where), index * HASH_SIZE)
  }
  for (const [stream, size] of map.streamSizes.entries()) {
    map.streamEnds[stream] = Math.min(
      map.streamEnds[stream]!,
      map.streamOffsets[stream]! + compressedBound(size),
    )
    if (size > MAX_STREAM_SIZE) {
      throw new CodedError('unsupported', `Cannot read ${where} lazily: a stream of it has ${size} bytes`)
    }
  }
  for (let stream = 0; stream < count; stream++) map.firstChunks[stream + 1]! += map.firstChunks[stream]!
  const next = map.firstChunks.slice()
  for (const [index, stream] of indexes.entries()) map.streamChunks[next[stream]!++] = index
  return map
}

/** The chunk that holds byte `offset` of the device, or the last one before it; -1 before the first. */
export function chunkAt(map: ChunkMap, offset: number): number {
  let low = 0
  let high = map.count
  while (low < high) {
    const middle = (low + high) >>> 1
    if (map.deviceOffsets[middle]! <= offset) low = middle + 1
    else high = middle
  }
  return low - 1
}

/** The chunks that have bytes in `length` bytes of the device from `offset`: from the first to the last, or none. */
export function chunksIn(
  map: ChunkMap,
  offset: number,
  length: number,
): {readonly first: number; readonly last: number} {
  let first = chunkAt(map, offset)
  if (first < 0 || map.deviceOffsets[first]! + map.sizes[first]! <= offset) first++
  return {first, last: chunkAt(map, offset + length - 1)}
}

/** The chunks of a stream. */
export function chunksOfStream(map: ChunkMap, stream: number): Uint32Array {
  return map.streamChunks.subarray(map.firstChunks[stream]!, map.firstChunks[stream + 1]!)
}

function indexStreams(chunks: readonly {readonly offset: number; readonly end: number}[]): {
  readonly count: number
  readonly indexes: Uint32Array
  readonly offsets: Float64Array
  readonly ends: Float64Array
} {
  const endOf = new Map(chunks.map(({offset, end}) => [offset, end]))
  const offsets = Float64Array.from(endOf.keys()).sort()
  const indexOf = new Map<number, number>()
  for (const [index, offset] of offsets.entries()) indexOf.set(offset, index)
  return {
    count: offsets.length,
    indexes: Uint32Array.from(chunks, ({offset}) => indexOf.get(offset)!),
    offsets,
    ends: offsets.map(offset => endOf.get(offset)!),
  }
}

function hashOf(digest: string | undefined, path: string, where: string): Uint8Array {
  if (digest === undefined) {
    throw new CodedError(
      'corrupt',
      `Cannot verify ${where}: ${JSON.stringify(path)} has a chunk without a digest`,
    )
  }
  return Buffer.from(digest.slice(DIGEST_PREFIX.length), 'hex')
}
