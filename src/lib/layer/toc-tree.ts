// A layer's TOC as the tree that is mounted, and the addresses of its files' data on one device.

import {CodedError} from '../errors/coded-error.ts'
import type {LayerFile} from '../estargz/index-toc.ts'
import type {TocEntry} from '../estargz/toc.ts'
import {parseTocTime} from '../estargz/toc-of-plan.ts'
import {decodeBase64} from '../io/base64.ts'
import {canonicalByteText} from '../io/byte-text.ts'
import type {DirectoryNode} from '../vfs/file-tree.ts'
import {placeLayer} from '../vfs/layer-places.ts'
import {type LayerEntry, treeOfLayer} from '../vfs/layer-tree.ts'

/** Data of files start at multiples of this many bytes: the pages in which the kernel caches them. */
export const DEVICE_BLOCK_SIZE = 4096

/** No layer is as large, and what is kept in memory of one grows with it: 32 MiB for this. */
const MAX_DEVICE_SIZE = 2 ** 40

/** A regular file with contents, and where on the device they start. */
export interface DeviceFile {
  readonly file: LayerFile
  readonly deviceOffset: number
}

/** The device of a layer: the data of its files, one after the other in the order of the blob. */
export interface DeviceLayout {
  readonly files: readonly DeviceFile[]
  /** Bytes; a multiple of the block size, and never 0, because no mount takes an empty device. */
  readonly size: number
}

/**
 * Gives the contents of each file their place. The order is the blob's, so that what the kernel reads ahead on the
 * device is what stands next in the blob: prioritised files first.
 */
export function layOutDevice(files: Iterable<LayerFile>): DeviceLayout {
  const withContents = [...files].filter(({chunks}) => chunks.length > 0)
  withContents.sort((left, right) => {
    const [one, other] = [left.chunks[0]!, right.chunks[0]!]
    return one.offset - other.offset || one.innerOffset - other.innerOffset
  })
  let size = 0
  const placed = withContents.map(file => {
    const deviceOffset = size
    size += Math.ceil((file.entry.size ?? 0) / DEVICE_BLOCK_SIZE) * DEVICE_BLOCK_SIZE
    return {file, deviceOffset}
  })
  if (size > MAX_DEVICE_SIZE) {
    throw new CodedError('unsupported', `Cannot mount a layer of ${size} bytes lazily: it is too large`)
  }
  return {files: placed, size: Math.max(size, DEVICE_BLOCK_SIZE)}
}

/**
 * The tree of the layer, from its files in their order. Throws `corrupt` for a layer that containerd could not unpack
 * either.
 */
export function treeOfToc(files: Iterable<LayerFile>, layout: DeviceLayout): DirectoryNode {
  const offsets = new Map<TocEntry, number>()
  for (const {file, deviceOffset} of layout.files) offsets.set(file.entry, deviceOffset)
  const entries = [...files].map(file => describe(file.entry))
  return treeOfLayer(placeLayer(entries).entries, ({source}) => offsets.get(source)!)
}

interface DescribedEntry extends LayerEntry {
  readonly source: TocEntry
}

function describe(entry: TocEntry): DescribedEntry {
  if (entry.type === 'chunk') throw new CodedError('internal', 'Cannot take a chunk for a file')
  return {
    source: entry,
    name: entry.name,
    type: entry.type,
    linkName: entry.linkName ?? '',
    mode: entry.mode ?? 0,
    uid: entry.uid ?? 0,
    gid: entry.gid ?? 0,
    ...timeOf(entry),
    devMajor: entry.devMajor ?? 0,
    devMinor: entry.devMinor ?? 0,
    size: entry.type === 'reg' ? (entry.size ?? 0) : 0,
    xattrs: entry.xattrs && xattrsOf(entry.xattrs),
  }
}

/** A time that is none is the epoch, as it is for a tar without one. */
function timeOf({modtime}: TocEntry): {mtimeSeconds: number; mtimeNanoseconds: number} {
  const {seconds, nanoseconds} = parseTocTime(modtime) ?? {seconds: 0, nanoseconds: 0}
  return {mtimeSeconds: seconds, mtimeNanoseconds: nanoseconds}
}

function xattrsOf(encoded: Readonly<Record<string, string>>): ReadonlyMap<string, Uint8Array> | undefined {
  const xattrs = new Map<string, Uint8Array>()
  for (const [key, value] of Object.entries(encoded)) {
    const name = canonicalByteText(key)
    const bytes = decodeBase64(value)
    if (bytes === undefined) {
      throw new CodedError(
        'corrupt',
        `Cannot read extended attribute ${JSON.stringify(name)}: it is not base64`,
      )
    }
    xattrs.set(name, bytes)
  }
  return xattrs.size > 0 ? xattrs : undefined
}
