// A layer that comes as it is read: maps what is read of its device to chunks, fetches the streams that hold them, once
// for all who wait, verifies, keeps, answers.

import type {BulkCodec, MemberKind} from '../compression/codec.ts'
import {CodedError, describeError} from '../errors/coded-error.ts'
import {digestOf} from '../io/sha256.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {FetchCause, LayerObserver} from '../snapshot/layer-observer.ts'
import {type ChunkMap, chunksIn, chunksOfStream} from './chunk-map.ts'
import {createDemandWindow} from './demand-window.ts'
import type {FetchQueue} from './fetch-queue.ts'
import {inflateStream} from './inflate-stream.ts'
import type {LayerData, LazyDevice} from './ports.ts'
import {createPresentBlocks} from './present-blocks.ts'

/** What a layer has done so far. Sizes are bytes. */
export interface LayerCounters {
  /** Requests to the registry, what they were for, and what they brought. */
  readonly requests: number
  readonly fetchedBytes: number
  /** Reads that had to wait for the registry, and for how long in all. */
  readonly demandReads: number
  readonly demandMs: number
  /** Compressed bytes of streams that are kept, out of those of all. */
  readonly keptBytes: number
  readonly totalBytes: number
  /** Bytes of chunks that are kept. */
  readonly presentBytes: number
  readonly errors: number
  readonly lastError: string | undefined
}

export interface LazyLayerOptions {
  /** Of the device. */
  readonly name: string
  /** For messages, and for the observer: the blob's digest. */
  readonly where: string
  readonly layer: string
  readonly blob: BlobSource
  readonly memberKind: MemberKind
  readonly map: ChunkMap
  readonly data: LayerData
  readonly codec: BulkCodec
  readonly queue: FetchQueue
  readonly observer: LayerObserver
  readonly onComplete: () => void
  /** Told once that what is fetched cannot be kept. */
  readonly onUncached: (error: unknown) => void
}

export interface LazyLayer extends LazyDevice {
  isComplete(): boolean
  counters(): LayerCounters
  /** Fetches the streams that start in the first `size` bytes of the blob. */
  prefetch(size: number, options: CallOptions): Promise<void>
  /** Fetches all that is missing, when nothing more urgent is to do. */
  fill(options: CallOptions): Promise<void>
}

/** Compressed bytes of one request for what will be read soon. */
const PREFETCH_REQUEST = 1 << 20
const FILL_REQUEST = 4 << 20
/** Most decompressed bytes that one request may bring, if it brings more than one stream. */
const MAX_REQUEST_OUTPUT = 32 << 20

/** Streams `first` to `last`, neighbours in the blob. */
interface StreamRange {
  readonly first: number
  readonly last: number
}

/** What a request brought, for those who waited for it: beside what was kept, by chunk and by stream. */
interface Fetched {
  /** Chunks that could not be written. */
  readonly loose: ReadonlyMap<number, Uint8Array>
  /** Streams that are not what they should be. */
  readonly damaged: ReadonlyMap<number, unknown>
}

/** Why something is fetched, and until when. */
interface FetchCall extends CallOptions {
  readonly cause: FetchCause
}

/** The chunks of some streams, verified. */
interface Streams {
  readonly chunks: Map<number, Uint8Array>
  readonly damaged: Map<number, unknown>
}

