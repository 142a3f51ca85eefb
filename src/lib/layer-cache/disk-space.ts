// How much of the disk is for what. Layers are there to be fetched again; containers, and the daemon's own table, need room
// whatever happens.

import {statfsSync} from 'node:fs'

/** Bytes of the file system that `path` is on. */
export interface DiskSpace {
  readonly total: number
  /** What may still be written. */
  readonly free: number
}

/** At once: between the look and the start of what it allows there must be nothing. */
export type ReadDiskSpace = (path: string) => DiskSpace

export const diskSpaceOf: ReadDiskSpace = path => {
  const {bsize, blocks, bavail} = statfsSync(path)
  return {total: bsize * blocks, free: bsize * bavail}
}

/** The most that is kept free of what is fetched ahead: enough for the start of many containers, on disks of any size. */
const MAX_RESERVE = 1 << 30

/** What fetching ahead never touches: a tenth of the disk, a GiB at most. */
export function reserveOf({total}: DiskSpace): number {
  return Math.min(MAX_RESERVE, Math.floor(total / 10))
}

/**
 * How much must be free for layers to be kept that nobody uses: a fifth of the disk. With less the kubelet begins to remove
 * images (`imageGCHighThresholdPercent` 85, `…Low…` 80), and would go on as long as that frees nothing.
 */
export function roomForUnused({total}: DiskSpace): number {
  return Math.floor(total / 5)
}
