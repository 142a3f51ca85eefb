// What is here of a layer: chunks in its data file, blocks of the device that can be read from it, and how much that is.

import {type ChunkMap, chunksIn, chunksOfStream} from './chunk-map.ts'
import {writeChunks} from './chunk-writer.ts'
import type {LayerData} from './ports.ts'
import {createPresentBlocks, type PresentBlocks} from './present-blocks.ts'
import type {StreamRange} from './stream-places.ts'

/** Chunks that could not be kept, for those who waited for them. */
export type LooseChunks = ReadonlyMap<number, Uint8Array>

/** What most requests leave over. */
export const NONE: LooseChunks = new Map()

/** Most decompressed bytes that one request may bring, if it brings more than one stream. */
const MAX_REQUEST_OUTPUT = 16 << 20

export interface LayerContentsOptions {
  readonly map: ChunkMap
  readonly data: LayerData
  readonly onComplete: () => void
  /** Told once that what is fetched cannot be kept. */
  readonly onUncached: (error: unknown) => void
}

export class LayerContents {
  readonly map: ChunkMap
  readonly data: LayerData
  readonly blocks: PresentBlocks
  readonly #options: LayerContentsOptions
  #isUncached = false
  /** Compressed bytes of streams that are kept, out of those of all; bytes of chunks that are kept. */
  keptBytes = 0
  totalBytes = 0
  presentBytes = 0

  constructor(options: LayerContentsOptions) {
    this.#options = options
    this.map = options.map
    this.data = options.data
    this.blocks = createPresentBlocks(this.map, this.data.chunks)
    for (let stream = 0; stream < this.map.streamCount; stream++) {
      this.totalBytes += this.compressedSize(stream)
      if (this.isKept(stream)) this.keptBytes += this.compressedSize(stream)
    }
    for (let chunk = 0; chunk < this.map.count; chunk++) {
      if (this.data.chunks.has(chunk)) this.presentBytes += this.map.sizes[chunk]!
    }
  }

  isComplete(): boolean {
    return this.data.chunks.count() === this.map.count
  }

  /** Whether all chunks of a stream are here. */
  isKept(stream: number): boolean {
    return chunksOfStream(this.map, stream).every(chunk => this.data.chunks.has(chunk))
  }

  /** The streams of which something is missing for the chunks from `first` to `last`, ascending. */
  missingStreams(first: number, last: number): readonly number[] {
    const missing = new Set<number>()
    for (let chunk = first; chunk <= last; chunk++) {
      if (!this.data.chunks.has(chunk)) missing.add(this.map.streams[chunk]!)
    }
    return [...missing].sort((a, b) => a - b)
  }

  /** As many neighbours from `from` on, ahead or back, as `isWanted` and as make a request of about `size` bytes. */
  rangeFrom(
    from: number,
    size: number,
    {
      isWanted,
      step = 1,
      end = this.map.streamCount,
    }: {isWanted: (stream: number) => boolean; step?: 1 | -1; end?: number},
  ): StreamRange {
    let [first, last] = [from, from]
    let output = this.map.streamSizes[from]!
    for (let next = from + step; next >= 0 && next < end && isWanted(next); next += step) {
      output += this.map.streamSizes[next]!
      const wider = {first: Math.min(first, next), last: Math.max(last, next)}
      if (this.bytesOf(wider) > size || output > MAX_REQUEST_OUTPUT) break
      ;({first, last} = wider)
    }
    return {first, last}
  }

  /** Compressed bytes of a range. */
  bytesOf({first, last}: StreamRange): number {
    return this.map.streamEnds[last]! - this.map.streamOffsets[first]!
  }

  compressedSize(stream: number): number {
    return this.bytesOf({first: stream, last: stream})
  }

  /** What reading a range takes: itself, and what it decompresses to. */
  memoryOf(range: StreamRange): number {
    let bytes = this.bytesOf(range)
    for (let stream = range.first; stream <= range.last; stream++) bytes += this.map.streamSizes[stream]!
    return bytes
  }

  /** Writes chunks. Resolves to those that could not be written: there are some as long as the disk is full. */
  async keep(found: LooseChunks): Promise<LooseChunks> {
    try {
      this.note(await writeChunks(this.map, this.data, found))
      return NONE
    } catch (error) {
      if (!this.#isUncached) this.#options.onUncached(error)
      this.#isUncached = true
      return found
    }
  }

  /** Takes account of chunks that have been written. */
  note(written: readonly number[]): void {
    const fresh = written.filter(chunk => !this.data.chunks.has(chunk))
    if (fresh.length === 0) return
    this.data.note(fresh)
    for (const chunk of fresh) {
      this.blocks.add(chunk)
      this.presentBytes += this.map.sizes[chunk]!
    }
    for (const stream of new Set(fresh.map(chunk => this.map.streams[chunk]!))) {
      if (this.isKept(stream)) this.keptBytes += this.compressedSize(stream)
    }
    if (this.isComplete()) this.#options.onComplete()
  }

  /** Bytes of the device, of which everything is here or in `loose`. */
  async read(offset: number, length: number, loose: LooseChunks = NONE): Promise<Uint8Array> {
    const bytes = await this.data.read(offset, length)
    if (loose.size === 0) return bytes
    const {first, last} = chunksIn(this.map, offset, length)
    for (let chunk = first; chunk <= last; chunk++) {
      const contents = loose.get(chunk)
      if (!contents) continue
      const at = this.map.deviceOffsets[chunk]! - offset
      bytes.set(contents.subarray(Math.max(0, -at), length - at), Math.max(0, at))
    }
    return bytes
  }
}
