// Which parts of an image's files a workload reads: what the kernel reads of the layers' own mounts, put to files.

import {lstat, stat} from 'node:fs/promises'
import {describeError} from '../errors/coded-error.ts'
import {encodeByteText} from '../io/byte-text.ts'
import {type LayerReads, mergeReadRanges, type ReadRange} from '../prefetch/read-ranges.ts'
import type {ImageRootfs} from '../rootfs/image-rootfs.ts'
import {type PageRead, startPageTracer} from '../tracer/page-tracer.ts'

/** A file that was opened: where it is in the merged tree, clean, and the layer that it comes from. */
export interface OpenedFile {
  readonly path: string
  readonly layerIndex: number
  /** As a conversion prioritises it. */
  readonly name: string
}

/** Watches the reads of a root file system's layers. */
export interface ReadWatch {
  /** Why nothing can be told; found out at the start, or at the end. */
  readonly problem: string | undefined
  /** What of `files` was read, for each layer; undefined when that cannot be told. To be called once. */
  finish(files: readonly OpenedFile[]): Promise<readonly LayerReads[] | undefined>
}

/** `directory` is the sandbox's. Where reads cannot be watched there is a `problem`, and no error. */
export async function watchReads(directory: string, {layerPaths, inPlace}: ImageRootfs): Promise<ReadWatch> {
  if (!inPlace) return blindWatch('this kernel cannot mount layers as they are (EROFS in files, Linux 6.12)')
  try {
    const devices = await Promise.all(layerPaths.map(async path => (await stat(path)).dev))
    const tracer = await startPageTracer(directory, devices)
    let problem: string | undefined
    return {
      get problem() {
        return problem
      },
      finish: async files => {
        const pages = await tracer.finish()
        if (!pages) problem = 'the kernel dropped some of what was read'
        return pages && readsOf(files, {layerPaths, devices, pages})
      },
    }
  } catch (error) {
    return blindWatch(describeError(error))
  }
}

function blindWatch(problem: string): ReadWatch {
  return {problem, finish: async () => undefined}
}

async function readsOf(
  files: readonly OpenedFile[],
  {
    layerPaths,
    devices,
    pages,
  }: {
    readonly layerPaths: readonly string[]
    readonly devices: readonly number[]
    readonly pages: readonly PageRead[]
  },
): Promise<readonly LayerReads[]> {
  const byFile = new Map<string, PageRead[]>()
  for (const page of pages) {
    const key = `${page.device} ${page.inode}`
    const known = byFile.get(key)
    if (known) known.push(page)
    else byFile.set(key, [page])
  }
  const reads = layerPaths.map(() => new Map<string, readonly ReadRange[]>())
  for (const {path, layerIndex, name} of files) {
    const {ino, size} = await lstat(
      Buffer.concat([encodeByteText(`${layerPaths[layerIndex]}/`), encodeByteText(path)]),
    )
    const ranges = byFile.get(`${devices[layerIndex]} ${ino}`) ?? []
    const within = ranges.map(({offset, end, atMs}) => ({offset, end: Math.min(end, size), atMs}))
    const merged = mergeReadRanges(within)
    if (merged.length > 0) reads[layerIndex]!.set(name, merged)
  }
  return reads
}
