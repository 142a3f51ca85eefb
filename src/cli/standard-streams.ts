// `-` where a file name is expected: archives from stdin and to stdout. Both may be sockets, which have no path that
// could be opened, so the bytes go through a temporary file.

import {createReadStream, createWriteStream} from 'node:fs'
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {pipeline} from 'node:stream/promises'

/** A file name that stands for what the user wrote; disposing removes what is temporary. */
export interface NamedFile extends AsyncDisposable {
  readonly path: string
}

/** The file `path`, or for `-` one with everything that stdin has. */
export async function openInputFile(path: string, signal: AbortSignal): Promise<NamedFile> {
  if (path !== '-') return {path, async [Symbol.asyncDispose]() {}}
  const file = await temporaryFile()
  try {
    await pipeline(process.stdin, createWriteStream(file.path, {mode: 0o600}), {signal})
    return file
  } catch (error) {
    await file[Symbol.asyncDispose]()
    throw error
  }
}

/** The file `path`, or for `-` one whose content `send` passes on to stdout. */
export async function openOutputFile(
  path: string,
  signal: AbortSignal,
): Promise<NamedFile & {send(): Promise<void>}> {
  if (path !== '-') return {path, send: async () => {}, async [Symbol.asyncDispose]() {}}
  const file = await temporaryFile()
  return {
    ...file,
    // A reader that has seen enough is no failure.
    send: () =>
      pipeline(createReadStream(file.path), process.stdout, {signal, end: false}).catch(ignoreBrokenPipe),
  }
}

/** For the errors of stdout and stderr. */
export function ignoreBrokenPipe(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EPIPE') throw error
}

async function temporaryFile(): Promise<NamedFile> {
  const directory = await mkdtemp(join(tmpdir(), 'ctr-remote-'))
  return {
    path: join(directory, 'archive.tar'),
    [Symbol.asyncDispose]: () => rm(directory, {recursive: true, force: true}),
  }
}
