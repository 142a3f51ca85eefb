// Ports for content: where blobs are read from and written to. Registries, OCI layouts and containerd implement them.

import type {Descriptor} from './descriptor.ts'
import type {Digest} from './digest.ts'

export interface CallOptions {
  readonly signal?: AbortSignal | undefined
}

/** Random access to immutable bytes. `size` is in bytes. */
export interface BlobSource {
  readonly size: number
  /**
   * Exactly `length` bytes from `offset`. Throws `invalid-argument` for a range outside the blob, `corrupt` when the
   * source turns out to be shorter, `unavailable` when it cannot be reached. Nothing is verified against a digest.
   */
  read(offset: number, length: number, options?: CallOptions): Promise<Uint8Array>
}

/** A blob opened for reading; the opener disposes it. */
export interface OpenBlob extends BlobSource, AsyncDisposable {
  /**
   * The whole blob from its start. It is hashed on the way: after the last bytes the iteration throws `corrupt`
   * unless digest and size are the descriptor's, so a consumer must not publish anything before the end.
   */
  stream(options?: CallOptions): AsyncIterable<Uint8Array>
  /** The bytes from `offset` on, not verified; only where that is cheaper than to skip those before. */
  streamFrom?(offset: number, options?: CallOptions): AsyncIterable<Uint8Array>
}

/** What a store knows about a blob. */
export interface ContentInfo {
  readonly digest: Digest
  readonly size: number
  readonly labels: Readonly<Record<string, string>>
}

/** What is known about a blob before it is written; `digest` lets a store skip what it has. */
export interface WriteHint {
  readonly mediaType: string
  readonly digest?: Digest
  readonly size?: number
  /** The caller looks at the writer's `offset`, so that it may go on where a killed process stopped. */
  readonly resume?: boolean
}

export interface CommitOptions extends CallOptions {
  readonly labels?: Readonly<Record<string, string>>
}

export interface CopyOptions extends CallOptions {
  /** Told how many bytes have been read; starts anew when they have to be read again. */
  readonly onBytes?: ((doneBytes: number) => void) | undefined
}

/** A blob being written. Disposing it without `commit` leaves nothing behind. */
export interface BlobWriter extends AsyncDisposable {
  /** With `resume`, bytes of the blob that are there already: writing goes on after them. Absent: none. */
  readonly offset?: number
  write(bytes: Uint8Array): Promise<void>
  /**
   * Makes the blob visible under its digest. Throws `corrupt` when what was written is not `expected`.
   * A blob that is already there is no error.
   */
  commit(expected: {readonly digest: Digest; readonly size: number}, options?: CommitOptions): Promise<void>
}

/** Content-addressed blobs. Manifests and configs are blobs like layers. */
export interface ContentStore {
  /** For messages: `oci:/path`, `docker://host/name`, `local store`. */
  readonly name: string
  /** What is known of a blob, or undefined when it is not there. */
  info(descriptor: Descriptor, options?: CallOptions): Promise<ContentInfo | undefined>
  /** Opens a blob; throws `not-found`. */
  open(descriptor: Descriptor, options?: CallOptions): Promise<OpenBlob>
  write(hint: WriteHint, options?: CallOptions): Promise<BlobWriter>
  /**
   * Writes a whole blob, which may be read more than once. Only in stores where this is better than a writer, which
   * gets every byte once: a registry then takes it in one request, and another one after trouble.
   */
  writeFrom?(blob: OpenBlob, descriptor: Descriptor, options?: CopyOptions): Promise<void>
  /** Merges labels into those of an existing blob; a store without labels ignores them. */
  setLabels(digest: Digest, labels: Readonly<Record<string, string>>, options?: CallOptions): Promise<void>
}

/** The content of a store on this machine, which knows its blobs by digest alone. */
export interface StoredContent extends ContentStore {
  /** What is known of the blob of a digest, whatever its size and type, or undefined when it is not there. */
  find(digest: Digest, options?: CallOptions): Promise<ContentInfo | undefined>
}
