// Footers of zstd:chunked layers: that of stargz-snapshotter, nerdctl and Podman 4, and that of Podman 5 (containers/storage),
// which grew out of it. Each is the payload of a skippable frame at the end of the blob: little-endian 64-bit numbers and
// a magic number.
//
//   stargz  40 bytes  TOC: offset, compressed size, size; type 1                                      47 6e 55 6c … "GnUlInUx"
//   podman  64 bytes  TOC: offset, compressed size, size; type 1; tar-split: offset, compressed, size   47 4e 55 6c … "GNUlInUx"
//
// Offsets are those of payloads, after the eight bytes of their skippable frames' headers.

import type {Footer} from '../compression/layer-format.ts'
import {SKIPPABLE_HEADER_SIZE} from './skippable-frame.ts'

/** A zstd frame inside of a skippable frame. */
export interface FramePosition {
  /** Where in the blob the zstd frame starts, its size, and that of what it decompresses to. */
  readonly offset: number
  readonly size: number
  readonly rawSize: number
}

export const STARGZ_FOOTER_SIZE = 40
export const PODMAN_FOOTER_SIZE = 64
/** The only kind of TOC that there is: eStargz's JSON, which was called CRFS's. */
export const TOC_TYPE = 1

const STARGZ_MAGIC = 'GnUlInUx'
const PODMAN_MAGIC = 'GNUlInUx'

/** The footer that stargz-snapshotter finds a TOC by. */
export function encodeStargzFooter(toc: FramePosition): Uint8Array {
  return encode([toc.offset, toc.size, toc.rawSize, TOC_TYPE], STARGZ_MAGIC)
}

/** The footer that Podman 5 writes. For tests: we write the other, because Podman goes by the manifest's annotations. */
export function encodePodmanFooter(toc: FramePosition, tarSplit: FramePosition): Uint8Array {
  const {offset, size, rawSize} = tarSplit
  return encode([toc.offset, toc.size, toc.rawSize, TOC_TYPE, offset, size, rawSize], PODMAN_MAGIC)
}

/** Where the TOC is, or undefined when `bytes` are not such a footer. */
export function parseStargzFooter(bytes: Uint8Array): Footer | undefined {
  return parse(bytes, STARGZ_FOOTER_SIZE, STARGZ_MAGIC)
}

export function parsePodmanFooter(bytes: Uint8Array): Footer | undefined {
  return parse(bytes, PODMAN_FOOTER_SIZE, PODMAN_MAGIC)
}

/** A TOC in a skippable frame at `position`, as readers of all formats understand it. */
export function footerOf({offset, size}: Pick<FramePosition, 'offset' | 'size'>): Footer {
  return {tocOffset: offset, tocSize: size, tocHeaderSize: SKIPPABLE_HEADER_SIZE}
}

function encode(numbers: readonly number[], magic: string): Uint8Array {
  const bytes = new Uint8Array(8 * numbers.length + magic.length)
  const view = new DataView(bytes.buffer)
  for (const [index, number] of numbers.entries()) view.setBigUint64(8 * index, BigInt(number), true)
  for (let index = 0; index < magic.length; index++) {
    bytes[8 * numbers.length + index] = magic.charCodeAt(index)
  }
  return bytes
}

function parse(bytes: Uint8Array, footerSize: number, magic: string): Footer | undefined {
  if (bytes.length !== footerSize) return undefined
  if (String.fromCharCode(...bytes.subarray(-magic.length)) !== magic) return undefined
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const [offset, size, , type] = [0, 1, 2, 3].map(index => Number(view.getBigUint64(8 * index, true)))
  if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(size) || type !== TOC_TYPE) return undefined
  return footerOf({offset: offset!, size: size!})
}
