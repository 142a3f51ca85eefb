// A repository of a registry as a content store, with its manifests resolved and published by name.

import {CodedError} from '../errors/coded-error.ts'
import {openBytesBlob} from '../io/bytes-blob.ts'
import {digestOf} from '../io/sha256.ts'
import type {BlobWriter, CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {MAX_MANIFEST_SIZE} from '../oci/manifest.ts'
import {openRegistryBlob, type RegistryBlob} from './blob.ts'
import {type BlobTail, fetchBlobTail} from './blob-tail.ts'
import {type BlobWriterOptions, checkWritten, createBlobWriter, createIdleWriter} from './blob-writer.ts'
import type {RepositoryLocation} from './location.ts'
import {type FetchedManifest, fetchManifest, putManifest} from './manifests.ts'
import {isManifestLike, isPresentAt} from './presence.ts'
import {sendBlob} from './send-blob.ts'
import {mountBlob} from './upload.ts'

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
  /** Gives a manifest that is in the repository this tag. */
  tag(root: Descriptor, tag: string, options?: CallOptions): Promise<void>
  /** Writes a manifest under a tag or its digest; resolves to its descriptor. */
  putManifest(
    tagOrDigest: string,
    manifest: {readonly mediaType: string; readonly bytes: Uint8Array},
    options?: CallOptions,
  ): Promise<Descriptor>
}

/** A repository whose location is found when it is first needed. */
export function createRepository(
  name: string,
  locate: (options: CallOptions) => Promise<RepositoryLocation>,
  options: BlobWriterOptions,
): Repository {
  /** Which blobs are there, as far as this session knows: what was asked for or written. */
  const present = new Map<Digest, boolean>()
  /** The manifest handled last: what was resolved is opened next, and what was written last gets the name. */
  let latest: FetchedManifest | undefined

  async function put(
    tagOrDigest: string,
    manifest: {readonly mediaType: string; readonly bytes: Uint8Array},
    call: CallOptions,
  ): Promise<Descriptor> {
    const {mediaType, bytes} = manifest
    await putManifest(await locate(call), tagOrDigest, manifest, call)
    const descriptor = {mediaType, digest: digestOf(bytes), size: bytes.length}
    present.set(descriptor.digest, true)
    latest = {descriptor, bytes}
    return descriptor
  }

  async function manifestBytes(descriptor: Descriptor, call: CallOptions): Promise<Uint8Array> {
    if (latest?.descriptor.digest !== descriptor.digest) {
      latest = await fetchManifest(await locate(call), descriptor.digest, call)
    }
    const {bytes} = latest
    if (bytes.length !== descriptor.size) {
      throw new CodedError(
        'corrupt',
        `Cannot use manifest ${descriptor.digest} of ${name}: it has ${bytes.length} bytes, its descriptor says ${descriptor.size}`,
      )
    }
    return bytes
  }

  async function isPresent(descriptor: Descriptor, call: CallOptions): Promise<boolean> {
    const location = await locate(call)
    const known = present.get(descriptor.digest)
    if (known !== undefined) return known
    const found =
      (await isPresentAt(location, descriptor, call)) ||
      (await mountFromOthers(location, descriptor, options, call))
    present.set(descriptor.digest, found)
    return found
  }

  function writeManifest(mediaType: string, call: CallOptions): BlobWriter {
    return createManifestWriter(name, bytes => put(digestOf(bytes), {mediaType, bytes}, call))
  }

  const content: ContentStore = {
    name,
    async info(descriptor, call = {}) {
      const found = await isPresent(descriptor, call)
      return found ? {digest: descriptor.digest, size: descriptor.size, labels: {}} : undefined
    },
    async open(descriptor, call = {}) {
      if (!isManifestLike(descriptor.mediaType)) return openRegistryBlob(await locate(call), descriptor)
      return openBytesBlob(await manifestBytes(descriptor, call), `the manifest ${descriptor.digest}`)
    },
    async write(hint, call = {}) {
      const {mediaType, digest, size} = hint
      if (isManifestLike(mediaType)) return writeManifest(mediaType, call)
      if (digest && size !== undefined && (await isPresent({mediaType, digest, size}, call))) {
        return createIdleWriter(name)
      }
      const writer = createBlobWriter(await locate(call), hint, {...options, signal: call.signal})
      return {
        ...writer,
        async commit(expected, commitOptions) {
          await writer.commit(expected, commitOptions)
          present.set(expected.digest, true)
        },
      }
    },
    async writeFrom(blob, descriptor, call = {}) {
      if (!isManifestLike(descriptor.mediaType)) {
        await sendBlob(await locate(call), blob, descriptor, {...options, ...call})
        present.set(descriptor.digest, true)
        return
      }
      await using writer = writeManifest(descriptor.mediaType, call)
      for await (const bytes of blob.stream(call)) await writer.write(bytes)
      await writer.commit(descriptor, call)
    },
    // Registries keep no labels.
    setLabels: async () => undefined,
  }

  return {
    name,
    content,
    async resolve(tagOrDigest, call = {}) {
      latest = await fetchManifest(await locate(call), tagOrDigest, call)
      return latest.descriptor
    },
    openBlob: async (descriptor, call = {}) => openRegistryBlob(await locate(call), descriptor),
    readBlobTail: async (digest, length, call = {}) =>
      fetchBlobTail(await locate(call), digest, length, call),
    async tag(root, tag, call = {}) {
      const bytes = await manifestBytes(root, call)
      await put(tag, {mediaType: root.mediaType, bytes}, call)
    },
    putManifest: (tagOrDigest, manifest, call = {}) => put(tagOrDigest, manifest, call),
  }
}

async function mountFromOthers(
  location: RepositoryLocation,
  {mediaType, digest}: Descriptor,
  {mountFrom}: BlobWriterOptions,
  call: CallOptions,
): Promise<boolean> {
  if (isManifestLike(mediaType)) return false
  for (const from of mountFrom) if (await mountBlob(location, {digest, from}, call)) return true
  return false
}

/** A manifest is sent when it is whole; `send` gets bytes whose digest and size are what was committed. */
function createManifestWriter(name: string, send: (bytes: Uint8Array) => Promise<unknown>): BlobWriter {
  const parts: Uint8Array[] = []
  let size = 0
  return {
    async write(part) {
      size += part.length
      if (size > MAX_MANIFEST_SIZE) {
        throw new CodedError(
          'invalid-argument',
          `Cannot write a manifest to ${name}: it exceeds the limit of ${MAX_MANIFEST_SIZE} bytes`,
        )
      }
      parts.push(Uint8Array.from(part))
    },
    async commit(expected) {
      const bytes = Buffer.concat(parts)
      checkWritten(expected, {digest: digestOf(bytes), size}, name)
      await send(bytes)
    },
    [Symbol.asyncDispose]: async () => undefined,
  }
}
