import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import {open} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {afterEach, beforeEach, describe, expect, it, onTestFinished, vi} from 'vitest'
import {createChunkBitmap, wrapChunkBitmap} from '../../src/lib/io/chunk-bitmap.ts'
import {openChunkJournal} from '../../src/lib/layer-cache/chunk-journal.ts'

let directory: string
let path: string

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'journal-'))
  path = join(directory, 'journal')
})

afterEach(() => rmSync(directory, {recursive: true}))

async function reopen(bootId: string): Promise<number[]> {
  const found: number[] = []
  const journal = await openChunkJournal(path, 100, bootId, index => found.push(index))
  await journal.close()
  return found
}

/** What all open files share. */
interface FileHandles {
  read(bytes: Buffer, offset: number, length: number, position: number): Promise<{bytesRead: number}>
  writev(...of: unknown[]): Promise<unknown>
}

async function fileHandles(): Promise<FileHandles> {
  const file = await open('/dev/null')
  await file.close()
  return Object.getPrototypeOf(file)
}

/** How many descriptors of this process are of `target`. */
function descriptorsOf(target: string): number {
  return readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === target
    } catch {
      return false
    }
  }).length
}

async function write(indexes: number[], bootId: string, syncAfter = 0): Promise<void> {
  const journal = await openChunkJournal(path, 100, bootId, () => {})
  for (const [position, index] of indexes.entries()) {
    await journal.append(index)
    if (position + 1 === syncAfter) await journal.sync(async () => {})
  }
  await journal.close()
}

describe('the chunk journal', () => {
  it('is empty at first', async () => {
    expect(await reopen('boot')).toEqual([])
  })

  it('remembers everything after a crash of the process', async () => {
    await write([3, 1, 2], 'boot')
    expect(await reopen('boot')).toEqual([3, 1, 2])
  })

  it('remembers only what was synced after a crash of the machine', async () => {
    await write([3, 1, 2], 'boot', 2)
    expect(await reopen('next boot')).toEqual([3, 1])
    expect(await reopen('next boot')).toEqual([3, 1])
  })

  it('appends after a dropped tail', async () => {
    await write([3, 1, 2], 'boot', 1)
    await write([7], 'next boot')
    expect(await reopen('next boot')).toEqual([3, 7])
  })

  it('does not call entries synced that were written after the mark of another boot', async () => {
    await write([3, 1], 'boot', 2)
    await write([7], 'next boot')
    expect(await reopen('third boot')).toEqual([3, 1])
  })

  it('syncs what an earlier process left unsynced', async () => {
    await write([3, 1], 'boot')
    const journal = await openChunkJournal(path, 100, 'boot', () => {})
    await journal.sync(async () => {})
    await journal.close()
    expect(await reopen('next boot')).toEqual([3, 1])
  })

  it('drops an entry that was cut short', async () => {
    await write([3, 1], 'boot')
    appendFileSync(path, Buffer.from([1, 2]))
    expect(await reopen('boot')).toEqual([3, 1])
    expect(statSync(path).size).toBe(8)
  })

  it('drops entries of chunks that the layer does not have', async () => {
    await write([3], 'boot')
    appendFileSync(path, Buffer.from([0xff, 0xff, 0xff, 0xff]))
    expect(await reopen('boot')).toEqual([3])
  })

  it('trusts nothing when the mark is damaged', async () => {
    await write([3], 'boot', 1)
    writeFileSync(`${path}.mark`, '{"bootId":')
    expect(await reopen('boot')).toEqual([])
  })

  it('survives a journal that is shorter than its mark', async () => {
    await write([3, 1, 2], 'boot', 3)
    truncateSync(path, 4)
    expect(await reopen('next boot')).toEqual([3])
  })

  it('does not mark what could not be synced', async () => {
    const journal = await openChunkJournal(path, 100, 'boot', () => {})
    await journal.append(1)
    await expect(journal.sync(() => Promise.reject(new Error('EIO')))).rejects.toThrow('EIO')
    await journal.close()
    expect(JSON.parse(readFileSync(`${path}.mark`, 'utf8')).synced).toBe(0)
    expect(existsSync(`${path}.mark.new`)).toBe(false)
  })

  it('closes its file even when what is left cannot be written', async () => {
    const journal = await openChunkJournal(path, 100, 'boot', () => {})
    const before = descriptorsOf(path)
    const full = vi.spyOn(await fileHandles(), 'writev').mockRejectedValue(new Error('ENOSPC'))
    onTestFinished(() => full.mockRestore())
    const appended = journal.append(1)
    await expect(journal.close()).rejects.toThrow('ENOSPC')
    await expect(appended).rejects.toThrow('ENOSPC')
    expect([before, descriptorsOf(path)]).toEqual([1, 0])
  })

  it('appends at whole entries after a write that was cut short', async () => {
    const journal = await openChunkJournal(path, 100, 'boot', () => {})
    await journal.append(3)
    const full = vi.spyOn(await fileHandles(), 'writev').mockImplementation(async () => {
      appendFileSync(path, Buffer.from([1, 0]))
      throw new Error('ENOSPC')
    })
    onTestFinished(() => full.mockRestore())
    await expect(journal.append(1)).rejects.toThrow('ENOSPC')
    full.mockRestore()
    await journal.append(2)
    await journal.close()
    expect(await reopen('boot')).toEqual([3, 2])
  })

  it('replays what short reads bring, and nothing of what they do not', async () => {
    await write([3, 1, 2], 'boot')
    const handles = await fileHandles()
    const whole = handles.read
    let reads = 0
    const short = vi.spyOn(handles, 'read').mockImplementation(function (
      this: FileHandles,
      bytes,
      offset,
      length,
      position,
    ) {
      return whole.call(this, bytes, offset, reads++ < 3 ? Math.min(3, length) : 0, position)
    })
    onTestFinished(() => short.mockRestore())
    expect(await reopen('boot')).toEqual([3, 1])
    expect(statSync(path).size).toBe(8)
  })

  it('keeps every one of many concurrent appends', async () => {
    const journal = await openChunkJournal(path, 100, 'boot', () => {})
    await Promise.all(Array.from({length: 100}, (_, index) => journal.append(index)))
    await journal.close()
    expect((await reopen('boot')).sort((a, b) => a - b)).toEqual(
      Array.from({length: 100}, (_, index) => index),
    )
  })
})

describe('the chunk bitmap', () => {
  it('counts each chunk once', () => {
    const bitmap = createChunkBitmap(70)
    expect([bitmap.add(0), bitmap.add(69), bitmap.add(0), bitmap.add(31)]).toEqual([true, true, false, true])
    expect(bitmap.count()).toBe(3)
    expect([0, 1, 31, 32, 69].map(bitmap.has)).toEqual([true, false, true, false, true])
  })

  it('answers for ranges, and from another view of the same memory', () => {
    const bitmap = createChunkBitmap(64)
    for (let index = 10; index < 50; index++) bitmap.add(index)
    const other = wrapChunkBitmap(bitmap.buffer, 64)
    expect([other.hasAll(10, 49), other.hasAll(9, 20), other.hasAll(40, 50)]).toEqual([true, false, false])
    expect(other.count()).toBe(40)
  })
})
