// Writing blobs to a registry. Small ones wait in memory and large ones in a nameless file until their digest is known;
// large ones whose digest is known beforehand are streamed in chunks, so that copying needs no disk.

import {randomUUID} from 'node:crypto'
import {type FileHandle, open, unlink} from 'node:fs/promises'
import {join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {createDigester} from '../io/sha256.ts'
import type {BlobWriter, CallOptions, WriteHint} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import type {RepositoryLocation} from './location.ts'
import {isBlobPresent} from './presence.ts'
import {type ChunkedUpload, mountBlob, startChunkedUpload, uploadWhole} from './upload.ts'

export interface BlobWriterOptions {
  /** Bytes held in memory per blob, and size of a chunk. */
  readonly chunkSize: number
  /** Blobs from this size on are sent in chunks even when they could be sent as one. */
  readonly chunkedFrom: number
  /** Where blobs of unknown digest wait. */
  readonly spoolDirectory: string
  /** Paths of repositories on the same registry that may have the blob. */
  readonly mountFrom: readonly string[]
}

type Expected = {readonly digest: Digest; readonly size: number}

/** Where written bytes go once they do not fit in memory. */
type Overflow =
  | {readonly kind: 'none'}
  | {readonly kind: 'stream'; readonly upload: ChunkedUpload}
  | {readonly kind: 'spool'; readonly file: FileHandle}

/** Bytes read at once from a spool file. */
const READ_SIZE = 1024 * 1024

/** Opens a writer for a blob that the registry does not have, as far as is known. */
export function createBlobWriter(
  location: RepositoryLocation,
  hint: WriteHint,
  options: BlobWriterOptions & CallOptions,
): BlobWriter {
  const {signal, chunkSize} = options
  const digester = createDigester()
  let buffer: Buffer = Buffer.allocUnsafe(Math.min(chunkSize, hint.size ?? chunkSize))
  let buffered = 0
  let size = 0
  let overflow: Overflow = {kind: 'none'}
  let committed = false
  /** The chunk under way in a stream, and the buffer that is free once it has arrived. */
  let sending: Promise<void> = Promise.resolve()
  let spare: Buffer | undefined

  /** Empties the full buffer. */
  async function flush(): Promise<void> {
    const bytes = buffer.subarray(0, buffered)
    if (overflow.kind === 'none') overflow = await chooseOverflow(bytes)
    else if (overflow.kind === 'stream') await sendBehind(overflow.upload, bytes)
    else await overflow.file.appendFile(bytes)
    buffered = 0
  }

  /** Sends a chunk while the next one is collected: neither the source nor the registry waits for the other. */
  async function sendBehind(upload: ChunkedUpload, bytes: Uint8Array): Promise<void> {
    await sending
    sending = upload.append(bytes, {signal})
    // A failure is thrown where the chunk is next awaited.
    sending.catch(() => undefined)
    const free = spare ?? Buffer.allocUnsafe(buffer.length)
    spare = buffer
    buffer = free
  }

  async function chooseOverflow(bytes: Uint8Array): Promise<Overflow> {
    if (hint.digest !== undefined && hint.size !== undefined) {
      const upload = await startStream(bytes)
      if (upload) return {kind: 'stream', upload}
    }
    const file = await openSpool(options.spoolDirectory)
    overflow = {kind: 'spool', file}
    await file.appendFile(bytes)
    return overflow
  }

  /** Begins a chunked upload; undefined when the registry refuses chunks, which it may. */
  async function startStream(first: Uint8Array): Promise<ChunkedUpload | undefined> {
    const upload = await startChunkedUpload(location, {signal})
    try {
      await upload.append(first, {signal})
      return upload
    } catch (error) {
      await upload.cancel()
      if (hasCode(error, 'unsupported', 'invalid-argument', 'not-found')) return undefined
      throw error
    }
  }

  async function send(expected: Expected): Promise<void> {
    const rest = buffer.subarray(0, buffered)
    if (overflow.kind === 'stream') {
      await sending
      if (rest.length > 0) await overflow.upload.append(rest, {signal})
      return overflow.upload.finish(expected, {signal})
    }
    if (hint.digest === undefined && (await isBlobPresent(location, expected, {signal}))) return
    if (await mounted(expected.digest)) return
    if (overflow.kind === 'none') return sendBytes(rest, expected)
    await overflow.file.appendFile(rest)
    return sendFile(overflow.file, expected)
  }

  async function mounted(digest: Digest): Promise<boolean> {
    for (const from of options.mountFrom) {
      if (await mountBlob(location, {digest, from}, {signal})) return true
    }
    return false
  }

  async function sendBytes(bytes: Uint8Array, expected: Expected): Promise<void> {
    if (bytes.length < options.chunkedFrom) return uploadWhole(location, {...expected, body: bytes}, {signal})
    return sendChunks([bytes], expected)
  }

  async function sendFile(file: FileHandle, expected: Expected): Promise<void> {
    if (size >= options.chunkedFrom) return sendChunks(readFile(file, size, chunkSize), expected)
    const body = () => readFile(file, size, READ_SIZE)
    return uploadWhole(location, {...expected, body}, {signal})
  }

  async function sendChunks(
    chunks: Iterable<Uint8Array> | AsyncIterable<Uint8Array>,
    expected: Expected,
  ): Promise<void> {
    const upload = await startChunkedUpload(location, {signal})
    try {
      for await (const chunk of chunks) await upload.append(chunk, {signal})
      await upload.finish(expected, {signal})
    } catch (error) {
      await upload.cancel()
      throw error
    }
  }

  return {
    async write(bytes) {
      signal?.throwIfAborted()
      size += bytes.length
      if (hint.size !== undefined && size > hint.size) {
        throw new CodedError(
          'corrupt',
          `Cannot write blob ${hint.digest ?? ''} to ${location.name}: it has more than its ${hint.size} bytes`,
        )
      }
      digester.update(bytes)
      for (let taken = 0; taken < bytes.length; ) {
        if (buffered === buffer.length) await flush()
        const part = bytes.subarray(taken, taken + buffer.length - buffered)
        buffer.set(part, buffered)
        buffered += part.length
        taken += part.length
      }
    },
    async commit(expected) {
      checkWritten(expected, {digest: digester.digest(), size}, location.name)
      await send(expected)
      committed = true
    },
    async [Symbol.asyncDispose]() {
      if (overflow.kind === 'spool') await overflow.file.close()
      if (overflow.kind === 'stream' && !committed) {
        await sending.catch(() => undefined)
        await overflow.upload.cancel()
      }
    },
  }
}

/** A writer for a blob that is there already: it only checks what it is given. */
export function createIdleWriter(where: string): BlobWriter {
  const digester = createDigester()
  let size = 0
  return {
    async write(bytes) {
      digester.update(bytes)
      size += bytes.length
    },
    commit: async expected => checkWritten(expected, {digest: digester.digest(), size}, where),
    [Symbol.asyncDispose]: async () => undefined,
  }
}

/** Throws `corrupt` unless what was written is what was promised. */
export function checkWritten(expected: Expected, actual: Expected, where: string): void {
  if (actual.digest === expected.digest && actual.size === expected.size) return
  throw new CodedError(
    'corrupt',
    `Cannot write blob ${expected.digest} (${expected.size} bytes) to ${where}: what was written is ${actual.digest} (${actual.size} bytes)`,
  )
}

/** A file without a name, which the kernel removes when it is closed, even by a crash. */
async function openSpool(directory: string): Promise<FileHandle> {
  const path = join(directory, `ctr-remote-upload-${randomUUID()}`)
  const file = await open(path, 'wx+', 0o600)
  try {
    await unlink(path)
    return file
  } catch (error) {
    await file.close()
    throw error
  }
}

async function* readFile(file: FileHandle, size: number, partSize: number): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < size; ) {
    const part = Buffer.allocUnsafe(Math.min(partSize, size - offset))
    const {bytesRead} = await file.read(part, 0, part.length, offset)
    if (bytesRead === 0)
      throw new CodedError('internal', `Cannot read the spooled blob: it ends at ${offset}`)
    yield part.subarray(0, bytesRead)
    offset += bytesRead
  }
}
