// What a daemon does when it is called with `config`: it shows or checks its configuration, and runs nothing.

import {stringify} from 'smol-toml'
import {CodedError} from '../../lib/errors/coded-error.ts'
import {parseWords} from '../process/parse-words.ts'
import {type LoadedConfig, loadConfig, parseConfig} from './config.ts'

export interface ConfigCommand {
  readonly argv: readonly string[]
  readonly defaultPath: string
  /** Throws `invalid-argument` for what this daemon does not take. */
  readonly refuse: (loaded: LoadedConfig, path: string) => void
  readonly print: (text: string) => void
}

/** `default`, `check` or `dump`, and perhaps `--config PATH`; resolves to the exit code. Throws `invalid-argument`. */
export async function runConfigCommand({argv, defaultPath, refuse, print}: ConfigCommand): Promise<number> {
  const [action, ...flags] = argv
  const words = parseWords(flags, ['config'])
  const isKnown = action === 'default' || action === 'check' || action === 'dump'
  if (!isKnown || words.kind !== 'run' || words.rest.length > 0) {
    throw new CodedError(
      'invalid-argument',
      'Cannot use "config": say default, check or dump, and perhaps --config PATH',
    )
  }
  if (action === 'default') {
    print(stringify(parseConfig('', 'default').file))
    return 0
  }
  const path = words.values.get('config') ?? defaultPath
  const loaded = await loadConfig(path, path === defaultPath)
  refuse(loaded, path)
  if (action === 'dump') {
    print(stringify(loaded.file))
    return 0
  }
  for (const key of loaded.unknownKeys) print(`${path}: "${key}" is no key that is known\n`)
  for (const {key, reason} of loaded.withoutEffect) print(`${path}: "${key}" has no effect: ${reason}\n`)
  if (loaded.unknownKeys.length > 0) return 1
  print(`${path}: can be used\n`)
  return 0
}
