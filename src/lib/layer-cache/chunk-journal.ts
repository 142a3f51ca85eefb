// The durable list of chunks in a layer's data file: a journal of indexes, and a mark of how far it has been synced.
//
// After a crash of the process the page cache still holds what was written, so every entry of the same boot is true.
// After a crash of the machine only what was synced is: the mark says how many entries that is, and is written after
// the data file has been synced.

import {constants} from 'node:fs'
import {type FileHandle, open, readFile, rename, writeFile} from 'node:fs/promises'
import {writeFully} from '../blob/write-fully.ts'
import {hasCode} from '../errors/coded-error.ts'

/** `journal` is u32 little-endian chunk indexes; `mark` is JSON. */
interface Mark {
  /** The kernel's boot id when the journal was last appended to. */
  readonly bootId: string
  /** Entries whose data had been synced by then. */
  readonly synced: number
}

const ENTRY_SIZE = 4

/** An append-only journal; close it to sync the rest. */
export interface ChunkJournal {
  /** Notes that `index` has been written. Resolves when a crash of this process cannot lose it. */
  append(index: number): Promise<void>
  /** Makes everything appended so far survive a crash of the machine; `syncData` must sync the data file. */
  sync(syncData: () => Promise<void>): Promise<void>
  close(): Promise<void>
}

/**
 * Opens the journal at `path` (its mark is beside it) and reports every chunk that is surely in the data file. Entries
 * that are cut short or out of range are dropped: their chunks are fetched again.
 */
export async function openChunkJournal(
  path: string,
  chunkCount: number,
  bootId: string,
  onChunk: (index: number) => void,
): Promise<ChunkJournal> {
  const mark = await readMark(`${path}.mark`)
  const file = await open(path, constants.O_RDWR | constants.O_CREAT, 0o600)
  try {
    let entries = Math.floor((await file.stat()).size / ENTRY_SIZE)
    if (mark.bootId !== bootId) entries = Math.min(entries, mark.synced)
    entries = await replay(file, entries, chunkCount, onChunk)
    await file.truncate(entries * ENTRY_SIZE)
    const synced = Math.min(mark.synced, entries)
    if (mark.bootId !== bootId || mark.synced !== synced) await writeMark(`${path}.mark`, {bootId, synced})
    return journalOver(file, path, {entries, synced, bootId})
  } catch (error) {
    await file.close()
    throw error
  }
}

function journalOver(
  file: FileHandle,
  path: string,
  existing: {readonly entries: number} & Mark,
): ChunkJournal {
  const {bootId} = existing
  let {entries, synced} = existing
  // Appends that arrive while one is written go out together.
  let pending: number[] = []
  let writing: Promise<void> | undefined
  const flush = async () => {
    while (pending.length > 0) {
      const batch = pending
      pending = []
      const bytes = Buffer.alloc(batch.length * ENTRY_SIZE)
      for (const [position, index] of batch.entries()) bytes.writeUInt32LE(index, position * ENTRY_SIZE)
      // At its place, not at the end: one that was cut short must not shift those after it.
      await writeFully(file, [bytes], entries * ENTRY_SIZE)
      entries += batch.length
    }
  }
  const settle = () => {
    writing ??= flush().finally(() => {
      writing = undefined
    })
    return writing
  }
  return {
    append: index => {
      pending.push(index)
      return settle()
    },
    sync: async syncData => {
      await settle()
      const upTo = entries
      if (upTo === synced) return
      await syncData()
      await file.datasync()
      await writeMark(`${path}.mark`, {bootId, synced: upTo})
      synced = upTo
    },
    close: async () => {
      try {
        await settle()
      } finally {
        await file.close()
      }
    },
  }
}

/** Resolves to how many entries there are to read: fewer than `entries` when the file ends before. */
async function replay(
  file: FileHandle,
  entries: number,
  chunkCount: number,
  onChunk: (index: number) => void,
): Promise<number> {
  const bytes = Buffer.allocUnsafe(entries * ENTRY_SIZE)
  let size = 0
  while (size < bytes.length) {
    const {bytesRead} = await file.read(bytes, size, bytes.length - size, size)
    if (bytesRead === 0) break
    size += bytesRead
  }
  const found = Math.floor(size / ENTRY_SIZE)
  for (let entry = 0; entry < found; entry++) {
    const index = bytes.readUInt32LE(entry * ENTRY_SIZE)
    if (index < chunkCount) onChunk(index)
  }
  return found
}

async function readMark(path: string): Promise<Mark> {
  try {
    const mark = JSON.parse(await readFile(path, 'utf8'))
    if (typeof mark?.bootId === 'string' && Number.isSafeInteger(mark.synced) && mark.synced >= 0) return mark
  } catch (error) {
    if (!hasCode(error, 'not-found') && !(error instanceof SyntaxError)) throw error
  }
  return {bootId: '', synced: 0}
}

async function writeMark(path: string, mark: Mark): Promise<void> {
  const file = await open(`${path}.new`, 'w', 0o600)
  try {
    await writeFile(file, JSON.stringify(mark))
    // One that says nothing may be lost; layers that are new need not wait for the disk.
    if (mark.synced > 0) await file.datasync()
  } finally {
    await file.close()
  }
  await rename(`${path}.new`, path)
}
