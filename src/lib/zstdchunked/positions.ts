// What a manifest says about a zstd:chunked layer: annotations with the places and digests of its TOC and tar-split.
// stargz-snapshotter verifies by its own annotation, as for eStargz, and takes places from the footer.

import {CodedError} from '../errors/coded-error.ts'
import {
  STARGZ_ZSTD_CHECKSUM,
  STARGZ_ZSTD_POSITION,
  STORAGE_TAR_SPLIT_POSITION,
  STORAGE_ZSTD_CHECKSUM,
  STORAGE_ZSTD_POSITION,
  TOC_DIGEST,
} from '../oci/annotations.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {type FramePosition, TOC_TYPE} from './footer.ts'

type Annotations = NonNullable<Descriptor['annotations']>

/** What containers/storage reads a layer by. */
export interface StoragePositions {
  readonly toc: FramePosition
  /** Of the TOC as compressed. */
  readonly tocChecksum: Digest
  /** Layers of before 2023 have none. */
  readonly tarSplit?: FramePosition
}

/** Annotations for containers/storage. */
export function encodeStoragePositions({toc, tocChecksum, tarSplit}: StoragePositions): Annotations {
  return {
    [STORAGE_ZSTD_CHECKSUM]: tocChecksum,
    [STORAGE_ZSTD_POSITION]: `${numbersOf(toc)}:${TOC_TYPE}`,
    ...(tarSplit ? {[STORAGE_TAR_SPLIT_POSITION]: numbersOf(tarSplit)} : {}),
  }
}

/** Annotations for stargz-snapshotter; `tocDigest` is that of the TOC's JSON. */
export function encodeStargzPositions({toc, tocChecksum}: StoragePositions, tocDigest: Digest): Annotations {
  return {
    [TOC_DIGEST]: tocDigest,
    [STARGZ_ZSTD_CHECKSUM]: tocChecksum,
    [STARGZ_ZSTD_POSITION]: `${numbersOf(toc)}:${TOC_TYPE}`,
  }
}

/** What annotations say, or undefined where they say nothing. Throws `corrupt` for what makes no sense. */
export function parseStoragePositions(annotations: Annotations): StoragePositions | undefined {
  const checksum = annotations[STORAGE_ZSTD_CHECKSUM]
  const position = annotations[STORAGE_ZSTD_POSITION]
  if (checksum === undefined || position === undefined) return undefined
  const [toc, type] = parseNumbers(STORAGE_ZSTD_POSITION, position, 4)
  if (!isDigest(checksum)) throw unusable(STORAGE_ZSTD_CHECKSUM, checksum)
  if (type !== TOC_TYPE) throw unusable(STORAGE_ZSTD_POSITION, position)
  const tarSplit = annotations[STORAGE_TAR_SPLIT_POSITION]
  if (tarSplit === undefined) return {toc, tocChecksum: checksum}
  return {toc, tocChecksum: checksum, tarSplit: parseNumbers(STORAGE_TAR_SPLIT_POSITION, tarSplit, 3)[0]}
}

function numbersOf({offset, size, rawSize}: FramePosition): string {
  return `${offset}:${size}:${rawSize}`
}

function parseNumbers(key: string, text: string, count: number): readonly [FramePosition, ...number[]] {
  const numbers = text.split(':').map(part => (/^\d{1,15}$/.test(part) ? Number(part) : Number.NaN))
  const [offset, size, rawSize, ...rest] = numbers
  if (numbers.length !== count || numbers.some(Number.isNaN)) throw unusable(key, text)
  return [{offset: offset!, size: size!, rawSize: rawSize!}, ...rest]
}

function unusable(key: string, value: string): CodedError {
  return new CodedError('corrupt', `Cannot use the annotation "${key}": it is ${JSON.stringify(value)}`)
}
