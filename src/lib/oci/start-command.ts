// What a container of an image runs unless told otherwise.

import type {ImageConfig} from './manifest.ts'

export interface StartCommand {
  /** Entrypoint and command. */
  readonly words: readonly string[]
  /** The PATH of its environment; empty without. */
  readonly path: string
}

/** Words of a command that say what it reads: of the rest, what is long is data. */
const MAX_WORDS = 16
const MAX_LENGTH = 256

export function startCommandOf({config}: ImageConfig): StartCommand {
  const words = [...(config?.Entrypoint ?? []), ...(config?.Cmd ?? [])]
  const path = config?.Env?.find(variable => variable.startsWith('PATH='))?.slice('PATH='.length) ?? ''
  const isShort = (text: string) => text.length <= MAX_LENGTH
  return {words: words.filter(isShort).slice(0, MAX_WORDS), path: path.slice(0, 4 * MAX_LENGTH)}
}
