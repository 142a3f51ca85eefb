// How layers are to be written: what commands ask for, and what writers read.

/** Sizes are in bytes; 0 stands for the format's default. */
export type LayerFormat = LazyFormat | PlainFormat

/** Formats that are read lazily. */
export type LazyFormat = EstargzFormat | ZstdChunkedFormat

export interface EstargzFormat {
  readonly kind: 'estargz'
  /** On zlib's scale, 0–9, or libdeflate's own 10–12. */
  readonly level: number
  /** Largest payload of a chunk. */
  readonly chunkSize: number
  /** Least compressed size of a stream; 0: a stream per chunk. */
  readonly minChunkSize: number
  /**
   * Where the TOC goes: into the layer, or outside, where the caller must put what `detachedToc` of each result holds;
   * `outside-lossless` keeps the tar, and so the DiffID, as it is, with nothing prioritised.
   */
  readonly toc: 'inside' | 'outside' | 'outside-lossless'
}

export interface ZstdChunkedFormat {
  readonly kind: 'zstdchunked'
  /** 1–22. */
  readonly level: number
  /** Largest payload of a chunk. */
  readonly chunkSize: number
  /** Whose annotations the layers get. */
  readonly dialect: 'podman' | 'stargz'
}

/** The tar as it is, bare, or compressed in one piece. */
export interface PlainFormat {
  readonly kind: 'plain'
  readonly compression: 'none' | 'gzip' | 'zstd'
  /** Of zstd, 1–22; gzip has one level. */
  readonly level: number
}
