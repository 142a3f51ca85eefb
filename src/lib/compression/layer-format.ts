// The pair that a lazily readable layer format is made of. Planning, compressing in parallel and reading know nothing of
// a format but this; embedded-TOC eStargz, external TOC and zstd:chunked are implementations.

import type {LayerPlan} from '../estargz/plan-layer.ts'
import type {PlacedUnits} from '../estargz/toc-of-plan.ts'
import type {CallOptions} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import type {BulkCodec, MemberKind, Spool, SpoolWriter} from './codec.ts'
import type {JoinedPieces} from './joined-pieces.ts'

/** How a layer is written: members of one kind, a TOC, and an ending that leads readers to it. */
export interface Compressor {
  readonly memberKind: MemberKind
  readonly level: number
  /** Begins a layer, before its members are compressed: what a format needs of the tar besides is made at the same time. */
  begin(layer: LayerToWrite, options?: CallOptions): LayerFinisher
}

/** A layer whose members are about to be compressed. */
export interface LayerToWrite {
  readonly plan: LayerPlan
  /** Largest payload of a chunk, bytes. */
  readonly chunkSize: number
  readonly spool: Spool
  readonly codec: BulkCodec
  /** Where what is too large for memory can be kept. */
  readonly createSpool: () => SpoolWriter
}

/** One layer under way. Disposing waits for what was begun, so that the spool can be released, and frees the ending. */
export interface LayerFinisher extends AsyncDisposable {
  /** What follows the last member, once all have their places. `dataSize` is where in the blob it starts. */
  finish(placed: PlacedUnits, dataSize: number): Promise<LayerEnding>
}

export interface LayerEnding {
  /** Of the TOC's JSON. */
  readonly toc: {readonly digest: Digest; readonly size: number}
  /** The rest of the blob, in pieces. */
  readonly blobPieces: readonly Uint8Array[]
  /** What `blobPieces` decompress to: the rest of the layer's tar, which its DiffID covers. */
  readonly tar: JoinedPieces
  /** What the layer's descriptor tells its readers. */
  readonly annotations: Readonly<Record<string, string>>
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
