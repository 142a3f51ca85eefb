// The blobs and manifests of a repository by digest, as a content store, and what a session knows of them.

import {openBytesBlob} from '../blob/bytes-blob.ts'
import {digestOf} from '../blob/sha256.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {
  BlobWriter,
  CallOptions,
  ContentInfo,
  ContentStore,
  CopyOptions,
  OpenBlob,
  WriteHint,
} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {MAX_MANIFEST_SIZE} from '../oci/manifest.ts'
import {openRegistryBlob} from './blob.ts'
import {type BlobWriterOptions, checkWritten, createBlobWriter, createIdleWriter} from './blob-writer.ts'
import type {RepositoryLocation} from './location.ts'
import {type FetchedManifest, fetchManifest, putManifest} from './manifests.ts'
import {mountBlob} from './mount-blob.ts'
import {isManifestLike, isPresentAt} from './presence.ts'
import {uploadBlob} from './upload.ts'

/** Finds where a repository is. */
export type Locate = (options: CallOptions) => Promise<RepositoryLocation>

/** A manifest to be written. */
export interface ManifestBytes {
  readonly mediaType: string
  readonly bytes: Uint8Array
}

export class RepositoryContent implements ContentStore {
  readonly name: string
  readonly #locate: Locate
  readonly #options: BlobWriterOptions
  /** Which blobs are there, as far as this session knows: what was asked for or written. */
  readonly #present = new Map<Digest, boolean>()
  /** The manifest handled last: what was resolved is opened next, and what was written last gets the name. */
  #latest: FetchedManifest | undefined

  constructor(name: string, locate: Locate, options: BlobWriterOptions) {
    this.name = name
    this.#locate = locate
    this.#options = options
  }

  async info(descriptor: Descriptor, call: CallOptions = {}): Promise<ContentInfo | undefined> {
    const found = await this.#isPresent(descriptor, call)
    return found ? {digest: descriptor.digest, size: descriptor.size, labels: {}} : undefined
  }

  async open(descriptor: Descriptor, call: CallOptions = {}): Promise<OpenBlob> {
    if (!isManifestLike(descriptor.mediaType)) return openRegistryBlob(await this.#locate(call), descriptor)
    return openBytesBlob(await this.readManifest(descriptor, call), `the manifest ${descriptor.digest}`)
  }

  async write(hint: WriteHint, call: CallOptions = {}): Promise<BlobWriter> {
    const {mediaType, digest, size} = hint
    if (isManifestLike(mediaType)) return this.#writeManifest(mediaType, call)
    if (digest && size !== undefined && (await this.#isPresent({mediaType, digest, size}, call))) {
      return createIdleWriter(this.name)
    }
    const onStored = (stored: Digest) => void this.#present.set(stored, true)
    return createBlobWriter(await this.#locate(call), hint, {...this.#options, signal: call.signal, onStored})
  }

  async writeFrom(blob: OpenBlob, descriptor: Descriptor, call: CopyOptions = {}): Promise<void> {
    if (!isManifestLike(descriptor.mediaType)) {
      const {digest, size} = descriptor
      // Whoever copies has asked for it, and for mounting it.
      const upload = {digest, size, read: () => counted(blob, call), isMissing: true}
      await uploadBlob(await this.#locate(call), upload, {...this.#options, signal: call.signal})
      this.#present.set(digest, true)
      return
    }
    await using writer = this.#writeManifest(descriptor.mediaType, call)
    for await (const bytes of blob.stream(call)) await writer.write(bytes)
    await writer.commit(descriptor, call)
  }

  /** Registries keep no labels. */
  async setLabels(): Promise<void> {}

  /** The manifest or index of a tag or digest, fetched and verified; throws `not-found`. */
  async resolve(tagOrDigest: string, call: CallOptions): Promise<Descriptor> {
    this.#latest = await fetchManifest(await this.#locate(call), tagOrDigest, call)
    return this.#latest.descriptor
  }

  async readManifest(descriptor: Descriptor, call: CallOptions): Promise<Uint8Array> {
    if (this.#latest?.descriptor.digest !== descriptor.digest) {
      this.#latest = await fetchManifest(await this.#locate(call), descriptor.digest, call)
    }
    const {bytes} = this.#latest
    if (bytes.length !== descriptor.size) {
      throw new CodedError(
        'corrupt',
        `Cannot use manifest ${descriptor.digest} of ${this.name}: it has ${bytes.length} bytes, its descriptor says ${descriptor.size}`,
      )
    }
    return bytes
  }

  /** Writes a manifest under a tag or its digest. */
  async putManifest(tagOrDigest: string, manifest: ManifestBytes, call: CallOptions): Promise<Descriptor> {
    const {mediaType, bytes} = manifest
    await putManifest(await this.#locate(call), tagOrDigest, manifest, call)
    const descriptor = {mediaType, digest: digestOf(bytes), size: bytes.length}
    this.#present.set(descriptor.digest, true)
    this.#latest = {descriptor, bytes}
    return descriptor
  }

  async #isPresent(descriptor: Descriptor, call: CallOptions): Promise<boolean> {
    const location = await this.#locate(call)
    const known = this.#present.get(descriptor.digest)
    if (known !== undefined) return known
    const {digest, mediaType} = descriptor
    const found =
      (await isPresentAt(location, descriptor, call)) ||
      (!isManifestLike(mediaType) &&
        (await mountBlob(location, {digest, from: this.#options.mountFrom}, call)))
    this.#present.set(digest, found)
    return found
  }

  #writeManifest(mediaType: string, call: CallOptions): BlobWriter {
    return createManifestWriter(this.name, bytes =>
      this.putManifest(digestOf(bytes), {mediaType, bytes}, call),
    )
  }
}

/** The bytes of a blob, telling how many have been taken. */
async function* counted(blob: OpenBlob, call: CopyOptions): AsyncGenerator<Uint8Array> {
  let doneBytes = 0
  for await (const bytes of blob.stream(call)) {
    yield bytes
    doneBytes += bytes.length
    call.onBytes?.(doneBytes)
  }
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
