// Descriptors of this process: layers that would take the last ones are refused, because a daemon without any cannot even be
// asked what is wrong.

import {readdir, readFile} from 'node:fs/promises'
import {CodedError} from '../../lib/errors/coded-error.ts'
import type {LayerCache} from '../../lib/layer/ports.ts'

/** Of an open layer: its data and its journal, and the data once more where they are served. */
const PER_LAYER = 3
/** Kept for callers, registries, threads and files that are open for a moment; a quarter where there are few. */
const MAX_KEPT = 256

export interface DescriptorUsage {
  readonly open: number
  readonly limit: number
}

export async function readDescriptorUsage(): Promise<DescriptorUsage> {
  const open = (await readdir('/proc/self/fd')).length
  // proc_pid_limits(5): name, soft limit, hard limit, unit. Node has raised the soft one to the hard one.
  const [, limit] = /^Max open files\s+(\d+)/m.exec(await readFile('/proc/self/limits', 'utf8')) ?? []
  return {open, limit: limit === undefined ? Number.POSITIVE_INFINITY : Number(limit)}
}

/** `cache`, which opens no layer that this process has too few descriptors for. */
export function sparingDescriptors(
  cache: LayerCache,
  readUsage: () => Promise<DescriptorUsage> = readDescriptorUsage,
): LayerCache {
  let opening = 0
  return {
    find: key => cache.find(key),
    hasBlob: digest => cache.hasBlob(digest),
    remove: key => cache.remove(key),
    add: (key, record, files) => cache.add(key, record, files),
    hasFile: (key, name) => cache.hasFile(key, name),
    file: (key, name, make) => cache.file(key, name, make),
    fileContents: (key, name) => cache.fileContents(key, name),
    open: async (key, size) => {
      opening++
      try {
        const {open, limit} = await readUsage()
        const left = limit - Math.min(MAX_KEPT, limit / 4) - open
        if (opening * PER_LAYER > left) {
          throw new CodedError(
            'unavailable',
            `Cannot open another layer: ${open} files are open, and this process may have ${limit}; raise the limit (LimitNOFILE in the unit)`,
          )
        }
        return await cache.open(key, size)
      } finally {
        opening--
      }
    },
  }
}
