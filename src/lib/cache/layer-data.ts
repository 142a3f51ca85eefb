// The data of one layer on disk: a sparse file, and the journal of what is in it.

import {constants} from 'node:fs'
import {type FileHandle, open, readdir, rm} from 'node:fs/promises'
import {dirname, join} from 'node:path'
import pLimit from 'p-limit'
import {CodedError, codeOf, describeError, hasCode} from '../errors/coded-error.ts'
import {createChunkBitmap} from '../io/chunk-bitmap.ts'
import type {LayerData} from '../layer/ports.ts'
import {openChunkJournal} from './chunk-journal.ts'

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
}

/** Opens a layer's data, made where they are missing; data of another size are dropped. */
export async function openLayerData(options: OpenLayerData): Promise<LayerData> {
  const {directory, deviceSize, chunkCount} = options
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
    const journal = await openChunkJournal(journalPath, chunkCount, options.bootId, chunk =>
      chunks.add(chunk),
    )
    const oneSyncAtATime = pLimit(1)
    let isDisposed = false
    let isRecordSynced = false
    // Once the file is closed, its number may be another file's.
    const requireOpen = () => {
      if (isDisposed) throw new CodedError('internal', `Cannot use ${JSON.stringify(path)}: it is closed`)
    }

    async function sync(): Promise<void> {
      requireOpen()
      // Data are of no use without what says whose they are.
      if (!isRecordSynced) await syncRecord(directory)
      isRecordSynced = true
      await journal.sync(() => file.datasync())
      await syncPath(directory)
    }

    return {
      path,
      get fd() {
        requireOpen()
        return file.fd
      },
      chunks,
      read: async (offset, length) => {
        requireOpen()
        return readFully(file, offset, length, path)
      },
      write: async (offset, pieces) => {
        requireOpen()
        return writeFully(file, offset, pieces, path)
      },
      note: indexes => {
        requireOpen()
        for (const index of indexes) {
          chunks.add(index)
          // What cannot be noted is fetched again after a restart.
          journal.append(index).catch(() => {})
        }
      },
      sync: () => oneSyncAtATime(sync),
      [Symbol.asyncDispose]: async () => {
        if (isDisposed) return
        isDisposed = true
        try {
          // A mark must not be written into what may come to this place next.
          await oneSyncAtATime(() => journal.close())
        } finally {
          await file.close()
          options.release()
        }
      },
    }
  } catch (error) {
    await file.close()
    throw error
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

async function writeFully(
  file: FileHandle,
  offset: number,
  pieces: readonly Uint8Array[],
  path: string,
): Promise<void> {
  const total = pieces.reduce((sum, {length}) => sum + length, 0)
  let written = 0
  try {
    written = (await file.writev(pieces, offset)).bytesWritten
  } catch (cause) {
    throw new CodedError(codeOf(cause), `Cannot write ${JSON.stringify(path)}: ${describeError(cause)}`, {
      cause,
    })
  }
  if (written === total) return
  // A write that is cut short says why when the rest is tried.
  const rest = Buffer.concat(pieces).subarray(written)
  await writeFully(file, offset + written, [rest], path)
}
