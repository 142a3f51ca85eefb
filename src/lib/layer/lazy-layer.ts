// A layer that comes as it is read: maps what is read of its device to chunks, fetches the streams that hold them, once
// for all who wait, keeps them, answers.

import {setTimeout as sleep} from 'node:timers/promises'
import {CodedError, describeError, hasCode} from '../errors/coded-error.ts'
import {raceAbort} from '../io/race-abort.ts'
import {createReadLog} from '../io/read-log.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {FetchCause} from '../snapshot/layer-observer.ts'
import {chunksIn, chunksOfStream} from './chunk-map.ts'
import {writeChunks} from './chunk-writer.ts'
import {createDemandWindow} from './demand-window.ts'
import type {FetchQueue} from './fetch-queue.ts'
import {createOutage} from './outage.ts'
import type {LayerData, LazyDevice} from './ports.ts'
import {createPrefetchAccount} from './prefetch-account.ts'
import {createPresentBlocks} from './present-blocks.ts'
import {
  createStreamReader,
  type FetchCall,
  type StreamContents,
  type StreamRange,
  type StreamReaderOptions,
} from './stream-reader.ts'
import {DEVICE_BLOCK_SIZE} from './toc-tree.ts'

/** What a layer has done so far. Sizes are bytes. */
export interface LayerCounters {
  /** Requests to the registry, and what they brought. */
  readonly requests: number
  readonly fetchedBytes: number
  /** Compressed bytes of streams that are kept, out of those of all. */
  readonly keptBytes: number
  readonly totalBytes: number
  /** Bytes of chunks that are kept. */
  readonly presentBytes: number
  readonly errors: number
  readonly lastError: string | undefined
  /** Reads that needed nothing from the registry. */
  readonly hits: number
}

export interface LazyLayerOptions extends Omit<StreamReaderOptions, 'onRequest'> {
  /** Of the device. */
  readonly name: string
  readonly data: LayerData
  readonly queue: FetchQueue
  readonly onComplete: () => void
  /** Told once that what is fetched cannot be kept. */
  readonly onUncached: (error: unknown) => void
}

export interface LazyLayer extends LazyDevice {
  isComplete(): boolean
  counters(): LayerCounters
  /** Bytes that were prefetched, by this object, and that nobody has read yet. */
  prefetchedUnread(): number
  /** Fetches the streams that start in the first `size` bytes of the blob. */
  prefetch(size: number, options: CallOptions): Promise<void>
  /** Fetches all that is missing, when nothing more urgent is to do. Throws at the end if a stream was damaged. */
  fill(options: CallOptions): Promise<void>
  /** Ends all fetches; when it resolves, nothing is written any more. Reads of what is missing fail from then on. */
  close(): Promise<void>
}

/** Compressed bytes of one request for what will be read soon, and for what perhaps never will. */
const PREFETCH_REQUEST = 1 << 20
const FILL_REQUEST = 2 << 20
/** Most decompressed bytes that one request may bring, if it brings more than one stream. */
const MAX_REQUEST_OUTPUT = 16 << 20
/** After which a fetch is given up, milliseconds; who waits for it tries again, if he has not given up himself. */
const TIMEOUTS: Readonly<Record<FetchCause, number>> = {
  metadata: 60_000,
  'on-demand': 300_000,
  prefetch: 120_000,
  background: 300_000,
}
/** A reader waits this long for what is being fetched for nobody in particular; then he asks himself, milliseconds. */
const OVERTAKE_MS = 5_000
/** Between attempts to reach a registry for somebody who waits, milliseconds; doubled each time. */
const MIN_RETRY_DELAY = 250
const MAX_RETRY_DELAY = 5_000

/** Chunks that could not be kept, for those who waited for them. */
type LooseChunks = ReadonlyMap<number, Uint8Array>
const NONE: LooseChunks = new Map()

/** What a request brought beside what was kept. */
interface Fetched extends Pick<StreamContents, 'damaged'> {
  readonly loose: LooseChunks
}

/** A fetch on its way. */
interface Fetch {
  readonly promise: Promise<Fetched>
  readonly cause: FetchCause
  /** By `performance.now()`. */
  readonly started: number
  readonly abort: AbortController
}

