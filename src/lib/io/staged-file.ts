// Files that appear under their final name whole or not at all.

import {randomBytes} from 'node:crypto'
import {type FileHandle, open, rename, rm} from 'node:fs/promises'
import {dirname} from 'node:path'

/** A file that is being written under another name; disposing it before `publish` removes it. */
export class StagedFile implements AsyncDisposable {
  readonly path: string
  readonly handle: FileHandle
  #published = false

  private constructor(path: string, handle: FileHandle) {
    this.path = path
    this.handle = handle
  }

  /** Makes the file; its name must be on the file system of the final one. */
  static async create(path: string, mode: number): Promise<StagedFile> {
    return new StagedFile(path, await open(path, 'wx', mode))
  }

  /** Gives it its final name, replacing what is there; on the disk when it resolves, unless it may be lost. */
  async publish(path: string, {mayBeLost = false} = {}): Promise<void> {
    if (!mayBeLost) await this.handle.sync()
    await rename(this.path, path)
    this.#published = true
    if (!mayBeLost) await syncDirectory(dirname(path))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.handle.close()
    if (!this.#published) await rm(this.path, {force: true})
  }
}

/** A name beside `path` that nobody else uses. */
export function nameBeside(path: string): string {
  return `${path}.${randomBytes(6).toString('hex')}.new`
}

/** Replaces `path`, a plain file of ours, with `bytes` in one step; on the disk when it resolves, unless it may be lost. */
export async function replaceFile(
  path: string,
  bytes: Uint8Array | string,
  {mode = 0o644, mayBeLost = false} = {},
): Promise<void> {
  await using staged = await StagedFile.create(nameBeside(path), mode)
  await staged.handle.writeFile(bytes)
  await staged.publish(path, {mayBeLost})
}

/** Makes renames into a directory durable; syncing the file alone does not. */
export async function syncDirectory(path: string): Promise<void> {
  await using directory = await open(path, 'r')
  await directory.sync()
}
