// A blob that is a file, or a stretch of one.

import {type FileHandle, open} from 'node:fs/promises'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import type {BlobSource, CallOptions, OpenBlob} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import {verifyStream} from './verified-stream.ts'

/** Bytes read at once when a blob is streamed: large enough for few calls, small enough for many streams. */
const STREAM_CHUNK_SIZE = 512 * 1024

export interface FileBlobOptions {
  /** For messages. */
  readonly where: string
  /** Where the blob starts in the file, bytes; without it the blob is the whole file. */
  readonly offset?: number
}

/** Opens a blob kept in a file. Throws `not-found`, and `corrupt` when the file is not of the right size. */
export async function openFileBlob(
  path: string,
  descriptor: Pick<Descriptor, 'digest' | 'size'>,
  options: FileBlobOptions,
): Promise<OpenBlob> {
  const file = await openToRead(path, descriptor, options.where)
  try {
    const {size} = await file.stat()
    const start = options.offset ?? 0
    const present = options.offset === undefined ? size : Math.min(descriptor.size, size - start)
    if (present !== descriptor.size) {
      throw new CodedError(
        'corrupt',
        `Cannot use ${descriptor.digest} in ${options.where}: it has ${present} bytes instead of ${descriptor.size}`,
      )
    }
    return fileBlob(file, start, descriptor, options.where)
  } catch (error) {
    await file.close()
    throw error
  }
}

/** Opens a whole file whose digest nobody knows. Throws `not-found`. */
export async function openFile(path: string): Promise<BlobSource & AsyncDisposable> {
  const file = await open(path, 'r')
  const {size} = await file.stat().catch(async error => {
    await file.close()
    throw error
  })
  return {
    size,
    async read(offset, length, {signal} = {}) {
      signal?.throwIfAborted()
      checkRange(offset, length, size, path)
      return readFully(file, offset, length, path)
    },
    [Symbol.asyncDispose]: () => file.close(),
  }
}

/** Exactly `length` bytes from `offset` of a file; throws `corrupt` when it ends before. */
export async function readFully(
  file: FileHandle,
  offset: number,
  length: number,
  where: string,
): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length)
  for (let filled = 0; filled < length; ) {
    const {bytesRead} = await file.read(bytes, filled, length - filled, offset + filled)
    if (bytesRead === 0) {
      throw new CodedError(
        'corrupt',
        `Cannot read ${length} bytes at offset ${offset} of ${where}: it ends after ${filled} of them`,
      )
    }
    filled += bytesRead
  }
  return bytes
}

function fileBlob(
  file: FileHandle,
  start: number,
  descriptor: Pick<Descriptor, 'digest' | 'size'>,
  where: string,
): OpenBlob {
  const {digest, size} = descriptor
  const name = `${digest} in ${where}`
  async function* chunks({signal}: CallOptions): AsyncGenerator<Uint8Array> {
    for (let offset = 0; offset < size; offset += STREAM_CHUNK_SIZE) {
      signal?.throwIfAborted()
      yield await readFully(file, start + offset, Math.min(STREAM_CHUNK_SIZE, size - offset), name)
    }
  }
  return {
    size,
    async read(offset, length, {signal} = {}) {
      signal?.throwIfAborted()
      checkRange(offset, length, size, name)
      return readFully(file, start + offset, length, name)
    },
    stream: (options = {}) => verifyStream(chunks(options), descriptor, where),
    [Symbol.asyncDispose]: () => file.close(),
  }
}

function checkRange(offset: number, length: number, size: number, name: string): void {
  const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length) && offset >= 0 && length >= 0
  if (isRange && offset + length <= size) return
  throw new CodedError(
    'invalid-argument',
    `Cannot read ${length} bytes at offset ${offset} of ${name}: it has ${size}`,
  )
}

async function openToRead(
  path: string,
  {digest}: Pick<Descriptor, 'digest'>,
  where: string,
): Promise<FileHandle> {
  try {
    return await open(path, 'r')
  } catch (cause) {
    throw hasCode(cause, 'not-found')
      ? new CodedError('not-found', `Cannot find ${digest} in ${where}`, {cause})
      : cause
  }
}
