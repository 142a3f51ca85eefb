// A program that is started, as those see it who know what programs of its kind read.

import type {StartFile} from './start-search.ts'

/** A program with its arguments. */
export interface Launch {
  /** The path that was asked for: a link's own name says how Python and BusyBox are meant. */
  readonly asked: string
  readonly program: StartFile
  /** Without the program's own name. */
  readonly words: readonly string[]
  readonly host: LaunchHost
}

/** What a program finds around it. */
export interface LaunchHost {
  readonly workingDirectory: string
  /** A variable of the environment; empty without. */
  env(name: string): string
  /** The file at a path, from the working directory when it is relative; nothing is taken. */
  find(path: string): Promise<StartFile | undefined>
  /** Takes the file at a path, if there is one, with what it needs as a program or library. */
  take(path: string): Promise<StartFile | undefined>
  /** A program's text; empty for what is too long for one, or when enough has been read. */
  text(file: StartFile): Promise<string>
  /** Takes what a command reads. */
  run(words: readonly string[]): Promise<void>
}

/** Takes what a program of one kind reads. */
export type Language = (launch: Launch) => Promise<void>

export function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/')) || '/'
}

export function baseOf(path: string): string {
  return path.slice(path.lastIndexOf('/') + 1)
}
