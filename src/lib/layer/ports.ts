// What lazy layers need from outside: somewhere to keep what has been fetched, somewhere to fetch from, something that
// mounts.

import type {ChunkBitmap} from '../io/chunk-bitmap.ts'
import type {ReadLogMemory} from '../io/read-log.ts'
import type {BlobSource, CallOptions} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {DirectoryNode} from '../vfs/file-tree.ts'
import type {LayerRequest} from './layer-request.ts'

/**
 * One layer's data as far as they are on disk. Throws `internal` once they have been disposed, which waits for whatever uses
 * them.
 */
export interface LayerData extends AsyncDisposable {
  /** The file that holds the device; what is not there yet reads as zeros. */
  readonly path: string
  /** The chunks that are there; a bit is set by `note` alone. */
  readonly chunks: ChunkBitmap
  read(offset: number, length: number): Promise<Uint8Array>
  /** Runs `work` with the number of the file, open for writing, which is not closed before `work` has ended. */
  withFd<T>(work: (fd: number) => Promise<T>): Promise<T>
  /** Writes `pieces` one after the other from `offset` on. Throws `unavailable` when the disk is full. */
  write(offset: number, pieces: readonly Uint8Array[]): Promise<void>
  /** Notes that chunks have been written, durably when a crash of the process is meant. */
  note(chunks: readonly number[]): void
  /** Makes what has been noted survive a crash of the machine. */
  sync(): Promise<void>
}

/** What is kept of a layer beside its data. */
export interface LayerRecord {
  readonly blobDigest: Digest
  readonly blobSize: number
  /** The end of the blob, from the TOC on: what opens the layer again without a registry. */
  readonly tail: Uint8Array
  /** The TOC of a layer that keeps it in another image. */
  readonly externalToc: Uint8Array | undefined
}

/** Where layers are kept, by key: letters of file names. */
/** What a cache has let go of. */
export interface PrunedLayers {
  readonly layers: number
  readonly bytes: number
}

export interface LayerCache {
  /**
   * What is kept of a layer, if anything sound; what is damaged is removed. Throws when it cannot be read for other
   * reasons. A layer that was found or added is not evicted for some minutes, so that it can be opened.
   */
  find(key: string): Promise<LayerRecord | undefined>
  /** True when some layer's blob has this digest. */
  hasBlob(digest: Digest): boolean
  /** Removes a layer that turned out to be damaged, unless it is in use. */
  remove(key: string): Promise<void>
  /** Keeps a record, with files that go with the layer, by their names; a record that is there already stays, with its own. */
  add(key: string, record: LayerRecord, files?: ReadonlyMap<string, Uint8Array>): Promise<void>
  /** Opens the data of a layer that has a record. While they are open, the layer is in use and never evicted. */
  open(key: string, size: {readonly deviceSize: number; readonly chunkCount: number}): Promise<LayerData>
  hasFile(key: string, name: string): Promise<boolean>
  /** A file that goes with a layer, made by `make` unless it is there. Resolves to its path. */
  file(key: string, name: string, make: () => Promise<Uint8Array>): Promise<string>
  /** What is in a small file that goes with a layer; undefined when there is none, or not a sound one. */
  fileContents(key: string, name: string): Promise<Uint8Array | undefined>
}

/** A blob whose size became known by reading its end. */
export interface BlobWithTail {
  readonly blob: BlobSource
  readonly tail: Uint8Array
}

/** Where layers come from. */
export interface LayerOrigin {
  /** Opens a layer's blob, and reads its last `tailSize` bytes, or all, in the same round trip. */
  openBlob(request: LayerRequest, tailSize: number, options: CallOptions): Promise<BlobWithTail>
  /** A blob that is known already; nothing is asked until the first read. */
  blob(request: LayerRequest, size: number): BlobSource
  /** The TOC of a layer that keeps it in another image. Throws `not-found`. */
  externalToc(request: LayerRequest, options: CallOptions): Promise<Uint8Array>
}

/** A device whose contents come as they are read; see `LazyLayer`. */
export interface LazyDevice {
  /** A file name of `[0-9a-f-]`, the same after every restart: inode numbers derive from it alone. */
  readonly name: string
  /** Bytes; a multiple of 4096. */
  readonly size: number
  /** The sparse file that blocks which are present are read from. */
  readonly path: string
  /** One bit for each block of 4096 bytes, as `wrapChunkBitmap(present, size / 4096)` reads it; set after the bytes are. */
  readonly present: SharedArrayBuffer
  /** Where READs that are answered from the sparse file are noted. */
  readonly readLog?: ReadLogMemory
  /**
   * Exactly `length` bytes; fetches, verifies and stores what is missing. Whatever it throws, the reader gets EIO. The
   * signal aborts when nobody waits any longer; the call must then end soon.
   */
  read(offset: number, length: number, call: {readonly signal: AbortSignal}): Promise<Uint8Array>
}

/** How a layer is doing. */
export interface LayerState {
  /** Of the layer's blob, whose size and fetched part are in bytes. */
  readonly digest: Digest
  readonly size: number
  readonly fetchedSize: number
  /** Why a read failed last. */
  readonly error: string | undefined
}

/** What a backend mounts. */
export interface MountableLayer {
  readonly device: LazyDevice
  /** Whether its files stand in the order in which a start reads them, those first. */
  readonly isOptimized: boolean
  /** Whether what a start reads of it is known to the chunk, so that reading ahead only brings what it does not. */
  readonly hasPlan: boolean
  /** True once the device's file has everything. */
  isComplete(): boolean
  /** The path of the EROFS image of its metadata. */
  image(options?: CallOptions): Promise<string>
  tree(options?: CallOptions): Promise<DirectoryNode>
  /** How it is doing now. */
  state(): LayerState
}

/** How a layer is mounted: `plain` needs nobody once it is. */
export type MountKind = 'erofs' | 'fuse' | 'plain'

/** Shows layers as file systems. */
export interface MountBackend {
  /** Whether it mounts EROFS images. */
  readonly wantsImages: boolean
  /** Mounts, or takes a mount over that has outlived the last daemon. */
  mount(layer: MountableLayer, mountpoint: string, options: CallOptions): Promise<MountKind>
  /** Lets whoever comes next to `mountpoint` use a layer that has become complete without us, where that can be. */
  settle(layer: MountableLayer, mountpoint: string): Promise<MountKind>
  /** Throws `unavailable` unless the kernel still shows what was mounted at `mountpoint`, and it can be read. */
  check(mountpoint: string): Promise<void>
  /** Calls `listener` with a reason when what is mounted has died: each layer must be mounted again. */
  onLost(listener: (reason: string) => void): void
  /** Unmounts what is at `mountpoint`, if anything. */
  unmount(mountpoint: string): Promise<void>
  /** Forgets a device that no mount uses any more. */
  release(name: string): Promise<void>
  /** After a restart, once every layer is mounted again: answers what was asked meanwhile. */
  resume(): void
  close(how: 'leave' | 'unmount'): Promise<void>
}
