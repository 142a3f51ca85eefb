// Ports for images: named root descriptors over content.

import type {CallOptions, ContentStore, StoredContent} from './content-store.ts'
import type {Descriptor} from './descriptor.ts'

/** Where an image comes from. */
export interface ImageSource extends AsyncDisposable {
  /** For messages, with its transport. */
  readonly name: string
  readonly content: ContentStore
  /** The root descriptor (manifest or index); throws `not-found`. */
  resolve(options?: CallOptions): Promise<Descriptor>
}

/** Where an image goes. Content is written first; `publish` gives it its name, and is the only visible change. */
export interface ImageTarget extends AsyncDisposable {
  readonly name: string
  readonly content: ContentStore
  /** Does of `publish` what can be done before; all that is kept of the image, its layers apart, must be there. */
  prepare?(root: Descriptor, options?: CallOptions): Promise<void>
  publish(root: Descriptor, options?: CallOptions): Promise<void>
}

/** A named image of a store; times are RFC 3339. */
export interface ImageRecord {
  readonly name: string
  readonly target: Descriptor
  readonly labels: Readonly<Record<string, string>>
  readonly createdAt: string
  readonly updatedAt: string
}

export interface ImageStore {
  get(name: string, options?: CallOptions): Promise<ImageRecord | undefined>
  list(options?: CallOptions): Promise<readonly ImageRecord[]>
  /** Does of `put` what can be done before an image has its name; it holds as long as the lease under which it was done. */
  link?(target: Descriptor, options?: CallOptions): Promise<void>
  /** Creates or replaces. */
  put(
    name: string,
    target: Descriptor,
    options?: CallOptions & {readonly labels?: Readonly<Record<string, string>>},
  ): Promise<ImageRecord>
  /** Throws `not-found`. With `sync`, returns when unreferenced content is gone. */
  remove(name: string, options?: CallOptions & {readonly sync?: boolean}): Promise<void>
}

/** A place where images live on this machine: an OCI layout directory, or a containerd namespace. */
export interface Store extends AsyncDisposable {
  readonly kind: 'local' | 'containerd'
  /** For messages: the directory, or the socket and namespace. */
  readonly name: string
  readonly content: StoredContent
  readonly images: ImageStore
  /** Keeps everything written until it is disposed safe from garbage collection. */
  lease(options?: CallOptions): Promise<AsyncDisposable>
  /** Removes content that no image and no lease reaches; resolves to the bytes freed. */
  collectGarbage(options?: CallOptions): Promise<number>
}
