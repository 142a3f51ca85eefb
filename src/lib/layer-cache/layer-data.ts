// The data of one layer on disk: a sparse file, and the journal of what is in it.

import {constants} from 'node:fs'
import {type FileHandle, open, readdir, rm} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import pLimit from 'p-limit'
import {writeFully} from '../blob/write-fully.ts'
import {CodedError, codeOf, describeError, hasCode} from '../errors/coded-error.ts'
import {type ChunkBitmap, createChunkBitmap} from '../io/chunk-bitmap.ts'
import {TaskScope} from '../io/task-scope.ts'
import type {LayerData} from '../layer/ports.ts'
import {type ChunkJournal, openChunkJournal} from './chunk-journal.ts'

const DATA = 'data'
const JOURNAL = 'journal'

export interface OpenLayerData {
  /** The layer's, which must be there. */
  readonly directory: string
  readonly deviceSize: number
  readonly chunkCount: number
  /** The kernel's boot id. */
  readonly bootId: string
  /** Called when the data have been disposed. */
  readonly release: () => void
  /** Called when the disk is full, before something is written once more. */
  readonly onFull: () => Promise<void>
}

/** Opens a layer's data, made where they are missing; data of another size are dropped. */
export async function openLayerData(options: OpenLayerData): Promise<LayerData> {
  const {directory, deviceSize, chunkCount, bootId} = options
  const path = join(directory, DATA)
  const journalPath = join(directory, JOURNAL)
  const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600)
  try {
    // A file of another size holds something else, so its journal says nothing.
    if ((await file.stat()).size !== deviceSize) {
      await rm(journalPath, {force: true})
      await file.truncate(0)
      await file.truncate(deviceSize)
    }
    const chunks = createChunkBitmap(chunkCount)
    const journal = await openChunkJournal(journalPath, chunkCount, bootId, chunk => chunks.add(chunk))
    return new DataFile(path, {...options, file, journal, chunks})
  } catch (error) {
    await file.close()
    throw error
  }
}

class DataFile implements LayerData {
  readonly path: string
  readonly chunks: ChunkBitmap
  readonly #file: FileHandle
  readonly #journal: ChunkJournal
  readonly #options: Pick<OpenLayerData, 'release' | 'onFull'>
  /** All that uses the file. Once that is closed, its number may be another file's. */
  readonly #uses = new TaskScope()
  readonly #oneSyncAtATime = pLimit(1)
  #isRecordSynced = false

  constructor(
    path: string,
    parts: Pick<OpenLayerData, 'release' | 'onFull'> & {
      readonly file: FileHandle
      readonly journal: ChunkJournal
      readonly chunks: ChunkBitmap
    },
  ) {
    this.path = path
    this.chunks = parts.chunks
    this.#file = parts.file
    this.#journal = parts.journal
    this.#options = parts
  }

  withFd<T>(work: (fd: number) => Promise<T>): Promise<T> {
    return this.#uses.run(() => work(this.#file.fd))
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.#uses.run(() => readFully(this.#file, offset, length, this.path))
  }

  write(offset: number, pieces: readonly Uint8Array[]): Promise<void> {
    return this.#uses.run(() => this.#write(offset, pieces))
  }

  note(indexes: readonly number[]): void {
    this.#uses.signal.throwIfAborted()
    for (const index of indexes) {
      this.chunks.add(index)
      // What cannot be noted is fetched again after a restart.
      this.#journal.append(index).catch(() => {})
    }
  }

  sync(): Promise<void> {
    return this.#uses.run(() => this.#oneSyncAtATime(() => this.#sync()))
  }

  async #write(offset: number, pieces: readonly Uint8Array[]): Promise<void> {
    try {
      await writePieces(this.#file, offset, pieces, this.path)
    } catch (error) {
      if (!hasCode(error, 'unavailable')) throw error
      await this.#options.onFull()
      await writePieces(this.#file, offset, pieces, this.path)
    }
  }

  async #sync(): Promise<void> {
    const directory = dirname(this.path)
    // Data are of no use without what says whose they are.
    if (!this.#isRecordSynced) await syncRecord(directory)
    this.#isRecordSynced = true
    await this.#journal.sync(() => this.#file.datasync())
    await syncPath(directory)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#uses.signal.aborted) return
    const closed = new CodedError('internal', `Cannot use ${JSON.stringify(this.path)}: it is closed`)
    // A mark must not be written into what may come to this place next, nor data into what gets the file's number.
    await this.#uses.close(closed)
    try {
      await this.#journal.close()
    } finally {
      await this.#file.close()
      this.#options.release()
    }
  }
}
/** Makes what is beside the data, and the directory's name, survive a crash of the machine. */
async function syncRecord(directory: string): Promise<void> {
  const names = (await readdir(directory)).filter(name => name !== DATA && !name.startsWith(JOURNAL))
  await Promise.all(names.map(name => syncPath(join(directory, name))))
  await syncPath(directory)
  await syncPath(dirname(directory))
}

async function syncPath(path: string): Promise<void> {
  let file: FileHandle
  try {
    file = await open(path, 'r')
  } catch (error) {
    // A file that has just got its name.
    if (hasCode(error, 'not-found')) return
    throw error
  }
  try {
    await file.sync()
  } finally {
    await file.close()
  }
}

async function readFully(
  file: FileHandle,
  offset: number,
  length: number,
  path: string,
): Promise<Uint8Array> {
  const bytes = Buffer.allocUnsafe(length)
  for (let done = 0; done < length; ) {
    const {bytesRead} = await file.read(bytes, done, length - done, offset + done)
    if (bytesRead === 0) {
      throw new CodedError('corrupt', `Cannot read ${JSON.stringify(path)}: it is cut short`)
    }
    done += bytesRead
  }
  return bytes
}

async function writePieces(
  file: FileHandle,
  offset: number,
  pieces: readonly Uint8Array[],
  path: string,
): Promise<void> {
  await writeFully(file, pieces, offset).catch(cause => {
    const message = `Cannot write ${JSON.stringify(path)}: ${describeError(cause)}`
    throw new CodedError(codeOf(cause), message, {cause})
  })
}