export function createLazyLayer(options: LazyLayerOptions): LazyLayer {
  const {map, data, blob, codec, queue, where} = options
  const blocks = createPresentBlocks(map, data.chunks)
  const window = createDemandWindow()
  const fetching = new Map<number, Promise<Fetched>>()
  let isUncached = false
  const counted = {
    requests: 0,
    fetchedBytes: 0,
    demandReads: 0,
    demandMs: 0,
    keptBytes: 0,
    totalBytes: 0,
    presentBytes: 0,
    errors: 0,
    lastError: undefined as string | undefined,
  }
  for (let stream = 0; stream < map.streamCount; stream++) {
    const size = compressedSize(stream)
    counted.totalBytes += size
    if (isKept(stream)) counted.keptBytes += size
  }
  for (let chunk = 0; chunk < map.count; chunk++) {
    if (data.chunks.has(chunk)) counted.presentBytes += map.sizes[chunk]!
  }

  function compressedSize(stream: number): number {
    return map.streamEnds[stream]! - map.streamOffsets[stream]!
  }

  function isKept(stream: number): boolean {
    return chunksOfStream(map, stream).every(chunk => data.chunks.has(chunk))
  }

  function isWanted(stream: number): boolean {
    return !fetching.has(stream) && !isKept(stream)
  }

  /** As many wanted neighbours from `first` on as make a request of about `size` bytes. */
  function rangeFrom(first: number, size: number): StreamRange {
    let last = first
    let output = map.streamSizes[first]!
    while (last + 1 < map.streamCount && isWanted(last + 1)) {
      output += map.streamSizes[last + 1]!
      if (map.streamEnds[last + 1]! - map.streamOffsets[first]! > size || output > MAX_REQUEST_OUTPUT) break
      last++
    }
    return {first, last}
  }

  function start(range: StreamRange, call: FetchCall): Promise<Fetched> {
    const result = fetchRange(range, call).finally(() => {
      for (let stream = range.first; stream <= range.last; stream++) fetching.delete(stream)
    })
    for (let stream = range.first; stream <= range.last; stream++) fetching.set(stream, result)
    // Whoever waits hears of it; a fetch that nobody waits for any more may fail unheard.
    result.catch(() => {})
    return result
  }

  async function fetchRange(range: StreamRange, call: FetchCall): Promise<Fetched> {
    try {
      const {chunks, damaged} = await fetchStreams(range, call)
      // Once more, each alone: something on the way may have damaged them.
      for (const stream of damaged.keys()) {
        const again = await fetchStreams({first: stream, last: stream}, call)
        for (const [chunk, bytes] of again.chunks) chunks.set(chunk, bytes)
        if (again.damaged.size === 0) damaged.delete(stream)
      }
      for (const error of damaged.values()) countError(error)
      return {loose: await keep(chunks), damaged}
    } catch (error) {
      if (!call.signal?.aborted) countError(error)
      throw error
    }
  }

  function countError(error: unknown): void {
    counted.errors++
    counted.lastError = describeError(error)
  }

  async function fetchStreams({first, last}: StreamRange, call: FetchCall): Promise<Streams> {
    const offset = map.streamOffsets[first]!
    const length = map.streamEnds[last]! - offset
    const bytes = await request(offset, length, call)
    const found: Streams = {chunks: new Map(), damaged: new Map()}
    const unpack = async (stream: number) => {
      const [from, to] = [map.streamOffsets[stream]! - offset, map.streamEnds[stream]! - offset]
      try {
        const wanted = map.streamSizes[stream]!
        const output = await inflateStream(options.memberKind, bytes.subarray(from, to), wanted, codec)
        for (const chunk of chunksOfStream(map, stream)) {
          found.chunks.set(chunk, verified(stream, chunk, output))
        }
      } catch (error) {
        found.damaged.set(stream, error)
      }
    }
    await Promise.all(Array.from({length: last - first + 1}, (_, index) => unpack(first + index)))
    return found
  }

  async function request(offset: number, length: number, {signal, cause}: FetchCall): Promise<Uint8Array> {
    const started = performance.now()
    let received = 0
    counted.requests++
    try {
      const bytes = await blob.read(offset, length, {signal})
      received = length
      return bytes
    } finally {
      counted.fetchedBytes += received
      const durationMs = performance.now() - started
      options.observer.event('requested', {
        layer: options.layer,
        cause,
        durationMs,
        bytes: received,
        failed: received === 0,
      })
    }
  }

  function verified(stream: number, chunk: number, output: Uint8Array): Uint8Array {
    const start = map.innerOffsets[chunk]!
    const bytes = output.subarray(start, start + map.sizes[chunk]!)
    if (bytes.length !== map.sizes[chunk]!) throw damaged(stream, 'it is cut short')
    if (map.hashes) {
      const wanted = map.hashes.subarray(chunk * 32, chunk * 32 + 32)
      if (digestOf(bytes) !== `sha256:${Buffer.from(wanted).toString('hex')}`) {
        throw damaged(stream, 'its contents do not have their digest')
      }
    }
    return bytes
  }

  function damaged(stream: number, problem: string): CodedError {
    return new CodedError(
      'corrupt',
      `Cannot use the stream at byte ${map.streamOffsets[stream]} of ${where}: ${problem}`,
    )
  }

  /** Writes chunks to the data file; when that cannot be, gives them back for those who wait. */
  async function keep(found: ReadonlyMap<number, Uint8Array>): Promise<Fetched['loose']> {
    const chunks = [...found.keys()].filter(chunk => !data.chunks.has(chunk)).sort((a, b) => a - b)
    try {
      for (const run of runsOf(chunks)) await data.write(map.deviceOffsets[run[0]!]!, piecesOf(run, found))
    } catch (error) {
      if (!isUncached) options.onUncached(error)
      isUncached = true
      return found
    }
    data.note(chunks)
    const touched = new Set<number>()
    for (const chunk of chunks) {
      blocks.add(chunk)
      counted.presentBytes += map.sizes[chunk]!
      touched.add(map.streams[chunk]!)
    }
    for (const stream of touched) counted.keptBytes += compressedSize(stream)
    if (chunks.length > 0 && isComplete()) options.onComplete()
    return new Map()
  }

  /** Chunks with nothing of others between them: written at once, with the padding that is between their files. */
  function runsOf(chunks: readonly number[]): number[][] {
    const runs: number[][] = []
    for (const chunk of chunks) {
      const run = runs.at(-1)
      if (run && run.at(-1) === chunk - 1 && run.length < MAX_RUN) run.push(chunk)
      else runs.push([chunk])
    }
    return runs
  }

  function piecesOf(run: readonly number[], found: ReadonlyMap<number, Uint8Array>): Uint8Array[] {
    const pieces: Uint8Array[] = []
    let at = map.deviceOffsets[run[0]!]!
    for (const chunk of run) {
      const padding = map.deviceOffsets[chunk]! - at
      if (padding > 0) pieces.push(PADDING.subarray(0, padding))
      pieces.push(found.get(chunk)!)
      at = map.deviceOffsets[chunk]! + map.sizes[chunk]!
    }
    return pieces
  }

  function isComplete(): boolean {
    return data.chunks.count() === map.count
  }

  async function read(offset: number, length: number, call: CallOptions): Promise<Uint8Array> {
    const {first, last} = chunksIn(map, offset, length)
    if (data.chunks.hasAll(first, last)) return data.read(offset, length)
    const started = performance.now()
    try {
      const loose = await queue.demand(() => fetchChunks(first, last, call))
      return loose.size === 0 ? await data.read(offset, length) : await assemble(offset, length, loose)
    } finally {
      const durationMs = performance.now() - started
      counted.demandReads++
      counted.demandMs += durationMs
      options.observer.event('read', {layer: options.layer, durationMs, bytes: length, hit: false})
    }
  }

  /** Fetches chunks that are missing. Resolves to those that could not be kept. */
  async function fetchChunks(first: number, last: number, call: CallOptions): Promise<Fetched['loose']> {
    const streams = new Set<number>()
    for (let chunk = first; chunk <= last; chunk++) {
      if (!data.chunks.has(chunk)) streams.add(map.streams[chunk]!)
    }
    const sorted = [...streams].sort((a, b) => a - b)
    const size = window.next(map.streamOffsets[sorted[0]!]!, map.streamEnds[sorted.at(-1)!]!)
    const pending = sorted.map(stream => {
      // Not the caller's signal: others may wait for the same bytes.
      return (
        fetching.get(stream) ??
        start(rangeFrom(stream, size), {signal: AbortSignal.timeout(DEMAND_TIMEOUT), cause: 'on-demand'})
      )
    })
    const results = await raceAbort(Promise.all(pending), call.signal)
    const loose = new Map<number, Uint8Array>()
    for (const [index, result] of results.entries()) {
      if (result.damaged.has(sorted[index]!)) throw result.damaged.get(sorted[index]!)
      for (const [chunk, bytes] of result.loose) loose.set(chunk, bytes)
    }
    return loose
  }

  async function assemble(offset: number, length: number, loose: Fetched['loose']): Promise<Uint8Array> {
    const bytes = await data.read(offset, length)
    const {first, last} = chunksIn(map, offset, length)
    for (let chunk = first; chunk <= last; chunk++) {
      const contents = loose.get(chunk)
      if (!contents) continue
      const start = map.deviceOffsets[chunk]! - offset
      bytes.set(contents.subarray(Math.max(0, -start), length - start), Math.max(0, start))
    }
    return bytes
  }

  /** Fetches the wanted streams that start before `end` of the blob, in order, by requests of `size` bytes. */
  async function fetchUpTo(
    end: number,
    size: number,
    take: (range: StreamRange) => Promise<void>,
  ): Promise<void> {
    const pending: Promise<void>[] = []
    for (let stream = 0; stream < map.streamCount && map.streamOffsets[stream]! < end; ) {
      if (!isWanted(stream)) {
        stream++
        continue
      }
      const range = rangeFrom(stream, size)
      pending.push(take(range))
      stream = range.last + 1
    }
    await Promise.all(pending)
  }

  return {
    name: options.name,
    size: map.deviceSize,
    path: data.path,
    present: blocks.bitmap.buffer,
    read,
    isComplete,
    counters: () => ({...counted}),
    prefetch: (size, call) =>
      fetchUpTo(size, PREFETCH_REQUEST, range =>
        queue.prefetch(async () => {
          call.signal?.throwIfAborted()
          await fetchWanted(range, {signal: call.signal, cause: 'prefetch'})
        }),
      ),
    fill: async call => {
      for (let stream = 0; stream < map.streamCount; ) {
        if (!isWanted(stream)) {
          stream++
          continue
        }
        const from = stream
        stream = await queue.background(async () => {
          if (!isWanted(from)) return from + 1
          const range = rangeFrom(from, FILL_REQUEST)
          const {damaged} = await start(range, {signal: call.signal, cause: 'background'})
          for (const error of damaged.values()) throw error
          return range.last + 1
        }, call)
      }
      // What others are fetching.
      await Promise.all(fetching.values())
    },
  }

  /** Fetches what of `range` nobody has fetched while it waited for its turn. */
  async function fetchWanted({first, last}: StreamRange, call: FetchCall): Promise<void> {
    for (let stream = first; stream <= last; ) {
      if (!isWanted(stream)) {
        stream++
        continue
      }
      let end = stream
      while (end < last && isWanted(end + 1)) end++
      await start({first: stream, last: end}, call)
      stream = end + 1
    }
  }
}

/** A fetch that somebody waits for is given up after this, milliseconds; the registry's own retries are shorter. */
const DEMAND_TIMEOUT = 300_000
/** Pieces of one write, with padding between them: IOV_MAX is 1024. */
const MAX_RUN = 500
const PADDING = new Uint8Array(4096)

/** `work`, unless `signal` aborts before. */
async function raceAbort<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return work
  signal.throwIfAborted()
  const aborted = Promise.withResolvers<never>()
  const abort = () => aborted.reject(signal.reason)
  signal.addEventListener('abort', abort, {once: true})
  try {
    return await Promise.race([work, aborted.promise])
  } finally {
    signal.removeEventListener('abort', abort)
  }
}
