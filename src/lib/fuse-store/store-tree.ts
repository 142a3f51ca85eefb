// What is in a store's file system: few names, each answered when it is asked for.

import type {CallOptions} from '../oci/content-store.ts'

/** The names from the root down; none for the root itself. */
export type StorePath = readonly string[]

/** Something with a name. `mode` has the permission bits; sizes are bytes. */
export type StoreNode =
  | {readonly kind: 'directory'}
  | {readonly kind: 'file'; readonly size: number; readonly mode: number}
  | {readonly kind: 'link'; readonly target: string}

/** Answers for the file system. What it throws is EIO to whoever asks. */
export interface StoreTree {
  /** What is at a path; undefined when nothing is. Looking may take long. */
  look(path: StorePath, options: CallOptions): Promise<StoreNode | undefined>
  /** The names in a directory, as far as they are known. */
  list(path: StorePath): readonly string[]
  /** Bytes of a file: fewer than `size` at its end alone. */
  read(
    path: StorePath,
    range: {readonly offset: number; readonly size: number},
    options: CallOptions,
  ): Promise<Uint8Array>
  /** Somebody tries to make a file, or to remove a directory, which is how users of a store count themselves. */
  make(path: StorePath, options: CallOptions): Promise<void>
  remove(path: StorePath, options: CallOptions): Promise<void>
}
