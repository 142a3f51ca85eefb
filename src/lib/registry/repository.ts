// A repository of a registry as a content store, with its manifests resolved and published by name.

import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {askRepository, type Question} from './ask.ts'
import {openRegistryBlob, type RegistryBlob} from './blob.ts'
import {type BlobTail, fetchBlobTail} from './blob-tail.ts'
import type {BlobWriterOptions} from './blob-writer.ts'
import type {HttpResponse} from './http.ts'
import {type Locate, type ManifestBytes, RepositoryContent} from './repository-content.ts'

export interface Repository {
  /** `docker://host/path`. */
  readonly name: string
  /**
   * Blobs and manifests by digest. Opening a blob makes no request: `not-found` is thrown by its first read. In a
   * repository that is written to, `info` mounts a blob that a repository of `mountFrom` has, so that nobody needs to
   * read it.
   */
  readonly content: ContentStore
  /** The manifest or index of a tag or digest, fetched and verified; throws `not-found`. */
  resolve(tagOrDigest: string, options?: CallOptions): Promise<Descriptor>
  /** A blob, for reading by ranges. */
  openBlob(descriptor: Descriptor, options?: CallOptions): Promise<RegistryBlob>
  /** The size of a blob, and its last `length` bytes or fewer, in one request; nothing is verified. */
  readBlobTail(digest: Digest, length: number, options?: CallOptions): Promise<BlobTail>
  /** Asks for anything below the repository's path; resolves with whatever answer the origin gives, unverified. */
  ask(question: Question, options?: CallOptions): Promise<HttpResponse>
  /** Gives a manifest that is in the repository this tag. */
  tag(root: Descriptor, tag: string, options?: CallOptions): Promise<void>
  /** Writes a manifest under a tag or its digest; resolves to its descriptor. */
  putManifest(tagOrDigest: string, manifest: ManifestBytes, options?: CallOptions): Promise<Descriptor>
}

/** A repository whose location is found when it is first needed. */
export function createRepository(name: string, locate: Locate, options: BlobWriterOptions): Repository {
  const content = new RepositoryContent(name, locate, options)
  return {
    name,
    content,
    resolve: (tagOrDigest, call = {}) => content.resolve(tagOrDigest, call),
    openBlob: async (descriptor, call = {}) => openRegistryBlob(await locate(call), descriptor),
    readBlobTail: async (digest, length, call = {}) =>
      fetchBlobTail(await locate(call), digest, length, call),
    ask: async (question, call = {}) => askRepository(await locate(call), question, call),
    async tag(root, tag, call = {}) {
      const bytes = await content.readManifest(root, call)
      await content.putManifest(tag, {mediaType: root.mediaType, bytes}, call)
    },
    putManifest: (tagOrDigest, manifest, call = {}) => content.putManifest(tagOrDigest, manifest, call),
  }
}
