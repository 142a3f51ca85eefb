// What was prefetched, and what of it somebody has read since: whether prefetching was worth it.

import type {ReadLog} from '../io/read-log.ts'
import {type ChunkMap, chunksOfStream} from './chunk-map.ts'
import type {StreamRange} from './stream-places.ts'
import {DEVICE_BLOCK_SIZE} from './toc-tree.ts'

export interface PrefetchAccount {
  /** Notes streams that were fetched because they might be read. */
  add(range: StreamRange): void
  /** Bytes of those streams in blocks that nobody has read. */
  unread(): number
}

export function createPrefetchAccount(map: ChunkMap, readLog: ReadLog): PrefetchAccount {
  const prefetched = new Set<number>()

  function unreadOf(chunk: number): number {
    const start = map.deviceOffsets[chunk]!
    const last = Math.floor((start + map.sizes[chunk]! - 1) / DEVICE_BLOCK_SIZE)
    let unread = map.sizes[chunk]!
    for (let block = Math.floor(start / DEVICE_BLOCK_SIZE); block <= last; block++) {
      if (readLog.isTouched(block)) unread -= DEVICE_BLOCK_SIZE
    }
    return Math.max(0, unread)
  }

  return {
    add: ({first, last}) => {
      for (let stream = first; stream <= last; stream++) prefetched.add(stream)
    },
    unread: () => {
      let unread = 0
      for (const stream of prefetched) {
        for (const chunk of chunksOfStream(map, stream)) unread += unreadOf(chunk)
      }
      return unread
    },
  }
}
