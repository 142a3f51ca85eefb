// Opens an archive of images, as `ctr`, `docker save`, skopeo and podman write them, whichever of the two formats it is.

import {createReadStream} from 'node:fs'
import {open, rm, stat} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {decompressStream} from '../blob/decompress.ts'
import {detectCompression, MAGIC_SIZE} from '../blob/detect-compression.ts'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {makeTemporaryDirectory} from '../io/temporary-directory.ts'
import type {CallOptions} from '../oci/content-store.ts'
import {type ArchiveMembers, readArchiveMembers} from './archive-members.ts'
import {readDockerArchive} from './docker-archive-format.ts'
import type {ImageArchive} from './image-archive.ts'
import {readOciArchive} from './oci-archive-format.ts'

export interface OpenArchiveOptions extends CallOptions {
  /** Insists on a format; an archive that is both (Docker 25 and later, ctr) is OCI without. */
  readonly format?: 'oci' | 'docker' | undefined
  /** For messages; the path by default. */
  readonly name?: string | undefined
}

/**
 * Opens the archive at `path`. A plain tar file is read in place; one that is compressed, or is no file (a pipe), is
 * copied to a temporary file first. Throws `not-found`, `corrupt` for a damaged or hostile archive, `invalid-argument`
 * for a tar that holds no images.
 */
export async function openArchive(path: string, options: OpenArchiveOptions = {}): Promise<ImageArchive> {
  const name = options.name ?? `"${path}"`
  const spool = await spoolIfNeeded(path, name, options)
  try {
    const members = await readArchiveMembers(spool.file, name, options)
    const format = options.format ?? detectFormat(members)
    const read = format === 'oci' ? readOciArchive : readDockerArchive
    return {format, ...(await read(members, options)), [Symbol.asyncDispose]: spool.remove}
  } catch (error) {
    await spool.remove()
    throw error
  }
}

function detectFormat(members: ArchiveMembers): 'oci' | 'docker' {
  if (members.find('index.json')) return 'oci'
  if (members.find('manifest.json')) return 'docker'
  throw new CodedError(
    'invalid-argument',
    `Cannot find images in ${members.where}: it has neither an index.json (OCI) nor a manifest.json (docker save)`,
  )
}

interface Spool {
  readonly file: string
  remove(): Promise<void>
}

async function spoolIfNeeded(path: string, name: string, options: CallOptions): Promise<Spool> {
  const isFile = await stat(path).then(
    found => found.isFile(),
    cause => {
      throw hasCode(cause, 'not-found')
        ? new CodedError('not-found', `Cannot find the archive "${path}"`, {cause})
        : cause
    },
  )
  if (isFile && detectCompression(await readStart(path)) === 'none')
    return {file: path, remove: async () => {}}
  const directory = await makeTemporaryDirectory(tmpdir(), 'ctr-remote-archive-')
  const remove = () => rm(directory, {recursive: true, force: true})
  try {
    const file = join(directory, 'archive.tar')
    await spoolTo(file, path, name, options)
    return {file, remove}
  } catch (error) {
    await remove()
    throw error
  }
}

/** What the archive decompresses to is bounded by the room in the temporary directory. */
async function spoolTo(file: string, path: string, name: string, options: CallOptions): Promise<void> {
  await using output = await open(file, 'wx', 0o600)
  const source = createReadStream(path, {highWaterMark: 1024 * 1024})
  for await (const bytes of decompressStream(source, name, options)) {
    options.signal?.throwIfAborted()
    await output.writeFile(bytes)
  }
}

async function readStart(path: string): Promise<Uint8Array> {
  await using file = await open(path, 'r')
  const {buffer, bytesRead} = await file.read(Buffer.alloc(MAGIC_SIZE), 0, MAGIC_SIZE, 0)
  return buffer.subarray(0, bytesRead)
}
