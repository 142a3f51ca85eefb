// Writing blobs to a registry. Small ones wait in memory and large ones in a nameless file until their digest is known;
// large ones whose digest is known beforehand are streamed in chunks, so that copying needs no disk.

import {randomUUID} from 'node:crypto'
import {type FileHandle, open, unlink} from 'node:fs/promises'
import {join} from 'node:path'
import {createDigester} from '../blob/sha256.ts'
import {CodedError} from '../errors/coded-error.ts'
import type {BlobWriter, CallOptions, WriteHint} from '../oci/content-store.ts'
import type {Digest} from '../oci/digest.ts'
import {ChunkStream} from './chunk-stream.ts'
import type {RepositoryLocation} from './location.ts'
import {type BlobToUpload, type UploadOptions, uploadBlob} from './upload.ts'

export interface BlobWriterOptions extends UploadOptions {
  /** Where blobs of unknown digest wait. */
  readonly spoolDirectory: string
}

type Expected = {readonly digest: Digest; readonly size: number}

/** Bytes read at once from a spool file. */
const READ_SIZE = 1024 * 1024

/** Opens a writer for a blob; where the hint has its digest, the registry is known to lack it. */
export function createBlobWriter(
  location: RepositoryLocation,
  hint: WriteHint,
  options: BlobWriterOptions & CallOptions & {readonly onStored: (digest: Digest) => void},
): BlobWriter {
  return new RegistryBlobWriter(location, hint, options)
}

class RegistryBlobWriter implements BlobWriter {
  readonly #location: RepositoryLocation
  readonly #hint: WriteHint
  readonly #options: Parameters<typeof createBlobWriter>[2]
  readonly #digester = createDigester()
  #size = 0
  /** The first bytes; all of them, while there are no more than a chunk. */
  readonly #memory: Buffer
  #inMemory = 0
  /** One of these has the bytes that are not in memory; the file has those in memory too. */
  #stream: ChunkStream | undefined
  #spool: FileHandle | undefined

  constructor(
    location: RepositoryLocation,
    hint: WriteHint,
    options: Parameters<typeof createBlobWriter>[2],
  ) {
    this.#location = location
    this.#hint = hint
    this.#options = options
    this.#memory = Buffer.allocUnsafe(Math.min(options.chunkSize, hint.size ?? options.chunkSize))
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#options.signal?.throwIfAborted()
    this.#size += bytes.length
    this.#checkSize()
    this.#digester.update(bytes)
    const rest = this.#keep(bytes)
    if (rest.length === 0) return
    if (!this.#stream && !this.#spool) await this.#overflow()
    await (this.#stream?.write(rest) ?? this.#spool!.appendFile(rest))
  }

  async commit(expected: Expected): Promise<void> {
    checkWritten(expected, {digest: this.#digester.digest(), size: this.#size}, this.#location.name)
    if (this.#stream) await this.#stream.finish(expected)
    else await uploadBlob(this.#location, {...expected, ...this.#written()}, this.#options)
    this.#options.onStored(expected.digest)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#spool?.close()
    await this.#stream?.[Symbol.asyncDispose]()
  }

  #checkSize(): void {
    const {size, digest = ''} = this.#hint
    if (size === undefined || this.#size <= size) return
    throw new CodedError(
      'corrupt',
      `Cannot write blob ${digest} to ${this.#location.name}: it has more than its ${size} bytes`,
    )
  }

  /** Takes into memory what fits; the rest is returned. */
  #keep(bytes: Uint8Array): Uint8Array {
    const taken = Math.min(bytes.length, this.#memory.length - this.#inMemory)
    this.#memory.set(bytes.subarray(0, taken), this.#inMemory)
    this.#inMemory += taken
    return bytes.subarray(taken)
  }

  /** Sends the first chunk where the digest is known and the registry takes chunks; else puts it on the disk. */
  async #overflow(): Promise<void> {
    const {digest, size} = this.#hint
    if (digest !== undefined && size !== undefined) {
      this.#stream = await ChunkStream.start(this.#location, this.#memory, this.#options)
      if (this.#stream) return
    }
    this.#spool = await openSpool(this.#options.spoolDirectory)
    await this.#spool.appendFile(this.#memory)
  }

  /** What has been written, for reading it as often as sending it takes. */
  #written(): Pick<BlobToUpload, 'read' | 'isMissing'> {
    const [file, size] = [this.#spool, this.#size]
    const memory = this.#memory.subarray(0, this.#inMemory)
    return {
      read: file
        ? () => readFile(file, size)
        : async function* () {
            yield memory
          },
      isMissing: this.#hint.digest !== undefined && this.#hint.size !== undefined,
    }
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

async function* readFile(file: FileHandle, size: number): AsyncGenerator<Uint8Array> {
  for (let offset = 0; offset < size; ) {
    const part = Buffer.allocUnsafe(Math.min(READ_SIZE, size - offset))
    const {bytesRead} = await file.read(part, 0, part.length, offset)
    if (bytesRead === 0)
      throw new CodedError('internal', `Cannot read the spooled blob: it ends at ${offset}`)
    yield part.subarray(0, bytesRead)
    offset += bytesRead
  }
}
