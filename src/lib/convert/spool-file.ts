// Memory for what is small, and a file without a name for what is larger.

import {type FileHandle, open, rm} from 'node:fs/promises'
import {join} from 'node:path'
import {writeSparsely} from '../blob/write-fully.ts'
import type {Spool, SpoolWriter} from '../compression/codec.ts'
import {CodedError} from '../errors/coded-error.ts'
import {makeTemporaryDirectory} from '../io/temporary-directory.ts'

/** Up to this many bytes stay in memory; several layers are converted at once. */
const MEMORY_SIZE = 16 << 20

export class SpoolFile implements SpoolWriter {
  readonly #directory: string
  #held: Uint8Array[] = []
  #size = 0
  #file: FileHandle | undefined

  constructor(directory: string) {
    this.#directory = directory
  }

  async write(bytes: Uint8Array): Promise<void> {
    const position = this.#size
    this.#size += bytes.length
    if (!this.#file && this.#size <= MEMORY_SIZE) {
      this.#held.push(bytes.slice())
      return
    }
    const isFirst = this.#file === undefined
    this.#file ??= await openUnnamed(this.#directory)
    try {
      if (isFirst) await this.#writeHeld(this.#file)
      await writeSparsely(this.#file, bytes, position)
    } catch (cause) {
      throw new CodedError(
        'unavailable',
        `Cannot keep the decompressed layer in ${JSON.stringify(this.#directory)} (${this.#size} bytes so far)`,
        {cause},
      )
    }
  }

  async #writeHeld(file: FileHandle): Promise<void> {
    let position = 0
    for (const bytes of this.#held) {
      await writeSparsely(file, bytes, position)
      position += bytes.length
    }
    this.#held = []
  }

  async finish(): Promise<Spool> {
    if (!this.#file) return {size: this.#size, storage: Buffer.concat(this.#held)}
    await this.#file.truncate(this.#size)
    return {size: this.#size, storage: this.#file.fd}
  }

  async close(): Promise<void> {
    this.#held = []
    await this.#file?.close()
    this.#file = undefined
  }
}

/** A file that vanishes with its descriptor, so that not even a killed process leaves it behind. */
async function openUnnamed(directory: string): Promise<FileHandle> {
  const holder = await makeTemporaryDirectory(directory, 'ctr-remote-layer-')
  try {
    return await open(join(holder, 'tar'), 'wx+', 0o600)
  } finally {
    await rm(holder, {recursive: true, force: true})
  }
}
