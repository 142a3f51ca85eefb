// What a check of a layer found wrong.

/** The parts of a layer that a check looks at. */
export type FindingKind =
  | 'descriptor'
  | 'media-type'
  | 'blob'
  | 'footer'
  | 'toc'
  | 'toc-digest'
  | 'chunk'
  | 'file-digest'
  | 'diff-id'
  | 'uncompressed-size'
  | 'tar'
  | 'tree'
  | 'unpack'
  | 'source'
  | 'tar-split'
  | 'landmark'
  | 'prefetch-plan'
  | 'whiteout'

/** One thing that is wrong. `message` starts with a capital and has no final period. */
export interface Finding {
  readonly kind: FindingKind
  readonly message: string
  /** The file that it is about. */
  readonly path?: string
}
