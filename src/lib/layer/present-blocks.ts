// Which blocks of a device can be read from its file: those of which every chunk is there.

import {type ChunkBitmap, createChunkBitmap} from '../io/chunk-bitmap.ts'
import {type ChunkMap, chunksIn} from './chunk-map.ts'
import {DEVICE_BLOCK_SIZE} from './toc-tree.ts'

/** The blocks of a device, as far as `chunks` are there. */
export interface PresentBlocks {
  readonly bitmap: ChunkBitmap
  /** To be called when a chunk has come, after its bit in `chunks` has been set. */
  add(chunk: number): void
}

export function createPresentBlocks(map: ChunkMap, chunks: ChunkBitmap): PresentBlocks {
  const bitmap = createChunkBitmap(map.deviceSize / DEVICE_BLOCK_SIZE)

  /** A block at the edge of a chunk may hold the ends of others. */
  function addIfWhole(block: number): void {
    const {first, last} = chunksIn(map, block * DEVICE_BLOCK_SIZE, DEVICE_BLOCK_SIZE)
    if (chunks.hasAll(first, last)) bitmap.add(block)
  }

  function add(chunk: number): void {
    const start = map.deviceOffsets[chunk]!
    const first = Math.floor(start / DEVICE_BLOCK_SIZE)
    const last = Math.floor((start + map.sizes[chunk]! - 1) / DEVICE_BLOCK_SIZE)
    for (let block = first + 1; block < last; block++) bitmap.add(block)
    addIfWhole(first)
    if (last > first) addIfWhole(last)
  }

  for (let chunk = 0; chunk < map.count; chunk++) if (chunks.has(chunk)) add(chunk)
  // The one block of a device without data.
  if (map.count === 0) bitmap.add(0)
  return {bitmap, add}
}
