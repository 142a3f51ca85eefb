// Archives from stdin and to stdout.

import {createWriteStream, fstatSync} from 'node:fs'
import {mkdtemp, rm} from 'node:fs/promises'
import {tmpdir} from 'node:os'
import {join} from 'node:path'
import {pipeline} from 'node:stream/promises'
import {findOutput} from '../lib/io/output.ts'

/** A file name that stands for what the user wrote; disposing removes what is temporary. */
export interface NamedFile extends AsyncDisposable {
  readonly path: string
}

/** The file `path`, or for `-` one with everything that stdin has: it may be a socket, which cannot be opened by a path. */
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

/** Whether what is written to one of `paths` and what we print would be one stream. */
export async function leadToStdout(paths: readonly string[]): Promise<boolean> {
  const stdout = fstatSync(1)
  for (const path of paths) {
    const place = await findOutput(path)
    if (place.kind === 'descriptor' && place.descriptor === 1) return true
    const found = place.kind === 'file' ? place.existing : place.kind === 'stream' ? place.found : undefined
    // Devices (/dev/null) may be used for both.
    if (found?.ino === stdout.ino && found.dev === stdout.dev && !stdout.isCharacterDevice()) return true
  }
  return false
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