export function createLazyLayer(options: LazyLayerOptions): LazyLayer {
  const {map, data, queue} = options
  const blocks = createPresentBlocks(map, data.chunks)
  const window = createDemandWindow()
  /** By stream; and all that have not ended, because one may have overtaken another. */
  const fetching = new Map<number, Fetch>()
  const running = new Set<Fetch>()
  let isClosed = false
  const outage = createOutage(() => performance.now())
  let isUncached = false
  const counted = {requests: 0, fetchedBytes: 0, keptBytes: 0, totalBytes: 0, presentBytes: 0, errors: 0}
  let lastError: string | undefined
  const readLog = createReadLog(map.deviceSize / DEVICE_BLOCK_SIZE)
  const prefetches = createPrefetchAccount(map, readLog)
  const reader = createStreamReader({
    ...options,
    onRequest: bytes => {
      counted.requests++
      counted.fetchedBytes += bytes
    },
  })
  for (let stream = 0; stream < map.streamCount; stream++) {
    counted.totalBytes += compressedSize(stream)
    if (isKept(stream)) counted.keptBytes += compressedSize(stream)
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

  function isComplete(): boolean {
    return data.chunks.count() === map.count
  }

  /** As many wanted neighbours from `first` on, up to `end`, as make a request of about `size` bytes. */
  function rangeFrom(first: number, size: number, end = map.streamCount): StreamRange {
    let last = first
    let output = map.streamSizes[first]!
    while (last + 1 < end && isWanted(last + 1)) {
      output += map.streamSizes[last + 1]!
      if (map.streamEnds[last + 1]! - map.streamOffsets[first]! > size || output > MAX_REQUEST_OUTPUT) break
      last++
    }
    return {first, last}
  }

  function start(range: StreamRange, cause: FetchCause): Promise<Fetched> {
    // Not a caller's signal: others may wait for the same bytes.
    const abort = new AbortController()
    const timer = setTimeout(() => abort.abort(timedOut(range)), TIMEOUTS[cause]).unref()
    const promise = fetchAndKeep(range, {signal: abort.signal, cause}).finally(() => {
      clearTimeout(timer)
      running.delete(fetch)
      for (let stream = range.first; stream <= range.last; stream++) {
        if (fetching.get(stream) === fetch) fetching.delete(stream)
      }
    })
    const fetch: Fetch = {promise, cause, started: performance.now(), abort}
    running.add(fetch)
    for (let stream = range.first; stream <= range.last; stream++) fetching.set(stream, fetch)
    // Whoever waits hears of it; a fetch that nobody waits for any more may fail unheard.
    promise.catch(() => {})
    return promise
  }

  function timedOut({first}: StreamRange): CodedError {
    return new CodedError(
      'unavailable',
      `Cannot fetch byte ${map.streamOffsets[first]} of ${options.where}: it takes too long`,
    )
  }

  async function fetchAndKeep(range: StreamRange, call: FetchCall): Promise<Fetched> {
    try {
      const {written, chunks, damaged} = await queue.withMemory(memoryOf(range), () =>
        reader.read(range, call),
      )
      outage.end()
      for (const error of damaged.values()) countError(error)
      note(written)
      return {loose: await keep(chunks), damaged}
    } catch (error) {
      // An abort has its own reason, whatever was going on.
      const reason = call.signal?.aborted ? call.signal.reason : error
      if (!isClosed) countError(reason)
      throw reason
    }
  }

  /** What reading streams takes: themselves, and what they decompress to. */
  function memoryOf({first, last}: StreamRange): number {
    let bytes = map.streamEnds[last]! - map.streamOffsets[first]!
    for (let stream = first; stream <= last; stream++) bytes += map.streamSizes[stream]!
    return bytes
  }

  function countError(error: unknown): void {
    counted.errors++
    lastError = describeError(error)
  }

  async function keep(found: ReadonlyMap<number, Uint8Array>): Promise<LooseChunks> {
    try {
      note(await writeChunks(map, data, found))
      return NONE
    } catch (error) {
      if (!isUncached) options.onUncached(error)
      isUncached = true
      return found
    }
  }

  /** Takes account of chunks that have been written. */
  function note(written: readonly number[]): void {
    const fresh = written.filter(chunk => !data.chunks.has(chunk))
    if (fresh.length === 0) return
    data.note(fresh)
    for (const chunk of fresh) {
      blocks.add(chunk)
      counted.presentBytes += map.sizes[chunk]!
    }
    for (const stream of new Set(fresh.map(chunk => map.streams[chunk]!))) {
      counted.keptBytes += compressedSize(stream)
    }
    if (isComplete()) options.onComplete()
  }

  async function read(offset: number, length: number, call: CallOptions): Promise<Uint8Array> {
    const {first, last} = chunksIn(map, offset, length)
    const isHit = data.chunks.hasAll(first, last)
    if (length > 0) {
      const end = offset + length - 1
      readLog.note(Math.floor(offset / DEVICE_BLOCK_SIZE), Math.floor(end / DEVICE_BLOCK_SIZE), isHit)
    }
    if (isHit) return data.read(offset, length)
    if (isClosed) throw new CodedError('cancelled', `Cannot read ${options.where}: it is closed`)
    const started = performance.now()
    try {
      const loose = await queue.demand(() => fetchPatiently(first, last, call))
      return loose.size === 0 ? await data.read(offset, length) : await assemble(offset, length, loose)
    } finally {
      const durationMs = performance.now() - started
      options.observer.event('read', {layer: options.layer, durationMs, bytes: length, hit: false})
    }
  }

  /** A registry that cannot be reached may be back before the reader gives up. */
  async function fetchPatiently(first: number, last: number, call: CallOptions): Promise<LooseChunks> {
    const {signal} = call
    if (!signal) return fetchChunks(first, last, call)
    const mayWait = outage.mayWait()
    let unreachable: unknown
    try {
      for (let delay = MIN_RETRY_DELAY; ; delay = Math.min(delay * 2, MAX_RETRY_DELAY)) {
        try {
          return await fetchChunks(first, last, call)
        } catch (error) {
          if (!hasCode(error, 'unavailable')) throw error
          unreachable = error
          if (!mayWait || signal.aborted) throw error
          await sleep(delay, undefined, {signal, ref: false}).catch(() => {
            throw error
          })
        }
      }
    } catch (error) {
      const inVain = !mayWait || (signal.aborted && hasCode(signal.reason, 'unavailable'))
      if (unreachable !== undefined && inVain) outage.begin(unreachable)
      throw error
    }
  }

  /** Fetches chunks that are missing. Resolves to those that could not be kept. */
  async function fetchChunks(first: number, last: number, call: CallOptions): Promise<LooseChunks> {
    const wanted = new Set<number>()
    for (let chunk = first; chunk <= last; chunk++) {
      if (!data.chunks.has(chunk)) wanted.add(map.streams[chunk]!)
    }
    if (wanted.size === 0) return NONE
    const streams = [...wanted].sort((a, b) => a - b)
    const size = window.next(map.streamOffsets[streams[0]!]!, map.streamEnds[streams.at(-1)!]!)
    const pending = streams.map(stream => joinable(stream) ?? start(rangeFrom(stream, size), 'on-demand'))
    const results = await raceAbort(Promise.all(pending), call.signal)
    const loose = new Map<number, Uint8Array>()
    for (const [index, result] of results.entries()) {
      if (result.damaged.has(streams[index]!)) throw result.damaged.get(streams[index]!)
      for (const [chunk, bytes] of result.loose) loose.set(chunk, bytes)
    }
    return loose
  }

  /** What brings `stream` already, unless it is slow and was not started for a reader. */
  function joinable(stream: number): Promise<Fetched> | undefined {
    const fetch = fetching.get(stream)
    if (!fetch || (fetch.cause !== 'on-demand' && performance.now() - fetch.started > OVERTAKE_MS))
      return undefined
    return fetch.promise
  }

  async function assemble(offset: number, length: number, loose: LooseChunks): Promise<Uint8Array> {
    const bytes = await data.read(offset, length)
    const {first, last} = chunksIn(map, offset, length)
    for (let chunk = first; chunk <= last; chunk++) {
      const contents = loose.get(chunk)
      if (!contents) continue
      const at = map.deviceOffsets[chunk]! - offset
      bytes.set(contents.subarray(Math.max(0, -at), length - at), Math.max(0, at))
    }
    return bytes
  }

  async function prefetch(size: number, {signal}: CallOptions): Promise<void> {
    const pending: Promise<void>[] = []
    for (let stream = 0; stream < map.streamCount && map.streamOffsets[stream]! < size; ) {
      const range = rangeFrom(stream, PREFETCH_REQUEST)
      stream = range.last + 1
      pending.push(queue.prefetch(() => fetchWanted(range, signal), {signal}))
    }
    for (const result of await Promise.allSettled(pending)) {
      if (result.status === 'rejected') throw result.reason
    }
  }

  /** Fetches what of `range` nobody has fetched while it waited for its turn. */
  async function fetchWanted({first, last}: StreamRange, signal: AbortSignal | undefined): Promise<void> {
    for (let stream = first; stream <= last; stream++) {
      signal?.throwIfAborted()
      if (!isWanted(stream)) continue
      const range = rangeFrom(stream, PREFETCH_REQUEST, last + 1)
      requireKept(await start(range, 'prefetch'))
      stream = range.last
      prefetches.add(range)
    }
  }

  async function fill(call: CallOptions): Promise<void> {
    const problems: unknown[] = []
    for (let stream = 0; stream < map.streamCount; ) {
      if (!isWanted(stream)) {
        stream++
        continue
      }
      const first = stream
      stream = await queue.background(async () => {
        if (!isWanted(first)) return first + 1
        const range = rangeFrom(first, FILL_REQUEST)
        const fetched = await start(range, 'background')
        requireKept(fetched)
        problems.push(...fetched.damaged.values())
        return range.last + 1
      }, call)
    }
    // What others are fetching.
    await raceAbort(Promise.all([...running].map(({promise}) => promise)), call.signal)
    if (problems.length > 0) throw problems[0]
  }

  /** It is of no use to fetch ahead what cannot be kept. */
  function requireKept({loose}: Fetched): void {
    if (loose.size > 0) throw new CodedError('unavailable', 'Cannot write to the cache')
  }

  async function close(): Promise<void> {
    isClosed = true
    for (const {abort} of running)
      abort.abort(new CodedError('cancelled', `Cannot read ${options.where}: it is closed`))
    await Promise.allSettled([...running].map(({promise}) => promise))
  }

  return {
    name: options.name,
    size: map.deviceSize,
    path: data.path,
    present: blocks.bitmap.buffer,
    readLog: readLog.memory,
    read,
    isComplete,
    counters: () => ({...counted, lastError, hits: readLog.hits()}),
    prefetchedUnread: prefetches.unread,
    prefetch,
    fill,
    close,
  }
}
