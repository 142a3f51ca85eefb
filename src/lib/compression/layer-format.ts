// The pair that a lazily readable layer format is made of. Planning, compressing in parallel and reading know nothing of
// a format but this; embedded-TOC eStargz, external TOC and zstd:chunked are implementations.

import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {BulkCodec, MemberKind} from './codec.ts'

/** How a layer is written: members of one kind, and an ending that leads readers to the TOC. */
export interface Compressor {
  readonly memberKind: MemberKind
  readonly level: number
  /** What follows the last member. `tocOffset` is where in the blob it starts; `toc` is the TOC's JSON. */
  finish(toc: Uint8Array, tocOffset: number, codec: BulkCodec): Promise<LayerEnding>
}

export interface LayerEnding {
  /** The rest of the blob, in pieces. */
  readonly blobPieces: readonly Uint8Array[]
  /** What `blobPieces` decompress to: the rest of the layer's tar, which its DiffID covers. */
  readonly tarPieces: readonly Uint8Array[]
  /** A TOC that is kept outside of the layer: a gzip'ed tar, one layer of the TOC image. */
  readonly detachedToc?: Uint8Array
}

/** Where a footer leads. */
export interface Footer {
  /** Where in the blob the TOC starts; undefined when the TOC is not in the blob. */
  readonly tocOffset: number | undefined
  /** Its compressed bytes; default: all up to the footer. */
  readonly tocSize?: number
  /** Bytes just before the TOC that are no member's; default 0. */
  readonly tocHeaderSize?: number
  /** What the manifest says that the compressed TOC is. */
  readonly tocChecksum?: Digest
}

/** How a layer is read. */
export interface Decompressor {
  /** For messages: `eStargz`, `legacy stargz`, … */
  readonly name: string
  readonly memberKind: MemberKind
  readonly footerSize: number
  /** The last `footerSize` bytes of a blob, understood; undefined when they are no footer of this format. */
  parseFooter(bytes: Uint8Array): Footer | undefined
  /**
   * Where the annotations of the layer's descriptor lead, for formats that have them; footers are looked at where they lead
   * nowhere. Throws `corrupt`.
   */
  locateToc?(annotations: NonNullable<Descriptor['annotations']>): Footer | undefined
  /**
   * The TOC's JSON, out of the bytes between `tocOffset` and the footer, decompressed. Throws `corrupt`.
   */
  unwrapToc(bytes: Uint8Array): Uint8Array
}
