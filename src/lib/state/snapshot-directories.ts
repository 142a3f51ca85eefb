// Snapshot directories on disk: `<root>/snapshots/<id>/{fs,work}`, made in full before they get their name.

import {chmod, chown, lstat, mkdir, mkdtemp, opendir, readdir, rename, rm, stat} from 'node:fs/promises'
import {join} from 'node:path'
import {hasCode} from '../errors/coded-error.ts'
import type {SnapshotDirectories} from '../snapshot/ports.ts'
import type {Usage} from '../snapshot/snapshot.ts'

/** Directories that are being made or deleted have this prefix, and are swept by the next `open`. */
const UNFINISHED = 'new-'

/** Opens `<root>/snapshots`, and removes what an interrupted run left unfinished. */
export async function openSnapshotDirectories(root: string): Promise<SnapshotDirectories> {
  const base = join(root, 'snapshots')
  await mkdir(base, {recursive: true, mode: 0o700})
  for (const name of await readdir(base)) {
    if (name.startsWith(UNFINISHED)) await rm(join(base, name), {recursive: true, force: true})
  }
  const filesOf = (id: string) => join(base, id, 'fs')
  return {
    filesOf,
    workOf: id => join(base, id, 'work'),
    create: async (id, kind, like) => {
      const unfinished = await mkdtemp(join(base, UNFINISHED))
      try {
        await mkdir(join(unfinished, 'fs'), {mode: 0o755})
        if (kind === 'active') await mkdir(join(unfinished, 'work'), {mode: 0o711})
        if (like !== undefined) await takeOver(like, join(unfinished, 'fs'))
        await rename(unfinished, join(base, id))
      } catch (error) {
        await rm(unfinished, {recursive: true, force: true})
        throw error
      }
    },
    remove: async id => {
      const doomed = await mkdtemp(join(base, UNFINISHED))
      await rename(join(base, id), join(doomed, id))
      await rm(doomed, {recursive: true, force: true})
    },
    list: async () => (await readdir(base)).filter(name => !name.startsWith(UNFINISHED)),
    usage: id => usageOf(filesOf(id)),
  }
}

/** The root directory of a layer over others looks like the one below it until something changes it. */
async function takeOver(like: string, directory: string): Promise<void> {
  const {uid, gid, mode} = await stat(like)
  await chmod(directory, mode & 0o7777)
  await chown(directory, uid, gid)
}

/** Space and inodes of a tree and its root, hard links counted once; files that vanish meanwhile are left out. */
async function usageOf(directory: string): Promise<Usage> {
  const seen = new Set<string>()
  const total = {size: 0, inodes: 0}
  const add = async (path: string) => {
    try {
      const {dev, ino, blocks} = await lstat(path)
      if (seen.has(`${dev}:${ino}`)) return
      seen.add(`${dev}:${ino}`)
      total.size += blocks * 512
      total.inodes += 1
    } catch (error) {
      if (!hasCode(error, 'not-found')) throw error
    }
  }
  await add(directory)
  for await (const entry of await opendir(directory, {recursive: true}))
    await add(join(entry.parentPath, entry.name))
  return total
}
