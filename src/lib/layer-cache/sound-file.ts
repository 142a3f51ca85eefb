// Files that are made again when a crash of the machine has cost them bytes.
//
// Such a file is never synced, so nobody waits for the disk. Beside it, `<name>.sum` says what it holds and in which
// boot it was written: in that boot it is what was written; after it, it is compared before it is trusted.

import {readFile, rename, rm, stat, writeFile} from 'node:fs/promises'
import {crc32} from 'node:zlib'

/** `<name>.sum`, as JSON. */
interface Sum {
  readonly bootId: string
  readonly size: number
  readonly crc32: number
}

/** Writes the file at `path`; it gets its name when it is whole. */
export async function writeSoundFile(path: string, bytes: Uint8Array, bootId: string): Promise<void> {
  const staged = `${path}.new`
  try {
    await writeFile(staged, bytes)
    await rename(staged, path)
  } catch (error) {
    await rm(staged, {force: true})
    throw error
  }
  // Afterwards, lest it vouch for the file that was there before.
  const sum: Sum = {bootId, size: bytes.length, crc32: crc32(bytes)}
  await writeFile(`${path}.sum`, JSON.stringify(sum))
}

/** Whether the file at `path` is there, and surely what was written; what cannot be read is not. */
export async function isSoundFile(path: string, bootId: string): Promise<boolean> {
  try {
    const sum: Partial<Sum> | null = JSON.parse(await readFile(`${path}.sum`, 'utf8'))
    if ((await stat(path)).size !== sum?.size) return false
    return sum.bootId === bootId || sum.crc32 === crc32(await readFile(path))
  } catch {
    return false
  }
}
