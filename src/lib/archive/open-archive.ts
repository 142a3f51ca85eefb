// Opens an archive of images, as `ctr`, `docker save`, skopeo and podman write them, whichever of the two formats it is.

import {createReadStream} from 'node:fs'
import {mkdtemp, open, rm, stat} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {CodedError, hasCode} from '../errors/coded-error.ts'
import {decompressStream} from '../io/decompress.ts'
import type {CallOptions, ContentStore} from '../oci/content-store.ts'
import type {Descriptor} from '../oci/descriptor.ts'
import type {LayerCompression} from '../oci/media-type.ts'
import {type ArchiveMembers, readArchiveMembers} from './archive-members.ts'
import {readDockerArchive} from './docker-archive-format.ts'
import {readOciArchive} from './oci-archive-format.ts'

/** One image of an archive. */
export interface ArchivedImage {
  /** The names that the archive gives it, as written there: full names, or bare tags in some OCI archives. */
  readonly names: readonly string[]
  /** The descriptor as the archive has it, with the annotations that hold its names. */
  readonly target: Descriptor
}

/** An open archive; the opener disposes it. */
export interface ImageArchive extends AsyncDisposable {
  readonly format: 'oci' | 'docker'
  readonly images: readonly ArchivedImage[]
  readonly content: ContentStore
}

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
  if (isFile && compressionOf(await readStart(path)) === 'none') return {file: path, remove: async () => {}}
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-archive-'))
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
  for await (const bytes of decompressDetected(source, name, options)) {
    options.signal?.throwIfAborted()
    await output.writeFile(bytes)
  }
}

async function* decompressDetected(
  source: AsyncIterable<Uint8Array>,
  name: string,
  options: CallOptions,
): AsyncGenerator<Uint8Array> {
  const iterator = source[Symbol.asyncIterator]()
  const first = await iterator.next()
  const start: Uint8Array = first.done ? Buffer.alloc(0) : first.value
  async function* whole(): AsyncGenerator<Uint8Array> {
    yield start
    yield* {[Symbol.asyncIterator]: () => iterator}
  }
  yield* decompressStream(whole(), compressionOf(start), name, options)
}

async function readStart(path: string): Promise<Uint8Array> {
  await using file = await open(path, 'r')
  const {buffer, bytesRead} = await file.read(Buffer.alloc(4), 0, 4, 0)
  return buffer.subarray(0, bytesRead)
}

/** By magic number: RFC 1952 section 2.3.1, RFC 8878 section 3.1.1. */
function compressionOf(start: Uint8Array): LayerCompression {
  const hex = Buffer.from(start.subarray(0, 4)).toString('hex')
  if (hex.startsWith('1f8b')) return 'gzip'
  return hex === '28b52ffd' ? 'zstd' : 'none'
}
