// Where an archive is put together: a temporary layout beside its final name, so that it appears whole or not at all.

import {randomBytes} from 'node:crypto'
import {mkdir, mkdtemp, open, rename, rm, stat} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {dirname, join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {createBlobFiles} from '../layout/blob-files.ts'
import {type LayoutPaths, layoutPaths} from '../layout/layout-paths.ts'
import {syncDirectory, writeError} from '../layout/staged-file.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import {type MemberToWrite, writeTar} from './tar-writer.ts'

/** A layout on its way into an archive. Disposing it removes the layout, and an archive that was not finished. */
export interface ArchiveStaging extends AsyncDisposable {
  readonly paths: LayoutPaths
  readonly content: ContentStore
  /** A directory for other temporary files. */
  readonly scratch: string
  /** Writes the archive and gives it its name. */
  finish(members: Iterable<MemberToWrite> | AsyncIterable<MemberToWrite>, options: CallOptions): Promise<void>
}

/** Prepares to write the archive `path`: a file, which is replaced, or a pipe or device, which is written to. */
export async function stageArchive(path: string, name: string): Promise<ArchiveStaging> {
  const isFile = await isFileOrAbsent(path)
  const directory = await makeDirectory(path, isFile).catch(cause => {
    throw hasCode(cause, 'not-found')
      ? new CodedError('not-found', `Cannot write "${path}": there is no directory "${dirname(path)}"`, {
          cause,
        })
      : writeError({root: dirname(path)}, cause)
  })
  const paths = layoutPaths(join(directory, 'layout'))
  return {
    paths,
    content: createBlobFiles(paths, {name, labels: false, leases: new Set()}),
    scratch: directory,
    async finish(members, options) {
      try {
        if (isFile) await writeFileWhole(path, join(directory, 'archive.tar'), members, options)
        else await writeToDevice(path, members, options)
      } catch (cause) {
        throw writeError({root: dirname(path)}, cause)
      }
    },
    [Symbol.asyncDispose]: () => rm(directory, {recursive: true, force: true}),
  }
}

async function writeFileWhole(
  path: string,
  temporary: string,
  members: Iterable<MemberToWrite> | AsyncIterable<MemberToWrite>,
  options: CallOptions,
): Promise<void> {
  {
    await using file = await open(temporary, 'wx', 0o644)
    await writeTar(members, file, options)
    await file.sync()
  }
  await rename(temporary, path)
  await syncDirectory(dirname(path))
}

async function writeToDevice(
  path: string,
  members: Iterable<MemberToWrite> | AsyncIterable<MemberToWrite>,
  options: CallOptions,
): Promise<void> {
  await using file = await open(path, 'w')
  await writeTar(members, file, options)
}

async function isFileOrAbsent(path: string): Promise<boolean> {
  try {
    const found = await stat(path)
    if (found.isDirectory()) {
      throw new CodedError('invalid-argument', `Cannot write the archive "${path}": it is a directory`)
    }
    return found.isFile()
  } catch (error) {
    if (hasCode(error, 'not-found')) return true
    throw error
  }
}

async function makeDirectory(path: string, isFile: boolean): Promise<string> {
  if (!isFile) return mkdtemp(join(tmpdir(), 'ctr-remote-archive-'))
  const directory = `${path}.${randomBytes(6).toString('hex')}.tmp`
  await mkdir(directory, {mode: 0o700})
  return directory
}
