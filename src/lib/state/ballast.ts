// A file of no use but its size: given up when the disk is full, so that what is needed to free the disk can be written.

import {randomBytes} from 'node:crypto'
import {existsSync, rmSync} from 'node:fs'
import {rename, rm, statfs, writeFile} from 'node:fs/promises'
import {dirname} from 'node:path'

/**
 * More than the snapshot table ever writes before it can use its log again (sqlite.org/wal.html: 1,000 pages of 4 KiB), and
 * room for many directories.
 */
const SIZE = 8 << 20

/** With less a daemon could not start, bytes. */
const ROOM_TO_START = 1 << 20
/** How often the ballast is taken again, if it is gone. */
const INTERVAL_MS = 60_000

export class Ballast implements Disposable {
  readonly #path: string
  #restoring: Promise<void> | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(path: string) {
    this.#path = path
  }

  /** At a daemon's start: gives the space back if it could not start otherwise, and takes it again once there is room, until disposed. */
  async carry(): Promise<void> {
    const {bsize, bavail} = await statfs(dirname(this.#path))
    if (bsize * bavail < ROOM_TO_START) this.release()
    else await this.restore()
    // Others make room too, and tell nobody.
    this.#timer = setInterval(() => void this.restore(), INTERVAL_MS).unref()
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer)
  }

  /** Gives the space back; false when there is none. */
  release(): boolean {
    if (!existsSync(this.#path)) return false
    rmSync(this.#path)
    return true
  }

  /** Takes the space again, once there is enough beside it. Never fails: without it all is as before. */
  restore(): Promise<void> {
    this.#restoring ??= this.#restoreNow().finally(() => {
      this.#restoring = undefined
    })
    return this.#restoring
  }

  async #restoreNow(): Promise<void> {
    if (existsSync(this.#path)) return
    const unfinished = `${this.#path}.new`
    try {
      const {bsize, bavail} = await statfs(dirname(this.#path))
      if (bsize * bavail < 4 * SIZE) return
      // Nothing that a file system could keep in less.
      await writeFile(unfinished, randomBytes(SIZE))
      await rename(unfinished, this.#path)
    } catch {
      await rm(unfinished, {force: true}).catch(() => {})
    }
  }
}
