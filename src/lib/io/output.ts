// Where a result goes that a person has named: a plain file, which shows whole or not at all, or whatever else has a name.
// Devices, pipes, sockets and descriptors (`/dev/stdout`) are written to, links are followed, and a file that replaces
// another one keeps its owner and mode.

import {constants, createReadStream, type Stats} from 'node:fs'
import {access, open, readlink, realpath, stat} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {basename, dirname, join, resolve} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {type Output, openStreamOutput, type StreamPlace} from './output-stream.ts'
import {nameBeside, StagedFile} from './staged-file.ts'

/** What a path leads to; `existing` is the file that will be replaced. */
export type OutputPlace = FilePlace | StreamPlace

interface FilePlace {
  readonly kind: 'file'
  readonly path: string
  readonly existing: Stats | undefined
}

export interface OutputOptions {
  /** Where a plain file is put together; beside its final name by default. */
  readonly staged?: string | undefined
  readonly signal?: AbortSignal | undefined
}

const DESCRIPTOR = /^\/(?:dev|proc\/(?:self|thread-self|\d+))\/fd\/(\d{1,9})$/
/** As many links as Linux follows (path_resolution(7)). */
const MAX_LINKS = 40

/** Finds out what `path` leads to. Throws `invalid-argument` for a directory, `not-found` where it could not be made. */
export async function findOutput(path: string): Promise<OutputPlace> {
  const end = await followLinks(resolve(path))
  const [, descriptor] = DESCRIPTOR.exec(end) ?? []
  if (descriptor !== undefined) return {kind: 'descriptor', descriptor: Number(descriptor)}
  const found = await stat(end).catch(unlessMissing)
  if (found?.isDirectory())
    throw new CodedError('invalid-argument', `Cannot write "${path}": it is a directory`)
  if (found && !found.isFile()) return {kind: 'stream', path: end, found}
  return {kind: 'file', path: end, existing: found}
}

/** Opens a place for writing. */
export async function openOutput(place: OutputPlace, options: OutputOptions = {}): Promise<Output> {
  if (place.kind !== 'file') return openStreamOutput(place, options)
  const {path, existing} = place
  // Until it has the owner of the file before, nobody else need see what is in it.
  const mode = existing ? 0o600 : 0o666
  const file = await StagedFile.create(options.staged ?? (await stagingName(place)), mode)
  return {
    write: bytes => file.handle.writeFile(bytes),
    commit: async () => {
      if (!existing) return file.publish(path)
      const isReplaced = (await adoptOwner(file, existing)) && (await tryToPublish(file, path))
      if (!isReplaced) await copyOver(file.path, path)
    },
    [Symbol.asyncDispose]: () => file[Symbol.asyncDispose](),
  }
}

/** Writes a whole result to the place that `path` leads to. */
export async function writeOutput(
  path: string,
  bytes: Uint8Array | string,
  options: OutputOptions = {},
): Promise<void> {
  await using output = await openOutput(await findOutput(path), options)
  await output.write(typeof bytes === 'string' ? Buffer.from(bytes) : bytes)
  await output.commit()
}

/** Beside the file; for an existing file in a directory that is not ours to write to, among temporary files. */
async function stagingName({path, existing}: FilePlace): Promise<string> {
  return existing && !(await canStageBeside(path))
    ? nameBeside(join(tmpdir(), `ctr-remote-${basename(path)}`))
    : nameBeside(path)
}

/** Whether files can be made beside `path`. */
export async function canStageBeside(path: string): Promise<boolean> {
  return access(dirname(path), constants.W_OK).then(
    () => true,
    () => false,
  )
}

/** Gives a file the owner and mode of another; false where that is not ours to do. */
async function adoptOwner({handle}: StagedFile, {uid, gid, mode}: Stats): Promise<boolean> {
  try {
    const own = await handle.stat()
    if (own.uid !== uid || own.gid !== gid) await handle.chown(uid, gid)
    await handle.chmod(mode & 0o7777)
    return true
  } catch (error) {
    if (hasCode(error, 'permission-denied')) return false
    throw error
  }
}

/** False on another file system, and in a directory where files may be written to and not replaced. */
async function tryToPublish(file: StagedFile, path: string): Promise<boolean> {
  try {
    await file.publish(path)
    return true
  } catch (error) {
    if (hasCode(error, 'permission-denied') || (error as NodeJS.ErrnoException).code === 'EXDEV') return false
    throw error
  }
}

/** The way that keeps the file itself, and not its old content when it fails. */
async function copyOver(from: string, path: string): Promise<void> {
  await using file = await open(path, 'r+')
  await file.truncate()
  for await (const bytes of createReadStream(from)) await file.writeFile(bytes)
  await file.sync()
}

/** The end of a chain of links, which need not exist; a descriptor's name ends it too. */
async function followLinks(start: string): Promise<string> {
  let path = start
  for (let links = 0; links <= MAX_LINKS; links++) {
    if (DESCRIPTOR.test(path)) return path
    const directory = await realpath(dirname(path)).catch(cause => {
      if (!hasCode(cause, 'not-found')) throw cause
      throw new CodedError('not-found', `Cannot write "${start}": there is no directory "${dirname(path)}"`, {
        cause,
      })
    })
    path = join(directory, basename(path))
    const link = await readlink(path).catch(cause => {
      // EINVAL is no link.
      if (cause.code === 'EINVAL' || hasCode(cause, 'not-found')) return undefined
      throw cause
    })
    if (link === undefined) return path
    path = resolve(directory, link)
  }
  throw new CodedError('invalid-argument', `Cannot write "${start}": its links lead in a circle`)
}

function unlessMissing(error: unknown): undefined {
  if (!hasCode(error, 'not-found')) throw error
}
