// Standard streams of a task: named pipes between us and containerd's shim.

import {constants, openSync} from 'node:fs'
import {mkdir, mkdtemp, rm} from 'node:fs/promises'
import {Socket} from 'node:net'
import {join} from 'node:path'
import type {Readable, Writable} from 'node:stream'
import {pipeline} from 'node:stream/promises'
import {runCommandOrThrow} from '../io/run-command.ts'
import type {CallOptions} from '../oci/content-store.ts'

/** Where `ctr` has its pipes too; cleared when the machine starts. */
export const DEFAULT_FIFO_DIRECTORY = '/run/containerd/fifo'

/** Paths that a task is created with; an empty one is no stream. */
export interface StreamPaths {
  readonly stdin: string
  readonly stdout: string
  readonly stderr: string
}

export const NO_STREAMS: StreamPaths = {stdin: '', stdout: '', stderr: ''}

export interface TaskStreams extends AsyncDisposable {
  readonly paths: StreamPaths
  /** Resolves when the task, and all who share its output, have closed it, and everything has been passed on. */
  readonly outputEnded: Promise<void>
  /** Copies `input` to the task until either ends; the task must have been created. Resolves when `input` has ended. */
  copyInput(input: Readable, options: CallOptions): Promise<void>
}

export interface StreamOptions extends CallOptions {
  readonly directory: string
  readonly id: string
  /** Where output goes, and that there is input; a task that we leave to itself has pipes that others may open. */
  readonly attached: {readonly stdout: Writable; readonly stderr: Writable} | undefined
  /** A terminal has one output. */
  readonly terminal: boolean
}

/** Makes the pipes of a task. Disposing closes our ends and removes them. */
export async function createTaskStreams(options: StreamOptions): Promise<TaskStreams> {
  await mkdir(options.directory, {recursive: true, mode: 0o700})
  const directory = await mkdtemp(join(options.directory, 'ctr-remote-'))
  try {
    const pathOf = (name: string) => join(directory, `${options.id}-${name}`)
    const paths = {
      stdin: options.attached ? pathOf('stdin') : '',
      stdout: pathOf('stdout'),
      stderr: options.terminal ? '' : pathOf('stderr'),
    }
    const made = Object.values(paths).filter(path => path !== '')
    await runCommandOrThrow('mkfifo', ['-m', '600', ...made], options)
    return openStreams(directory, paths, options.attached)
  } catch (error) {
    await rm(directory, {recursive: true, force: true})
    throw error
  }
}

function openStreams(
  directory: string,
  paths: StreamPaths,
  attached: StreamOptions['attached'],
): TaskStreams {
  // Without waiting for the other end, which is not there yet. A reader sees no end before a writer has come and gone.
  const opened: Socket[] = []
  const copies: Promise<void>[] = []
  for (const name of ['stdout', 'stderr'] as const) {
    if (!attached || paths[name] === '') continue
    const pipe = openPipe(paths[name], constants.O_RDONLY)
    opened.push(pipe)
    // Listening from the start: the output of a short task would be over before anybody asked.
    copies.push(copy(pipe, attached[name]))
  }
  return {
    paths,
    outputEnded: Promise.all(copies).then(() => {}),
    async copyInput(input, {signal}) {
      // Also for reading, so that opening never fails; closing it is the end of the input all the same.
      const stdin = openPipe(paths.stdin, constants.O_RDWR)
      opened.push(stdin)
      await pipeline(input, stdin, {...(signal ? {signal} : {})}).catch(() => {})
      stdin.destroy()
    },
    async [Symbol.asyncDispose]() {
      for (const stream of opened) stream.destroy()
      await rm(directory, {recursive: true, force: true})
    },
  }
}

/** Opening without waiting takes no time, so it need not leave this thread. */
function openPipe(path: string, mode: number): Socket {
  const writable = mode !== constants.O_RDONLY
  return new Socket({fd: openSync(path, mode | constants.O_NONBLOCK), readable: !writable, writable})
}

/** Copies at the pace of `target`; one that closes early (a pipe to `head`) does not stop the task. */
async function copy(source: Readable, target: Writable): Promise<void> {
  await new Promise<void>(resolve => {
    source.on('data', (chunk: Uint8Array) => {
      if (!target.writable || target.write(chunk)) return
      source.pause()
      target.once('drain', () => source.resume())
      target.once('close', () => source.resume())
    })
    source.once('close', resolve)
    source.once('end', resolve)
    source.once('error', () => resolve())
  })
}
