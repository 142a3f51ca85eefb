// A TOC made sense of: which files a layer has and where their chunks are, checked against the blob and each other.

import {CodedError} from '../errors/coded-error.ts'
import {encodeByteText} from '../io/byte-text.ts'
import {isDigest} from '../oci/digest.ts'
import {checkPathLimits, cleanPath} from '../tar/path.ts'
import {DEFAULT_TAR_LIMITS} from '../tar/tar-entry.ts'
import {MAX_CHUNK_SIZE} from './plan-layer.ts'
import type {Toc, TocEntry} from './toc.ts'

/** A stretch of a file that is compressed, fetched and verified as one. */
export interface Chunk {
  /** Where in the file it starts, and its size. */
  readonly chunkOffset: number
  readonly size: number
  /** The blob's bytes from `offset` to before `end` hold the stream it is in, from `innerOffset` of its output on. */
  readonly offset: number
  readonly innerOffset: number
  readonly end: number
  /** Undefined in legacy layers, which cannot be verified. */
  readonly digest: string | undefined
}

/** A file of the layer. */
export interface LayerFile {
  /** Clean, relative; empty for the root. */
  readonly path: string
  readonly entry: TocEntry
  /** In the file's order; empty unless it is a regular file with contents. */
  readonly chunks: readonly Chunk[]
}

/**
 * All files in the order of the layer, those that a later one replaces included. `dataEnd` is where in the blob the
 * members of files end. Throws `corrupt` for a TOC that contradicts itself or the blob; `where` names it.
 */
export function indexToc(toc: Toc, dataEnd: number, where: string): LayerFile[] {
  const ends = streamEnds(toc, dataEnd, where)
  const files: LayerFile[] = []
  for (let index = 0; index < toc.entries.length; ) {
    const entry = toc.entries[index]!
    const {path, described} = placeOf(entry, where)
    if (entry.type === 'chunk') throw wrong(described, 'it is a chunk of no file')
    const parts = [entry]
    for (index++; toc.entries[index]?.type === 'chunk'; index++) parts.push(toc.entries[index]!)
    const chunks = entry.type === 'reg' && entry.size ? chunksOf(parts, entry.size, ends, described) : []
    if (chunks.length === 0 && parts.length > 1) throw wrong(described, 'it has chunks but no contents')
    files.push({path, entry, chunks})
  }
  return files
}

/** Files by path, in the order of the layer; of several with one path the last. */
export function filesByPath(files: readonly LayerFile[]): Map<string, LayerFile> {
  const byPath = new Map<string, LayerFile>()
  for (const file of files) {
    byPath.delete(file.path)
    byPath.set(file.path, file)
  }
  return byPath
}

/** For the offset of each stream, where the next one starts. */
function streamEnds(toc: Toc, dataEnd: number, where: string): ReadonlyMap<number, number> {
  const offsets = new Set<number>()
  for (const entry of toc.entries) {
    if (entry.type !== 'chunk' && !(entry.type === 'reg' && entry.size)) continue
    const offset = entry.offset ?? 0
    if (offset >= dataEnd)
      throw wrong(placeOf(entry, where).described, `its offset ${offset} is outside of the layer`)
    offsets.add(offset)
  }
  const sorted = Float64Array.from(offsets).sort()
  const ends = new Map<number, number>()
  for (const [index, offset] of sorted.entries()) ends.set(offset, sorted[index + 1] ?? dataEnd)
  return ends
}

function chunksOf(
  parts: readonly TocEntry[],
  fileSize: number,
  ends: ReadonlyMap<number, number>,
  where: string,
): Chunk[] {
  let covered = 0
  const chunks = parts.map(part => {
    const chunkOffset = part.chunkOffset ?? 0
    const size = part.chunkSize || fileSize - chunkOffset
    if (part.name !== parts[0]!.name) throw wrong(where, `a chunk of ${JSON.stringify(part.name)} follows it`)
    if (chunkOffset !== covered || size <= 0 || covered + size > fileSize) {
      throw wrong(where, 'its chunks do not follow each other')
    }
    if (size > MAX_CHUNK_SIZE) {
      throw new CodedError(
        'unsupported',
        `Cannot use ${where}: a chunk is larger than ${MAX_CHUNK_SIZE} bytes`,
      )
    }
    covered += size
    const digest = part.chunkDigest || (parts.length === 1 ? part.digest : undefined)
    if (digest !== undefined && !isDigest(digest)) throw wrong(where, 'the digest of a chunk is not valid')
    const offset = part.offset ?? 0
    return {chunkOffset, size, offset, innerOffset: part.innerOffset ?? 0, end: ends.get(offset)!, digest}
  })
  if (covered !== fileSize) throw wrong(where, `its chunks have ${covered} bytes instead of ${fileSize}`)
  return chunks
}

function placeOf(entry: TocEntry, where: string): {readonly path: string; readonly described: string} {
  const described = `${where}, entry ${JSON.stringify(entry.name)}`
  const path = cleanPath(entry.name)
  if (path === undefined) throw wrong(described, 'its name leaves the layer')
  checkPathLimits(path, DEFAULT_TAR_LIMITS, described)
  const {pathSize} = DEFAULT_TAR_LIMITS
  if (entry.linkName && encodeByteText(entry.linkName).length > pathSize) {
    throw new CodedError('unsupported', `Cannot use ${described}: its link is longer than ${pathSize} bytes`)
  }
  return {path, described}
}

function wrong(where: string, problem: string): CodedError {
  return new CodedError('corrupt', `Cannot use ${where}: ${problem}`)
}
