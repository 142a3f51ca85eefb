// The members that a lazily readable source layer consists of, kept so that those that stay as they are can be moved.

import type {MemberKind, Spool} from '../compression/codec.ts'

/** Members of a source layer. Offsets and sizes are of its blob, `tar…` of what it decompresses to. */
export interface SourceMembers {
  readonly kind: MemberKind
  readonly offsets: readonly number[]
  readonly sizes: readonly number[]
  readonly tarOffsets: readonly number[]
  readonly tarSizes: readonly number[]
  /** The blob's bytes. */
  readonly blob: Spool
}
