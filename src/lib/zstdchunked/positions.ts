// What a manifest says about a zstd:chunked layer: where TOC and tar-split are, and the digest of the TOC as compressed.
// Podman 5 has other keys for it than Podman 4 and stargz-snapshotter. The latter verifies by its own annotation, as for
// eStargz, and takes the place from the footer.

import {CodedError} from '../errors/coded-error.ts'
import {
  OLD_ZSTD_CHUNKED_CHECKSUM,
  OLD_ZSTD_CHUNKED_POSITION,
  TAR_SPLIT_POSITION,
  ZSTD_CHUNKED_CHECKSUM,
  ZSTD_CHUNKED_POSITION,
} from '../oci/annotations.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {type Digest, isDigest} from '../oci/digest.ts'
import {type FramePosition, TOC_TYPE} from './footer.ts'

export type Annotations = NonNullable<Descriptor['annotations']>

/** Where a reader goes who has a layer's descriptor. */
export interface Positions {
  readonly toc: FramePosition
  /** Of the TOC as compressed. */
  readonly tocChecksum: Digest
  /** Without it Podman 5 fetches the layer as a whole. */
  readonly tarSplit?: FramePosition
}

/** Annotations that Podman 5 reads. */
export function encodePositions({toc, tocChecksum, tarSplit}: Positions): Annotations {
  return {
    [ZSTD_CHUNKED_CHECKSUM]: tocChecksum,
    [ZSTD_CHUNKED_POSITION]: `${numbersOf(toc)}:${TOC_TYPE}`,
    ...(tarSplit ? {[TAR_SPLIT_POSITION]: numbersOf(tarSplit)} : {}),
  }
}

/** Annotations that Podman 4 reads. */
export function encodeOldPositions({toc, tocChecksum}: Positions): Annotations {
  return {
    [OLD_ZSTD_CHUNKED_CHECKSUM]: tocChecksum,
    [OLD_ZSTD_CHUNKED_POSITION]: `${numbersOf(toc)}:${TOC_TYPE}`,
  }
}

/** What annotations say, or undefined where they say nothing. Throws `corrupt` for what makes no sense. */
export function parsePositions(annotations: Annotations): Positions | undefined {
  const positions = parseToc(annotations, ZSTD_CHUNKED_CHECKSUM, ZSTD_CHUNKED_POSITION)
  const tarSplit = annotations[TAR_SPLIT_POSITION]
  if (!positions || tarSplit === undefined) return positions
  return {...positions, tarSplit: parseNumbers(TAR_SPLIT_POSITION, tarSplit, 3)[0]}
}

/** As `parsePositions`, from annotations of before. */
export function parseOldPositions(annotations: Annotations): Positions | undefined {
  return parseToc(annotations, OLD_ZSTD_CHUNKED_CHECKSUM, OLD_ZSTD_CHUNKED_POSITION)
}

function parseToc(annotations: Annotations, checksumKey: string, positionKey: string): Positions | undefined {
  const checksum = annotations[checksumKey]
  const position = annotations[positionKey]
  if (checksum === undefined || position === undefined) return undefined
  const [toc, type] = parseNumbers(positionKey, position, 4)
  if (!isDigest(checksum)) throw unusable(checksumKey, checksum)
  if (type !== TOC_TYPE) throw unusable(positionKey, position)
  return {toc, tocChecksum: checksum}
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
