// containerd's content service as a content store.

import {verifyStream} from '../blob/verified-stream.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {CallOptions, ContentInfo, OpenBlob, StoredContent} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {Digest} from '../oci/digest.ts'
import {layerCompressionOf} from '../oci/media-type.ts'
import {readInfo, updateLabels} from './blob-info.ts'
import type {ContainerdClient} from './client.ts'
import {createContentFiles} from './content-files.ts'
import {openContentWriter} from './content-writer.ts'
import {describePlace} from './failure.ts'
import {Content} from './proto/content_pb.ts'
import type {SessionLease} from './session-lease.ts'

/**
 * The content of a namespace. While the lease is held, what is written or found belongs to it. `info` takes a blob of
 * another size than the descriptor's for absent.
 */
export function createContent(client: ContainerdClient, lease: SessionLease): StoredContent {
  const name = describePlace(client)
  const files = createContentFiles(client)
  async function find(digest: Digest, options: CallOptions = {}): Promise<ContentInfo | undefined> {
    // In this order: what is found after the lease knows of it cannot be collected any more.
    await lease.keep('content', digest, options)
    return readInfo(client, digest, options)
  }
  return {
    name,
    find,
    async info({digest, size}, options) {
      const info = await find(digest, options)
      return info?.size === size ? info : undefined
    },
    async open(descriptor, options = {}) {
      const info = await readInfo(client, descriptor.digest, options)
      if (!info) throw missing(descriptor, name)
      if (info.size !== descriptor.size) {
        throw new CodedError(
          'corrupt',
          `Cannot use ${descriptor.digest} in ${name}: it has ${info.size} bytes instead of ${descriptor.size}`,
        )
      }
      return (await files.open(descriptor, options)) ?? openBlob(client, descriptor, name)
    },
    write: (hint, options = {}) => openContentWriter(client, lease, hint, options),
    setLabels: (digest, labels, options = {}) => updateLabels(client, digest, labels, options),
  }
}

/** A lazy pull leaves out the layers that are mounted, which is mostly why one is missing. */
function missing({digest, mediaType}: Descriptor, where: string): CodedError {
  const isLayer = layerCompressionOf(mediaType) !== undefined
  const hint = isLayer ? ': after a lazy pull (rpull) layers are not there; "image pull" brings them' : ''
  return new CodedError('not-found', `Cannot find ${digest} in ${where}${hint}`)
}

function openBlob(client: ContainerdClient, descriptor: Descriptor, where: string): OpenBlob {
  const {digest, size} = descriptor
  async function* chunks(offset: number, length: number, options: CallOptions): AsyncGenerator<Uint8Array> {
    // To containerd a size of zero means everything.
    if (length === 0) return
    const request = {digest, offset: BigInt(offset), size: BigInt(length)}
    const doing = `read ${digest}`
    for await (const {data} of client.stream(Content.method.read, request, {...options, doing})) yield data
  }
  return {
    size,
    async read(offset, length, options = {}) {
      options.signal?.throwIfAborted()
      if (!isRange(offset, length, size)) {
        throw new CodedError(
          'invalid-argument',
          `Cannot read ${length} bytes at offset ${offset} of ${digest} in ${where}: it has ${size}`,
        )
      }
      const bytes = Buffer.allocUnsafe(length)
      let filled = 0
      for await (const chunk of chunks(offset, length, options)) {
        if (filled + chunk.length > length) break
        bytes.set(chunk, filled)
        filled += chunk.length
      }
      if (filled === length) return bytes
      throw new CodedError(
        'corrupt',
        `Cannot read ${length} bytes at offset ${offset} of ${digest} in ${where}: got ${filled}`,
      )
    },
    stream: (options = {}) => verifyStream(chunks(0, size, options), descriptor, where),
    async [Symbol.asyncDispose]() {},
  }
}

function isRange(offset: number, length: number, size: number): boolean {
  return (
    Number.isSafeInteger(offset) &&
    Number.isSafeInteger(length) &&
    offset >= 0 &&
    length >= 0 &&
    offset + length <= size
  )
}
