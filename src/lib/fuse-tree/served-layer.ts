// A layer as a file system of trees serves it, and places in it.

import type {TableEntry} from '../fuse/request-handler.ts'
import type {Passthrough} from './tree-passthrough.ts'
import type {TreeTable} from './tree-table.ts'

/** A layer of the session's table. */
export interface TreeEntry extends TableEntry {
  /** What `encodeTree` made. */
  readonly tree: SharedArrayBuffer
  /** The name of the file in the layer's state directory; undefined for none. */
  readonly stateName: string | undefined
  /** The same for all layers of a session: whether files may be opened for the kernel to read by itself. */
  readonly passthrough: Passthrough | undefined
}

/** A layer as the handler has it. */
export interface ServedLayer {
  readonly id: number
  readonly entry: TreeEntry
  readonly table: TreeTable
  readonly stateName: Buffer | undefined
}

/** An inode of a layer's table, or one of the two for its state. */
export interface Place {
  readonly layer: ServedLayer
  readonly inode: number
}
